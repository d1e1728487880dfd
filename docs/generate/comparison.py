"""Draws docs/comparison/phantoms.svg from the table of a finished comparison.

dualview compare configs/compare.yaml --jobs 2
python docs/generate/comparison.py runs/compare/comparison-to-single_pa.csv
"""

import sys
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd

from dualview.data.sources.phantom import BEST_AUROC

FOLDER = Path(__file__).parents[1] / "comparison"
INK, QUIET = "#1f2933", "#9aa5b1"
STYLE = {"few": ("#d97706", "o", 0.16), "many": ("#1d4ed8", "s", -0.16)}
SEEN = {"single_pa": "pa_only", "single_lateral": "lateral_only"}


def draw(table: pd.DataFrame) -> plt.Figure:
    """A panel per finding: AUROC of every network on complete studies, and the best that is possible."""
    table = table[(table["group"] == "both") & (table["metric"] == "auroc") & (table["finding"] != "macro")]
    findings, variants = list(dict.fromkeys(table["finding"])), list(dict.fromkeys(table["variant"]))[::-1]
    figure, panels = plt.subplots(1, len(findings), figsize=(11, 3.6), sharey=True)
    for panel, finding in zip(panels, findings, strict=True):
        for y, variant in enumerate(variants):
            best = BEST_AUROC[finding][SEEN.get(variant, "both")]
            panel.plot([best, best], [y - 0.38, y + 0.38], color=QUIET, linewidth=2, zorder=1)
            for setting, (colour, marker, shift) in STYLE.items():
                (row,) = table[
                    (table["finding"] == finding) & (table["variant"] == variant) & (table["setting"] == setting)
                ].itertuples()
                panel.errorbar(row.mean, y + shift, xerr=row.sd, color=colour, marker=marker, markersize=5, capsize=2)
        panel.set_title(finding, fontsize=10, color=INK)
        panel.set_xlim(0.35, 1.04)
        panel.set_xticks([0.5, 2 / 3, 1], ["0.5", "0.67", "1"])
        panel.grid(axis="x", color="#e4e7eb")
        panel.set_axisbelow(True)
        panel.tick_params(length=0, labelsize=9)
        for side in ("top", "right", "left"):
            panel.spines[side].set_visible(False)
    panels[0].set_yticks(range(len(variants)), variants)
    handles = [
        plt.Line2D([], [], color=colour, marker=marker, linestyle="", label=f"{setting} training patients")
        for setting, (colour, marker, _) in STYLE.items()
    ]
    handles.append(plt.Line2D([], [], color=QUIET, linewidth=2, label="best possible from the views that are seen"))
    figure.legend(handles=handles, loc="lower center", ncols=3, frameon=False, fontsize=9)
    figure.supxlabel("test AUROC on complete studies, mean ± sd over seeds", fontsize=9, y=0.09)
    figure.tight_layout(rect=(0, 0.1, 1, 1))
    return figure


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    plt.rcParams["svg.hashsalt"] = "dualview"  # the same file each time
    figure = draw(pd.read_csv(sys.argv[1]))
    figure.savefig(FOLDER / "phantoms.svg", metadata={"Date": None})
