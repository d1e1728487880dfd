"""What all figures of the page share: axes, layout, and which line means what.

Colours are names such as `@both`, which the page replaces by those of its light or dark theme (page.css). Meaning is
never in the colour alone: lines differ in dash, markers in shape.
"""

from html import escape
from typing import Any

Figure = dict[str, Any]  # data and layout of plotly, and `label`, which says what it shows to those who cannot see it
Variants = dict[str, Figure]  # values of the controls, joined by "|" -> figure

LINE_STYLES = {  # name -> (colour, dash, marker)
    "all": ("@all", "dot", "square-open"),
    "both": ("@both", "solid", "circle"),
    "pa_only": ("@pa", "dash", "triangle-up"),
    "lateral_only": ("@lateral", "dashdot", "diamond"),
    "lateral_hidden": ("@pa", "dash", "triangle-up"),  # PA's colour, as the PA view is left
    "pa_hidden": ("@lateral", "dashdot", "diamond"),
}
DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
SYMBOLS = ("circle", "diamond", "square", "triangle-up", "cross", "x", "star", "pentagon")
NUM_COLOURS = 8
MAX_LABEL = 34


def axis(title: str, **settings: Any) -> dict[str, Any]:
    return {
        "title": {"text": title, "standoff": 8},
        "gridcolor": "@line",
        "linecolor": "@line",
        "zerolinecolor": "@muted",
        "automargin": True,
        **settings,
    }


def layout(*, x: dict[str, Any], y: dict[str, Any], height: int, **settings: Any) -> dict[str, Any]:
    return {
        "xaxis": x,
        "yaxis": y,
        "height": height,
        "margin": {"l": 48, "r": 12, "t": 12, "b": 44},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"family": "system-ui, sans-serif", "size": 12, "color": "@ink"},
        "hoverlabel": {"bgcolor": "@raised", "bordercolor": "@line", "font": {"color": "@ink"}},
        "legend": {"orientation": "h", "x": 0, "xanchor": "left", "y": -0.2, "yanchor": "top"},
        "dragmode": "zoom",
        **settings,
    }


def unit_axis(title: str) -> dict[str, Any]:
    """An axis from 0 to 1 with room for lines that run along its ends."""
    return axis(title, range=[-0.02, 1.02], tickvals=[0, 0.25, 0.5, 0.75, 1], zeroline=False)


def reference(x: list[float], y: list[float]) -> dict[str, Any]:
    """A thin line to compare with."""
    line = {"color": "@muted", "width": 1, "dash": "dot"}
    return {"type": "scatter", "x": x, "y": y, "mode": "lines", "line": line, "hoverinfo": "skip", "showlegend": False}


def short(name: str) -> str:
    """A name for a tick, cut where it is long."""
    return escape(name if len(name) <= MAX_LABEL else name[: MAX_LABEL - 1] + "…")
