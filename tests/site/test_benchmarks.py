"""The table that `make bench` writes into docs/performance.md."""

import pytest

from benchmarks import record
from benchmarks.lines import LINES, Figure, Row

WRITTEN = record.PAGE.read_text()
ROWS = [row for line in LINES.values() for row in line.rows]


def page(columns: record.Columns) -> str:
    return f"{record.BEGIN}\n\n{record.make_table(columns)}\n\n{record.END}"


def test_the_page_has_the_table_of_these_lines() -> None:
    assert page(record.read_columns(WRITTEN)) in WRITTEN, "run: make bench, or sort the rows"


def test_a_row_is_found_by_what_it_says() -> None:
    assert len({row.what for row in ROWS}) == len(ROWS)


def test_a_run_replaces_its_own_figures_alone() -> None:
    first, second, *_ = (row.what for row in ROWS)
    before: record.Columns = {"old": {first: "1 ms", second: "2"}}
    columns = record.read_columns(page(before))
    assert columns == before
    columns = record.add_figures(columns, "new", {first: "3 ms"})
    columns = record.add_figures(columns, "old", {second: "4"})
    assert record.read_columns(page(columns)) == {
        "new": {first: "3 ms"},
        "old": {first: "1 ms", second: "4"},
    }
    assert list(record.read_columns(page(columns))) == ["new", "old"]


@pytest.mark.parametrize(
    ("row", "figure", "cell"),
    [
        (Row("x", 2.0), Figure(1.234, "5 of 4 ms"), "1.23 (5 of 4 ms)"),
        (Row("x", 10, "ms"), Figure(12.34), "**12.3 ms**"),
        (Row("x", None, "ms"), Figure(1234.5), "1,234 ms"),
    ],
)
def test_a_figure_above_its_limit_is_bold(row: Row, figure: Figure, cell: str) -> None:
    assert record.format_figure(row, figure) == cell
