"""The page in a real browser: headless Chromium, from the file, without a network."""

import os
import shutil
from itertools import pairwise
from pathlib import Path

import pytest

from dualview.commands.report import write_report

from .conftest import made_up, write_run

sync_api = pytest.importorskip("playwright.sync_api")
NAMES = ("chromium", "chromium-browser", "google-chrome")


def chromium(playwright) -> str | None:
    """Of $DUALVIEW_CHROMIUM, on PATH, or the one that `playwright install chromium` has fetched."""
    on_path = os.environ.get("DUALVIEW_CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
    fetched = playwright.chromium.executable_path
    return on_path or (fetched if Path(fetched).exists() else None)


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        if (path := chromium(playwright)) is None:
            pytest.skip(f"no browser: none of {', '.join(NAMES)} on PATH")
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def file(made_up_run, trained_run, tmp_path_factory):
    """Pages by name: one run, one with images, two runs."""
    folder = tmp_path_factory.mktemp("pages")
    other = write_run(folder / "other", made_up(120, findings=("Nodule", "Edema"), seed=3))
    from dualview.report.pictures import ImageRequest  # noqa: PLC0415 - captum only where it is used

    return {
        "one": write_report([made_up_run], out=folder / "one.html"),
        "images": write_report([trained_run], out=folder / "images.html", images=ImageRequest(num_images=2)),
        "two": write_report([made_up_run, other], out=folder / "two.html"),
    }


class Page:
    """An opened page with what the browser complained of and asked for."""

    def __init__(self, browser, path, **settings):
        self.context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **settings})
        self.page = self.context.new_page()
        self.complaints, self.requests = [], []
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(path.as_uri())
        self.url = path.as_uri()

    def draw_all(self):
        for plot in self.page.query_selector_all(".plot"):
            plot.scroll_into_view_if_needed()
        self.page.wait_for_function("document.querySelectorAll('.plot:not([data-drawn])').length === 0")


@pytest.fixture
def opened(browser, file):
    pages = []

    def open_page(name, **settings):
        pages.append(Page(browser, file[name], **settings))
        return pages[-1]

    yield open_page
    for page in pages:
        page.context.close()


