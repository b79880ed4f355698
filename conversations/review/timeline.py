"""Builds the timeline of a run and the data for its replay."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from itertools import pairwise
from typing import Any, Literal

from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from conversations.models import Run, RunEvent, RunStatus
from conversations.runs.events import draw_sketch

SpanKind = Literal["queued", "waiting", "writing", "tool", "approval"]
MarkKind = Literal["claimed", "first", "stop", "stopped", "again", "end"]

SHOWN_MAX = 200
STREAMED = ("token", "reasoning.delta", "tool.progress")
TOOL_ENDS = {"tool.finished": gettext_lazy("finished"), "tool.failed": gettext_lazy("failed")}


@dataclass(frozen=True)
class Span:
    """A step with a duration; `start` and `end` are ms after the run was created.

    `label` and `outcome` are texts for people; only tool calls and approvals have an outcome.
    """

    kind: SpanKind
    label: str
    start: float
    end: float
    outcome: str = ""

    @property
    def duration(self) -> float:
        return self.end - self.start


@dataclass(frozen=True)
class Mark:
    """A point in time, `at` ms after the run was created."""

    kind: MarkKind
    label: str
    at: float


@dataclass(frozen=True)
class Timeline:
    """The timeline of one run from its creation to its end or, while active, the time of reading.

    `total` is its length in ms. `marks` are in order of time; of `spans`, the phases come first,
    then tool calls and approvals.
    """

    run: Run
    total: float
    spans: list[Span] = field(default_factory=list)
    marks: list[Mark] = field(default_factory=list)

    @property
    def stop_ms(self) -> float | None:
        """Milliseconds from the request to stop until the run had stopped.

        None without a request, and unless the run has ended by stopping.
        """
        asked, stopped = self.run.cancel_requested_at, self.run.stopped_at
        return (stopped - asked).total_seconds() * 1000 if asked and stopped else None


def read_timelines(runs: Iterable[Run], now: datetime) -> dict[Any, Timeline]:
    """Return the timelines of `runs` by run id; those of active runs end at `now`.

    Reads no streamed events, and on average at most `SHOWN_MAX` other events per run: beyond that,
    some timelines lack steps.
    """
    found = {run.pk: run for run in runs}
    events: dict[Any, list[RunEvent]] = {pk: [] for pk in found}
    rows = RunEvent.objects.filter(run_id__in=list(found)).exclude(kind__in=STREAMED).defer("step")
    for event in rows.order_by("run_id", "epoch", "seq")[: SHOWN_MAX * len(found)]:
        events[event.run_id].append(event)
    return {pk: build_timeline(run, events[pk], now) for pk, run in found.items()}


def build_timeline(run: Run, events: list[RunEvent], now: datetime) -> Timeline:
    """Return the timeline of `run` from its `events`, up to its end, or to `now` while active.

    `events` are those of all epochs, in order. Labels are in the current language.
    """
    clock = _Clock(run, run.ended_at or now)
    return Timeline(
        run=run,
        total=clock.ms(clock.end),
        spans=[*_phases(run, clock), *_steps(events, clock)],
        marks=sorted(_marks(run, events, clock), key=lambda mark: mark.at),
    )


@dataclass(frozen=True)
class _Clock:
    run: Run
    end: datetime

    def ms(self, moment: datetime) -> float:
        """Return the ms since the run was created, at least 0: clocks of machines may differ."""
        return max(0.0, (moment - self.run.created_at).total_seconds() * 1000)


def _phases(run: Run, clock: _Clock) -> Iterator[Span]:
    names: list[tuple[SpanKind, str, datetime | None]] = [
        ("queued", _("In the queue"), run.created_at),
        ("waiting", _("Waiting for the model"), run.claimed_at),
        ("writing", _("Writing"), run.first_token_at),
        ("writing", "", clock.end),
    ]
    begun = [(kind, label, moment) for kind, label, moment in names if moment is not None]
    for (kind, label, start), (_kind, _label, end) in pairwise(begun):
        yield Span(kind, label, clock.ms(start), max(clock.ms(start), clock.ms(end)))


def _steps(events: list[RunEvent], clock: _Clock) -> Iterator[Span]:
    """Yield the tool calls and approvals; one that is not finished ends with the run."""
    begun: dict[str, RunEvent] = {}
    for event in events:
        payload = event.payload
        if event.kind == "tool.started":
            begun[payload["tool_call_id"]] = event
        elif event.kind == "input.requested":
            begun[payload["request_id"]] = event
        elif event.kind in TOOL_ENDS and payload["tool_call_id"] in begun:
            start = begun.pop(payload["tool_call_id"])
            yield _step(start, event.created_at, str(TOOL_ENDS[event.kind]), clock)
        elif event.kind == "input.resolved" and payload["request_id"] in begun:
            start = begun.pop(payload["request_id"])
            yield _step(start, event.created_at, str(payload.get("decision", "")), clock)
    for start in begun.values():
        yield _step(start, clock.end, _("not finished"), clock)


def _step(start: RunEvent, end: datetime, outcome: str, clock: _Clock) -> Span:
    is_tool = start.kind == "tool.started"
    name = str(start.payload.get("name" if is_tool else "tool", ""))
    label = name if is_tool else _("Approval of %(tool)s") % {"tool": name}
    begin = clock.ms(start.created_at)
    kind: SpanKind = "tool" if is_tool else "approval"
    return Span(kind, label, begin, max(begin, clock.ms(end)), outcome)


def _marks(run: Run, events: list[RunEvent], clock: _Clock) -> Iterator[Mark]:
    if run.claimed_at:
        yield Mark("claimed", _("A worker took it"), clock.ms(run.claimed_at))
    if run.first_token_at:
        yield Mark("first", _("First token"), clock.ms(run.first_token_at))
    if run.cancel_requested_at:
        yield Mark("stop", _("Asked to stop"), clock.ms(run.cancel_requested_at))
    if run.stopped_at:
        yield Mark("stopped", _("Stop took effect"), clock.ms(run.stopped_at))
    begun = [event for event in events if event.kind == "run.started"]
    for event in begun[1:]:
        yield Mark("again", _("Begun again"), clock.ms(event.created_at))
    if run.ended_at:
        yield Mark("end", str(RunStatus(run.status).label).capitalize(), clock.ms(run.ended_at))


EVENTS_MAX = 20_000


def read_replay(run: Run) -> dict[str, Any]:
    """Return the data of a replay of the run's current epoch: `text`, `points` and `steps`.

    `points` are pairs of ms and the number of characters shown by then; `steps` are pairs of ms and
    the description, in English, of an event in `STEPS`. Times count from the creation of the run.
    The text of an active run is the text so far. Reads at most the first `EVENTS_MAX` events.
    """
    events = list(_list_events(run))
    text = run.reply.text
    points = run.sketch
    if points is None:
        tokens = [event for event in events if event.kind == "token"]
        text = text or "".join(event.payload["delta"] for event in tokens)
        points = draw_sketch(
            run.created_at, ((event.created_at, len(event.payload["delta"])) for event in tokens)
        )
    if text and not points:
        # The run was folded by a version that did not keep sketches.
        points = [[_ms(run, run.ended_at or run.created_at), len(text)]]
    steps = [
        [_ms(run, event.created_at), _describe(event)] for event in events if event.kind in STEPS
    ]
    return {"text": text, "points": points, "steps": steps}


def _list_events(run: Run) -> Any:
    rows = RunEvent.objects.filter(run_id=run.pk, epoch=run.epoch)
    return rows.defer("step").order_by("seq")[:EVENTS_MAX]


STEPS = {
    "run.started": "begun",
    "tool.started": "{name}: begun",
    "tool.finished": "{name}: finished",
    "tool.failed": "{name}: failed",
    "input.requested": "{tool}: approval asked for",
    "input.resolved": "approval: {decision}",
    "complete": "{finish_reason}",
    "error": "{code}",
}


def _describe(event: RunEvent) -> str:
    return STEPS[event.kind].format_map(_Fields(event.payload))


class _Fields(dict[str, Any]):
    def __missing__(self, name: str) -> str:
        return "?"


def _ms(run: Run, moment: datetime) -> int:
    return max(0, round((moment - run.created_at).total_seconds() * 1000))
