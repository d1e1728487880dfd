"""Writes the README's table of logged values from dualview/run/metric_keys.py.

python docs/generate/metric_keys.py
"""

from pathlib import Path

from dualview.run.metric_keys import KEYS

README = Path(__file__).parents[2] / "README.md"
BEGIN, END = "<!-- docs/generate/metric_keys.py -->\n", "<!-- end -->\n"


def table() -> str:
    """The table of every key."""
    rows = [f"| `{key.pattern}` | {key.unit} | {key.meaning} |" for key in KEYS]
    return "\n".join(["| key | unit | meaning |", "|---|---|---|", *rows]) + "\n"


def with_table(text: str) -> str:
    """A page whose table stands between the two marks."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}{table()}{END}{after}"


if __name__ == "__main__":
    README.write_text(with_table(README.read_text(encoding="utf-8")), encoding="utf-8")
