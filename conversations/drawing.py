"""Shapes of server-rendered pictures: numbers for SVG attributes, no styles and no scripts."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, floor, log10

from conversations.timeline import Mark, Span, Timeline

LANE = 26
BAR = 14
LABELS = 170
WIDTH = 760
MARGIN = 16
"""Room for the last mark."""


@dataclass(frozen=True)
class Bar:
    """A span, drawn; text stands at its left."""

    span: Span
    x: float
    y: float
    width: float

    @property
    def text_y(self) -> float:
        return self.y + BAR - 2


@dataclass(frozen=True)
class Line:
    """A mark, drawn from top to bottom."""

    mark: Mark
    x: float


@dataclass(frozen=True)
class Tick:
    """A place on an axis."""

    at: float
    label: str


@dataclass(frozen=True)
class Drawing:
    """A timeline, in units of a `WIDTH` wide picture."""

    timeline: Timeline
    height: float
    bars: list[Bar]
    lines: list[Line]
    ticks: list[Tick]
    width: int = WIDTH
    bar_height: int = BAR
    axis_x: int = LABELS

    @property
    def axis_y(self) -> float:
        return self.height - 20


def draw(timeline: Timeline) -> Drawing:
    """One lane for each span, below each other."""
    total = max(timeline.total, 1.0)
    scale = (WIDTH - LABELS - MARGIN) / total

    def x(ms: float) -> float:
        return round(LABELS + ms * scale, 1)

    return Drawing(
        timeline=timeline,
        height=LANE * len(timeline.spans) + 30,
        bars=[
            Bar(span, x(span.start), place * LANE + 6, max(2.0, round(span.duration * scale, 1)))
            for place, span in enumerate(timeline.spans)
        ],
        lines=[Line(mark, x(mark.at)) for mark in timeline.marks],
        ticks=[Tick(x(ms), format_ms(ms)) for ms in round_steps(total)],
    )


def round_steps(top: float, wanted: int = 5) -> list[float]:
    """Round numbers from 0 up to `top`, about `wanted` of them."""
    step = _round_up(top / wanted)
    return [step * place for place in range(floor(top / step) + 1)]


def _round_up(number: float) -> float:
    """The next of 1, 2, 5, 10, 20, 50…"""
    if number <= 0:
        return 1.0
    unit = 10.0 ** floor(log10(number))
    return next(unit * factor for factor in (1, 2, 5, 10) if unit * factor >= number * 0.999_999)


def format_ms(ms: float) -> str:
    """A duration for people: `350 ms`, `2.4 s`, `3 min 5 s`."""
    if ms < 1000:
        return f"{ms:.0f} ms"
    if ms < 60_000:
        return f"{ms / 1000:.3g} s"
    minutes, seconds = divmod(round(ms / 1000), 60)
    return f"{minutes} min {seconds} s" if seconds else f"{minutes} min"


def nice_top(values: Sequence[float]) -> float:
    """The top of an axis from zero that all of `values` fit under."""
    highest = max(values, default=0) or 1
    step = _round_up(highest / 4)
    return step * ceil(highest / step)
