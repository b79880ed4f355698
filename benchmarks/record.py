"""The table of `make bench` in docs/performance.md: one column for each machine and day.

A run replaces only the figures that it has measured, so that those of slower and faster machines
stand beside each other.
"""

import re
from collections.abc import Mapping

from benchmarks.lines import LINES, Figure, Row
from benchmarks.measure import table
from tests.support.site import ROOT

PAGE = ROOT / "docs/performance.md"
BEGIN, END = "<!-- from `make bench` -->", "<!-- end -->"
HEAD = ["line", "figure", "at most"]

Columns = dict[str, dict[str, str]]
"""The cells of each column by their row's `what`; the newest column comes first."""


def format_figure(row: Row, figure: Figure) -> str:
    """Return a cell: the value, bold if it is above the row's limit, and what it was made from."""
    value = f"{_number(figure.value)} {row.unit}".strip()
    if row.at_most is not None and figure.value > row.at_most:
        value = f"**{value}**"
    return f"{value} ({figure.detail})" if figure.detail else value


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def read_columns(text: str) -> Columns:
    """Return the columns of the table in the page's text; raises `ValueError` without one."""
    head, _, *lines = [_cells(line) for line in _inside(text).strip().splitlines()]
    names = head[len(HEAD) :]
    cells = {line[1]: line[len(HEAD) :] for line in lines}
    return {
        name: {what: row[place] for what, row in cells.items() if row[place]}
        for place, name in enumerate(names)
    }


def add_figures(columns: Columns, name: str, figures: Mapping[str, str]) -> Columns:
    """Return the columns with these cells in the one that has this name, or in a new first one."""
    if name in columns:
        return {**columns, name: {**columns[name], **figures}}
    return {name: dict(figures), **columns}


def make_table(columns: Columns) -> str:
    """Return the table of all rows of all lines; a figure that was not measured stays empty."""
    rows = [
        [
            f"`{name}`",
            row.what,
            _limit(row),
            *(cells.get(row.what, "") for cells in columns.values()),
        ]
        for name, line in LINES.items()
        for row in line.rows
    ]
    return table([*HEAD, *columns], rows)


def write(name: str, figures: Mapping[str, str]) -> None:
    """Write the figures into the page's column of this name."""
    text = PAGE.read_text()
    made = make_table(add_figures(read_columns(text), name, figures))
    PAGE.write_text(text.replace(_inside(text), f"\n\n{made}\n\n"))


def _limit(row: Row) -> str:
    return "" if row.at_most is None else f"{_number(row.at_most)} {row.unit}".strip()


def _inside(text: str) -> str:
    found = re.search(re.escape(BEGIN) + "(.*?)" + re.escape(END), text, re.DOTALL)
    if found is None:
        raise ValueError(f"no {BEGIN}")
    return found[1]


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split("|")]
