"""When a reply's text came, kept after its text events are gone: enough to show it again."""

from collections.abc import Iterable
from datetime import datetime

POINTS_MAX = 200

Point = list[int]
"""Milliseconds after the run was queued, and characters that had come by then."""


def draw_sketch(start: datetime, deltas: Iterable[tuple[datetime, int]]) -> list[Point]:
    """From (moment, characters) of each text event; at most `POINTS_MAX` points, the last exact."""
    points: list[Point] = []
    size = 0
    for moment, characters in deltas:
        size += characters
        ms = round((moment - start).total_seconds() * 1000)
        if points and ms <= points[-1][0]:
            points[-1][1] = size
        else:
            points.append([max(0, ms), size])
    return _thin(points)


def _thin(points: list[Point]) -> list[Point]:
    """The first, the last, and evenly many between."""
    if len(points) <= POINTS_MAX:
        return points
    step = (len(points) - 1) / (POINTS_MAX - 1)
    return [points[round(place * step)] for place in range(POINTS_MAX)]
