"use strict";
(() => {
  const figures = JSON.parse(document.getElementById("figures").textContent);
  const printTheme = document.getElementById("print-theme");
  const isTouch = matchMedia("(pointer: coarse)").matches;
  const PRINT_WIDTH = { wide: 670, narrow: 315 }, PRINT_HEIGHT = 930, NARROW = 520;
  let printing = false;

  // The figure's values with colours of the theme in the place of their names.
  function themed(value, style) {
    if (typeof value === "string") return value[0] === "@" ? style.getPropertyValue("--" + value.slice(1)).trim() : value;
    if (Array.isArray(value)) return value.map((item) => themed(item, style));
    if (value === null || typeof value !== "object") return value;
    return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, themed(item, style)]));
  }

  function chosen(element) {
    const ids = element.dataset.controls.split(" ").filter(Boolean);
    return ids.map((id) => document.getElementById(id).value).join("|");
  }

  function shortened(text, limit) {
    return text.length > limit ? text.slice(0, limit - 1) + "…" : text;
  }

  function draw(plot) {
    const figure = (figures[plot.id] || {})[chosen(plot)];
    if (!figure) return;
    const style = getComputedStyle(printing ? printTheme : document.documentElement);
    const { data, layout } = themed({ data: figure.data, layout: figure.layout }, style);
    const isWide = plot.classList.contains("wide");
    layout.width = printing ? PRINT_WIDTH[isWide ? "wide" : "narrow"] : Math.floor(plot.clientWidth);
    if (printing) layout.height = Math.min(layout.height, PRINT_HEIGHT);
    if (layout.width < NARROW && layout.yaxis.ticktext) layout.yaxis.ticktext = layout.yaxis.ticktext.map((text) => shortened(text, 20));
    if (layout.width < NARROW && layout.legend.yref) { // room for keys in several lines
      layout.margin.b += 50;
      layout.height += 50;
    }
    if (isTouch) layout.dragmode = false;
    plot.setAttribute("aria-label", figure.label);
    Plotly.react(plot, data, layout, { displayModeBar: false, staticPlot: printing });
    plot.style.minHeight = "0";
    plot.dataset.drawn = "yes";
  }

  function say(paragraph) {
    const figure = (figures[paragraph.dataset.text] || {})[chosen(paragraph)];
    paragraph.textContent = figure ? figure.text : "";
  }

  const plots = [...document.querySelectorAll(".plot")];
  const redraw = () => plots.filter((plot) => plot.dataset.drawn).forEach(draw);
  const inSight = new IntersectionObserver(
    (entries) => entries.filter((entry) => entry.isIntersecting).forEach(({ target }) => {
      inSight.unobserve(target);
      draw(target);
    }),
    { rootMargin: "800px" }
  );
  plots.forEach((plot) => inSight.observe(plot));
  document.querySelectorAll("[data-text]").forEach(say);
  document.querySelectorAll(".controls select").forEach((select) =>
    select.addEventListener("change", () => {
      const isMine = (element) => element.dataset.controls.split(" ").includes(select.id);
      plots.filter(isMine).forEach(draw);
      [...document.querySelectorAll("[data-text]")].filter(isMine).forEach(say);
    })
  );
  document.querySelectorAll("[data-save]").forEach((button) =>
    button.addEventListener("click", () => {
      const plot = document.getElementById(button.dataset.save);
      Plotly.downloadImage(plot, { format: "svg", filename: button.dataset.save, width: plot.clientWidth, height: plot.clientHeight });
    })
  );

  let waiting, lastWidth = innerWidth;
  addEventListener("resize", () => {
    if (innerWidth === lastWidth) return;
    lastWidth = innerWidth;
    clearTimeout(waiting);
    waiting = setTimeout(redraw, 150);
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);

  let opened = [];
  addEventListener("beforeprint", () => {
    printing = true;
    opened = [...document.querySelectorAll("details:not([open])")];
    opened.forEach((details) => { details.open = true; });
    plots.forEach(draw);
  });
  addEventListener("afterprint", () => {
    printing = false;
    opened.forEach((details) => { details.open = false; });
    redraw();
  });

  // Sorting: numbers descending first, names ascending; cells without a value last.
  function valueOf(row, column) {
    const text = row.cells[column].dataset.sort;
    if (text === undefined) return null;
    return text !== "" && !Number.isNaN(Number(text)) ? Number(text) : text;
  }
  function compare(a, b, sign) {
    if (a === null || b === null) return (a === null) - (b === null);
    if (typeof a === "number" && typeof b === "number") return sign * (a - b);
    return sign * String(a).localeCompare(String(b));
  }
  document.querySelectorAll("table.sortable").forEach((table) => {
    const headers = [...table.tHead.rows[0].cells];
    headers.forEach((header, column) => header.firstElementChild.addEventListener("click", () => {
      const rows = [...table.tBodies[0].rows];
      const areNumbers = rows.some((row) => typeof valueOf(row, column) === "number");
      const now = header.getAttribute("aria-sort");
      const next = now === "none" ? (areNumbers ? "descending" : "ascending") : now === "ascending" ? "descending" : "ascending";
      headers.forEach((other) => other.setAttribute("aria-sort", other === header ? next : "none"));
      const sign = next === "ascending" ? 1 : -1;
      // Findings with too few patients to judge stay behind the others, whatever the order.
      const isBehind = (row) => Number(row.cells[0].classList.contains("behind"));
      rows.sort((a, b) => isBehind(a) - isBehind(b) || compare(valueOf(a, column), valueOf(b, column), sign));
      table.tBodies[0].append(...rows);
    }));
  });

  const boxes = [...document.querySelectorAll("input.heat")];
  boxes.forEach((box) => box.addEventListener("change", () => {
    boxes.forEach((other) => { other.checked = box.checked; });
    document.body.classList.toggle("plain", !box.checked);
  }));
})();
