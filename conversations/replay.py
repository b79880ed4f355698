"""A reply as it came: its journal with times, or what is left of that."""

from datetime import datetime
from typing import Any

from conversations.models import Run, RunEvent
from conversations.sketch import draw_sketch

EVENTS_MAX = 20_000


def read_replay(run: Run) -> dict[str, Any]:
    """`text`, `points` ([ms, characters of it by then]) and `steps` ([ms, what], other events).

    Times count from when the run was queued. The text of a reply at work is what there is so far.
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
        # Folded before sketches were kept.
        points = [[_ms(run, run.ended_at or run.created_at), len(text)]]
    steps = [
        [_ms(run, event.created_at), _describe(event)] for event in events if event.kind in STEPS
    ]
    return {"text": text, "points": points, "steps": steps}


def _list_events(run: Run) -> Any:
    rows = RunEvent.objects.filter(run_id=run.pk, epoch=run.epoch)
    return rows.order_by("seq")[:EVENTS_MAX]


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
