"""Computes the coordinates of timelines and plots for SVG."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, floor, log10

from conversations.review.timeline import Mark, Span, Timeline

LANE = 26
BAR = 14
LABELS = 170
WIDTH = 760
MARGIN = 16
"""Space at the right for the last mark."""


@dataclass(frozen=True)
class Bar:
    """The bar of a span; `x` and `y` are its upper left corner."""

    span: Span
    x: float
    y: float
    width: float

    @property
    def text_y(self) -> float:
        return self.y + BAR - 2


@dataclass(frozen=True)
class DrawnLine:
    """The vertical line of a mark."""

    mark: Mark
    x: float


@dataclass(frozen=True)
class Tick:
    """A labelled position on an axis; `at` is its x or y coordinate."""

    at: float
    label: str


@dataclass(frozen=True)
class Drawing:
    """A timeline in the coordinates of a picture of `width` by `height`.

    Each of `bars` is `bar_height` high. The axis of `ticks` begins at `axis_x`, `axis_y`.
    """

    timeline: Timeline
    height: float
    bars: list[Bar]
    lines: list[DrawnLine]
    ticks: list[Tick]
    width: int = WIDTH
    bar_height: int = BAR
    axis_x: int = LABELS

    @property
    def axis_y(self) -> float:
        return self.height - 20


def draw(timeline: Timeline) -> Drawing:
    """Lay out a timeline, with one lane per span, in their order, from top to bottom."""
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
        lines=[DrawnLine(mark, x(mark.at)) for mark in timeline.marks],
        ticks=[Tick(x(ms), format_ms(ms)) for ms in round_steps(total)],
    )


def round_steps(top: float, wanted: int = 5) -> list[float]:
    """Return at most `wanted` + 1 evenly spaced round numbers, from 0 up to at most `top`."""
    step = _round_up(top / wanted)
    return [step * place for place in range(floor(top / step) + 1)]


def _round_up(number: float) -> float:
    """Return the smallest of 1, 2, 5, 10, 20, 50… that is not below `number`."""
    if number <= 0:
        return 1.0
    unit = 10.0 ** floor(log10(number))
    return next(unit * factor for factor in (1, 2, 5, 10) if unit * factor >= number * 0.999_999)


def format_ms(ms: float) -> str:
    """Format a duration of `ms` milliseconds: `350 ms`, `2.4 s`, `3 min 5 s`."""
    if ms < 1000:
        return f"{ms:.0f} ms"
    if ms < 60_000:
        return f"{ms / 1000:.3g} s"
    minutes, seconds = divmod(round(ms / 1000), 60)
    return f"{minutes} min {seconds} s" if seconds else f"{minutes} min"


def nice_top(values: Sequence[float]) -> float:
    """Return a round upper end for an axis that starts at zero and fits all of `values`.

    `values` must not be negative. Without values, or if all are 0, the end is 1.
    """
    highest = max(values, default=0) or 1
    step = _round_up(highest / 4)
    return step * ceil(highest / step)


PLOT_WIDTH = 560
PLOT_HEIGHT = 200
LEFT = 56
RIGHT = 8
TOP = 10
BOTTOM = 24
DAY_LABELS = 6

Value = float | None


@dataclass(frozen=True)
class Series:
    """One value per day, None where there is none; `label` is its name for people.

    `name` is also the CSS class of its colour.
    """

    name: str
    label: str
    values: Sequence[Value]


@dataclass(frozen=True)
class Box:
    """The bar of one series on one day; `x` and `y` are its upper left corner.

    `name` is that of the series, `words` is the tooltip.
    """

    name: str
    x: float
    y: float
    width: float
    height: float
    words: str


@dataclass(frozen=True)
class Dot:
    """A point of a line; `words` is its tooltip."""

    x: float
    y: float
    words: str


@dataclass(frozen=True)
class Curve:
    """The line of a series as an SVG path, interrupted on days without a value.

    `name` is that of the series; `dots` has a point for each value.
    """

    name: str
    path: str
    dots: list[Dot]


@dataclass(frozen=True)
class Plot:
    """A plot in the coordinates of a picture of `width` by `height`, with its table of values.

    It has either `boxes` or `curves`. `left` and `right` are where the lower axis begins and ends,
    `baseline` is its y coordinate. `days` are dates such as `2026-01-31`.
    """

    title: str
    unit: str
    days: Sequence[str]
    series: Sequence[Series]
    boxes: list[Box]
    curves: list[Curve]
    y_ticks: list[Tick]
    x_ticks: list[Tick]
    width: int = PLOT_WIDTH
    height: int = PLOT_HEIGHT
    left: int = LEFT
    right: int = PLOT_WIDTH - RIGHT
    baseline: int = PLOT_HEIGHT - BOTTOM

    @property
    def rows(self) -> list[tuple[str, list[str]]]:
        """The rows of the table: each day with its formatted values."""
        return [
            (day, [format_value(series.values[place]) for series in self.series])
            for place, day in enumerate(self.days)
        ]


def format_value(value: Value) -> str:
    """Format a value for people: whole from 1,000 on, else to four digits; "–" for None."""
    if value is None:
        return "–"
    is_whole = value == round(value) or abs(value) >= 1000
    return f"{value:,.0f}" if is_whole else f"{value:,.4g}"


def plot_bars(title: str, unit: str, days: Sequence[str], series: Sequence[Series]) -> Plot:
    """Plot `series` as one bar per day, on which the values of several series are stacked.

    `days` must not be empty; each series has a value per day, not negative. None and 0 have no
    box.
    """
    totals = [sum(values) for values in zip(*map(_numbers, series), strict=True)]
    frame = _Frame(days, nice_top(totals))
    return frame.plot(title, unit, series, boxes=list(frame.boxes(series)), curves=[])


def plot_lines(title: str, unit: str, days: Sequence[str], series: Sequence[Series]) -> Plot:
    """Plot each of `series` as a line, which is interrupted where the value is None.

    `days` must not be empty; each series has a value per day, not negative.
    """
    frame = _Frame(days, nice_top([value for one in series for value in _numbers(one)]))
    return frame.plot(title, unit, series, boxes=[], curves=[frame.curve(one) for one in series])


def _numbers(series: Series) -> list[float]:
    return [value or 0.0 for value in series.values]


class _Frame:
    """Maps days and values to coordinates."""

    def __init__(self, days: Sequence[str], top: float) -> None:
        self.days = days
        self.top = top
        self.step = (PLOT_WIDTH - LEFT - RIGHT) / len(days)

    def x(self, place: int) -> float:
        return round(LEFT + (place + 0.5) * self.step, 1)

    def y(self, value: float) -> float:
        return round(PLOT_HEIGHT - BOTTOM - value / self.top * (PLOT_HEIGHT - BOTTOM - TOP), 1)

    def boxes(self, series: Sequence[Series]) -> list[Box]:
        width = max(1.0, round(self.step * 0.7, 1))
        made = []
        for place, day in enumerate(self.days):
            below = 0.0
            for one in series:
                value = one.values[place] or 0.0
                y, foot = self.y(below + value), self.y(below)
                words = f"{day}: {format_value(value)} {one.label}"
                if value:
                    x = round(self.x(place) - width / 2, 1)
                    made.append(Box(one.name, x, y, width, round(foot - y, 1), words))
                below += value
        return made

    def curve(self, series: Series) -> Curve:
        dots, path, pen = [], [], "M"
        for place, value in enumerate(series.values):
            if value is None:
                pen = "M"
                continue
            x, y = self.x(place), self.y(value)
            path.append(f"{pen}{x:g} {y:g}")
            words = f"{self.days[place]}: {format_value(value)} ({series.label})"
            dots.append(Dot(x, y, words))
            pen = "L"
        return Curve(series.name, " ".join(path), dots)

    def plot(
        self,
        title: str,
        unit: str,
        series: Sequence[Series],
        *,
        boxes: list[Box],
        curves: list[Curve],
    ) -> Plot:
        every = max(1, -(-len(self.days) // DAY_LABELS))
        return Plot(
            title=title,
            unit=unit,
            days=self.days,
            series=series,
            boxes=boxes,
            curves=curves,
            y_ticks=[
                Tick(self.y(value), format_value(value)) for value in round_steps(self.top, 4)
            ],
            x_ticks=[
                Tick(self.x(place), day[5:])
                for place, day in enumerate(self.days)
                if place % every == 0
            ],
        )
