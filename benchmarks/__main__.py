"""Measures the site beside a plain relay and the bare SDK, line by line.

    python -m benchmarks [--line NAME ...] [--dry-run]

Prints each figure as it is measured, that of the bare SDK first, and writes them into the table of
docs/performance.md, in the column of this machine and day. Linux only.
"""

import argparse
import asyncio
import os
import resource

from benchmarks import record
from benchmarks.lines import LINES
from benchmarks.measure import machine, machine_name
from benchmarks.sides import Bench, run_stand_in

OPEN_FILES = 12_000


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--line", nargs="+", choices=LINES, default=list(LINES), dest="lines")
    parser.add_argument("--dry-run", action="store_true", help="only print the figures")
    return parser.parse_args()


def measure(bench: Bench, name: str) -> dict[str, str]:
    """Measure a line and print its figures; returns its cells of the table."""
    line = LINES[name]
    figures = asyncio.run(line.measure(bench))
    cells = {
        row.what: record.format_figure(row, figure)
        for row, figure in zip(line.rows, figures, strict=True)
    }
    for what, cell in cells.items():
        print(f"{name}: {what}: {cell}, load {os.getloadavg()[0]:.1f}", flush=True)
    return cells


def raise_file_limit() -> None:
    """Raise the limit of open files for this process and its children to the allowed maximum."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    assert hard >= OPEN_FILES, f"ulimit -Hn is {hard}, below {OPEN_FILES}"
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def main() -> None:
    options = parse_options()
    raise_file_limit()
    print(machine(), flush=True)
    column = machine_name()
    with run_stand_in() as base_url:
        for name in dict.fromkeys(["sdk", *options.lines]):
            cells = measure(Bench(base_url), name)
            if not options.dry_run:
                record.write(column, cells)


if __name__ == "__main__":
    main()
