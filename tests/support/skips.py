"""Says in plain words what a test run left out, and what would include it."""

from collections import Counter

import pytest

REMEDIES = {  # a word of the reason for a skip -> what was left out, and how to have it
    "no browser": "reports in a browser: apt install chromium, or: python -m playwright install --with-deps chromium",
    "views of Open-i": "the true views of Open-i: put indiana_projections.csv where the reason says",
    "real X-rays": "training on real X-rays: put the folder where the reason says",
    "ip netns": "two machines: run as root where network namespaces are permitted, as in docker run --privileged",
    "CUDA": "the same answers on a GPU: run on a machine with one",
    "tmpfs": "a full disk: run as root where mounting is permitted, as in docker run --privileged",
    "torchxrayvision": "real tables of public data sets: pip install torchxrayvision",
    "onnxruntime": "exported graphs: pip install 'dualview[export]'",
    "there is a GPU here": "the message about an absent GPU: run on a machine without one",
}


def skipped_lines(reasons: list[str]) -> list[str]:
    """One line per reason.

    >>> skipped_lines(["no CUDA device", "no CUDA device", "it rains"])
    ['2 tests of the same answers on a GPU: run on a machine with one (no CUDA device)', '1 test: it rains']
    """
    lines = []
    for reason, number in Counter(reasons).items():
        tests = f"{number} test{'s' if number > 1 else ''}"
        remedy = next((remedy for word, remedy in REMEDIES.items() if word in reason), None)
        lines.append(f"{tests} of {remedy} ({reason})" if remedy else f"{tests}: {reason}")
    return lines


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """A section above pytest's closing line."""
    reports = terminalreporter.stats.get("skipped", [])
    lines = skipped_lines([report.longrepr[2].removeprefix("Skipped: ") for report in reports])
    if lines:
        terminalreporter.section("skipped here")
        for line in lines:
            terminalreporter.line(line)