@pytest.mark.parametrize("name", ["one", "images", "two"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_plots_draw_without_a_complaint_or_a_request(opened, name, scheme):
    opened = opened(name, color_scheme=scheme)
    opened.draw_all()
    page = opened.page
    empty = "plot => !plot.querySelector('.scatterlayer path, .scatterlayer .point')"
    assert page.evaluate(f"[...document.querySelectorAll('.plot')].filter({empty}).map(plot => plot.id)") == []
    assert opened.complaints == []
    assert [url for url in opened.requests if url != opened.url and not url.startswith("data:")] == []
    ink = page.evaluate("getComputedStyle(document.querySelector('.plot .xtick text')).fill")
    assert ink == page.evaluate("getComputedStyle(document.body).color")


def test_a_request_would_be_refused(opened):
    """Even a page that somebody adds an image or a script to."""
    opened = opened("one")
    opened.page.evaluate("fetch('http://127.0.0.1:9/').catch(() => 0)")
    opened.page.wait_for_timeout(100)
    assert any("Content Security Policy" in complaint for complaint in opened.complaints)


def test_tables_sort_by_keyboard_and_say_so(opened):
    page = opened("one").page
    table = page.locator("#r0-lateral").locator("xpath=..").locator("table")
    column = table.locator("thead th").nth(0)
    names = lambda: table.locator("tbody tr th").all_inner_texts()  # noqa: E731
    assert table.locator("thead th").nth(5).get_attribute("aria-sort") == "descending"
    column.locator("button").focus()
    page.keyboard.press("Enter")
    assert column.get_attribute("aria-sort") == "ascending"
    *judged, undefined = names()  # what cannot be judged is last, whatever the order
    assert judged == sorted(judged, key=str.lower) and len(judged) > 1
    assert undefined == "Hernia"
    page.keyboard.press("Space")
    assert column.get_attribute("aria-sort") == "descending"
    gain = table.locator("thead th").nth(5)
    gain.locator("button").focus()
    for direction in ("descending", "ascending"):
        page.keyboard.press("Enter")
        assert gain.get_attribute("aria-sort") == direction
        values = table.locator("tbody tr td:nth-child(6)").all_inner_texts()
        assert values[-1].startswith("undefined")
        numbers = [float(value.split("\n")[0]) for value in values[:-1]]
        assert numbers == sorted(numbers, reverse=direction == "descending")
    assert table.locator("tfoot th").inner_text().startswith("macro")


def test_controls_change_the_plots_by_keyboard(opened):
    opened = opened("one")
    opened.draw_all()
    page = opened.page
    ticks = lambda: page.locator("#r0-forest .ytick").all_text_contents()  # noqa: E731
    page.get_by_label("sort by").focus()
    page.keyboard.press("ArrowDown")
    assert [name[:4] for name in ticks()][:2] == ["macr", "Edem"]
    before = page.locator("#r0-roc").get_attribute("aria-label")
    page.get_by_label("finding", exact=True).focus()
    page.keyboard.press("ArrowDown")
    assert page.locator("#r0-roc").get_attribute("aria-label") != before
    assert "Mass <b>&amp;</b> </script>. AUROC both views" in page.locator(".said").inner_text()
    page.get_by_label("finding", exact=True).select_option("Hernia")
    assert "undefined, no positive study" in page.locator(".said").inner_text()
    assert opened.complaints == []


def test_everything_that_can_be_used_has_a_name(opened):
    for name in ("one", "images", "two"):
        page = opened(name).page
        unnamed = page.evaluate(
            """[...document.querySelectorAll('button, select, input, a, summary, [role], [tabindex], img')].filter(
            e => !(e.getAttribute('aria-label') || e.getAttribute('alt') || e.innerText || (e.labels && e.labels.length)
                   || e.closest('.plot') || e.textContent.trim())).map(e => e.outerHTML.slice(0, 90))"""
        )
        assert unnamed == []
        assert page.evaluate("document.documentElement.lang") == "en"
        levels = page.evaluate("[...document.querySelectorAll('h1,h2,h3')].map(h => +h.tagName[1])")
        assert levels[0] == 1 and all(after - before <= 1 for before, after in pairwise(levels))
        ids = page.evaluate("[...document.querySelectorAll('main [id], nav [id]')].map(e => e.id).filter(Boolean)")
        links = page.evaluate("[...document.querySelectorAll('nav a')].map(a => a.hash.slice(1))")
        assert len([i for i in ids if i.startswith("r0-")]) == len({i for i in ids if i.startswith("r0-")})
        assert [link for link in links if link not in ids] == []


def test_the_first_tab_leads_past_the_navigation_and_focus_is_seen(opened):
    page = opened("one").page
    page.keyboard.press("Tab")
    focused = "document.activeElement"
    assert page.evaluate(f"{focused}.textContent") == "Skip to the report"
    assert page.evaluate(f"getComputedStyle({focused}).outlineStyle") == "solid"


@pytest.mark.parametrize("name", ["one", "images", "two"])
def test_a_phone_never_scrolls_sideways(opened, name):
    opened = opened(name, viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
    opened.draw_all()
    page = opened.page
    assert page.evaluate("[document.documentElement.scrollWidth, visualViewport.width]") == [390, 390]
    outside = "e => e.getBoundingClientRect().right > 391 && !e.closest('.scroll, pre, .plot, .skip')"
    assert page.evaluate(f"[...document.querySelectorAll('body *')].filter({outside}).map(e => e.outerHTML)") == []
    sizes = page.evaluate(
        "[...document.querySelectorAll('p, td, th')].map(e => parseFloat(getComputedStyle(e).fontSize))"
    )
    assert min(sizes) >= 12


def test_print_is_light_without_navigation_and_all_is_open(opened):
    opened = opened("one", color_scheme="dark")
    page = opened.page
    assert len(page.pdf(prefer_css_page_size=True)) > 20_000
    page.emulate_media(media="print", color_scheme="dark")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.evaluate("document.querySelectorAll('details:not([open])').length") == 0
    assert page.evaluate("document.querySelectorAll('.plot[data-drawn]').length") == 9
    assert page.evaluate("getComputedStyle(document.querySelector('.plot .xtick text')).fill") == "rgb(28, 32, 38)"
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert not page.locator("nav").first.is_visible()
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert page.evaluate("document.querySelectorAll('details:not([open])').length") > 0
    assert opened.complaints == []


def test_maps_can_be_switched_off_and_absent_views_say_so(opened):
    page = opened("images").page
    maps = page.locator(".map")
    assert maps.count() > 0 and maps.first.is_visible()
    page.get_by_label("show the maps").focus()
    page.keyboard.press("Space")
    assert not maps.first.is_visible()
    for absent in page.locator(".absent").all_inner_texts():
        assert absent in ("no PA view", "no lateral view")


def test_64_findings_draw_quickly(browser, tmp_path):
    findings = tuple(f"Finding number {number} of a long name" for number in range(64))
    path = write_report([write_run(tmp_path / "run", made_up(600, findings=findings))])
    opened = Page(browser, path)
    opened.draw_all()
    start = "const t = performance.now(); const s = document.getElementById('r0-finding'); s.value = '7';"
    seconds = opened.page.evaluate(f"{{{start} s.dispatchEvent(new Event('change')); (performance.now() - t) / 1000}}")
    assert seconds < 3  # a fraction of a second on an idle machine
    opened.context.close()
