"""Runs the drills of the registry, prints their figures, and writes them to docs/performance.md."""

import argparse
import asyncio
import gc
import os
import re
import sys
import time
import traceback
from datetime import UTC, datetime
from itertools import groupby

import django

from tests.support.site import DEFAULTS, ROOT

# Tests of `tests/drills`, which drills call, import models.
os.environ.update(DEFAULTS)
django.setup()

from tests.cluster_drills.registry import DRILLS, Drill  # noqa: E402
from tests.cluster_drills.stage import Stage  # noqa: E402

PAGE = ROOT / "docs" / "performance.md"
BLOCK = re.compile(r"(<!-- from make drills -->\n).*?(<!-- end -->)", re.DOTALL)
ROW = re.compile(r"\| (\d+) .*")
HEAD = "| # | drill | must hold | figures | date, load |\n| --- | --- | --- | --- | --- |"


def main() -> int:
    """Run the drills that are named by their numbers, or all; returns 1 if one fails."""
    parser = argparse.ArgumentParser(prog="make drills", description=__doc__)
    parser.add_argument("numbers", nargs="*", type=int, help="drills to run; all by default")
    parser.add_argument("--kills", type=int, default=200, help="kills of the first drill")
    parser.add_argument("--streams", type=int, default=300, help="streams of the rolling restart")
    parser.add_argument("--dry", action="store_true", help="do not write docs/performance.md")
    options = parser.parse_args()
    # A collection goes through all frames that the readers keep, and holds up each of them.
    gc.disable()
    wanted = [drill for drill in DRILLS if drill.number in (options.numbers or range(100))]
    rows = {}
    # Drills of one kind of stage share a cluster.
    for make_stage, drills in groupby(sorted(wanted, key=stage_name), key=lambda d: d.stage):
        with make_stage() as stage:
            stage.kills, stage.streams = options.kills, options.streams
            for drill in drills:
                if row := run(drill, stage):
                    rows[drill.number] = row
    if not options.dry:
        PAGE.write_text(BLOCK.sub(lambda found: merged(found, rows), PAGE.read_text()))
    return int(len(rows) < len(wanted))


def stage_name(drill: Drill) -> str:
    return drill.stage.__name__


def run(drill: Drill, stage: Stage) -> str:
    """Run one drill and return its row of the table; "" if it fails."""
    load, started = os.getloadavg()[0], time.monotonic()
    try:
        figures = asyncio.run(drill.run(stage))
    except Exception:
        traceback.print_exc()
        say(f"drill {drill.number} FAILED: {drill.promise}")
        return ""
    say(f"drill {drill.number}, {time.monotonic() - started:.0f} s: {drill.fault}: {figures}")
    when = f"{datetime.now(UTC):%Y-%m-%d}, {load:.1f}"
    return f"| {drill.number} | {drill.fault} | {drill.promise} | {figures} | {when} |"


def merged(found: re.Match[str], rows: dict[int, str]) -> str:
    """Return the block of the page with these rows in place of their older ones."""
    kept = {int(row[1]): row[0] for row in ROW.finditer(found[0])} | rows
    return "\n".join([found[1], HEAD, *(kept[number] for number in sorted(kept)), "", found[2]])


def say(text: str) -> None:
    sys.stdout.write(f"agentsite: {text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
