"""Models of what a client shows: a strict one of the whole protocol, and a minimal one."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from realtime.protocol import SEQUENCED_STATUS
from tests.support.conformance import check_frame

Frame = dict[str, Any]

FOLLOWED_EVENTS = ("resumed", "message.created", "message.updated", "queue.changed")
"""Only these move the cursor; frames of the list also arrive for sessions not followed."""

SEQUENCED_EVENTS = {kind.model_fields["event"].default for kind in SEQUENCED_STATUS}


def event_of(frame: Frame) -> str:
    """Return the event of a status frame; empty for other frames."""
    return frame["metadata"]["event"] if frame["type"] == "status" else ""


def text_of(parts: list[dict[str, Any]]) -> str:
    """Return the text in the parts of a message or snapshot."""
    return "\n\n".join(part["text"] for part in parts if part["type"] == "text")


def is_terminal(frame: Frame) -> bool:
    """Whether `frame` ends its run."""
    if frame["type"] == "error":
        return bool(frame["metadata"].get("terminal"))
    return bool(frame["type"] == "complete")


def is_sequenced(frame: Frame) -> bool:
    """Whether `frame` belongs to a run's journal and so has a `seq`."""
    return frame["type"] == "token" or event_of(frame) in SEQUENCED_EVENTS or is_terminal(frame)


@dataclass
class RunView:
    """What is shown of one run."""

    session_id: str
    run_id: str
    number: int
    epoch: int = 0
    seq: int = 0
    text: str = ""
    message_id: str = ""
    terminal: Frame | None = None
    events: list[Frame] = field(default_factory=list)

    @property
    def is_working(self) -> bool:
        return self.seq > 0 and self.terminal is None

    @property
    def never_worked(self) -> bool:
        """Whether the run ended in the queue: its end may then be sent out of turn."""
        return self.terminal is not None and self.seq == 1

    @property
    def finish_reason(self) -> str:
        """The reason in `complete`; `error` after a terminal error, empty before the end."""
        if self.terminal is None:
            return ""
        return str(self.terminal["metadata"].get("finish_reason", "error"))


class Transcript:
    """Applies the frames of one client, over all of its sockets in sequence.

    Raises `AssertionError` for anything that the protocol rules out: an undeclared frame, a gap or
    repetition in `seq`, an unannounced new epoch, a second end, a frame of a run between those of
    an earlier one, tokens that do not add up to the whole reply.
    """

    def __init__(self) -> None:
        self.frames: list[Frame] = []
        self.runs: dict[str, RunView] = {}
        self.messages: dict[str, dict[str, Any]] = {}
        self._revs: dict[str, tuple[int, int]] = {}
        self._live: set[str] = set()
        self._followed: set[str] = set()
        self._catching_up: set[str] = set()

    def seed(self, run: RunView, *, rev: int = 0) -> None:
        """Start with the run that a rendered page shows already."""
        self.runs[run.run_id] = run
        self._revs[run.session_id] = rev, rev

    def reconnect(self) -> None:
        """Note that the next frames arrive on another socket."""
        self._live.clear()
        self._followed.clear()
        self._catching_up.clear()

    def text(self, run_id: str) -> str:
        """Return the shown text of a run."""
        return self.runs[run_id].text

    def texts(self, session_id: str = "") -> list[str]:
        """Return the texts of all runs with frames, in the order of the runs."""
        runs = sorted(self.runs.values(), key=lambda run: run.number)
        return [run.text for run in runs if run.seq and session_id in ("", run.session_id)]

    def shown(self, session_id: str) -> dict[str, str]:
        """Return the text of every message of a session by its id, as a page shows it."""
        shown = {
            message_id: text_of(message.get("parts") or [])
            for message_id, message in self.messages.items()
            if message["session_id"] == session_id
        }
        for run in self.runs.values():
            if run.session_id == session_id and run.seq:
                shown[run.message_id] = run.text
        return shown

    def told(self, event: str) -> list[dict[str, Any]]:
        """Return the metadata of `event` in all runs, without repetitions.

        Some frames may have arrived twice: `resume` may overlap with live frames.
        """
        shown = [frame for run in self.runs.values() for frame in run.events]
        return [frame["metadata"] for frame in shown if event_of(frame) == event]

    def cursor(self, session_id: str) -> dict[str, Any]:
        """Return the metadata of a `resume` that continues from here."""
        cursor: dict[str, Any] = {"rev": self._revs.get(session_id, (0, 0))[0]}
        runs = [run for run in self.runs.values() if run.session_id == session_id and run.seq]
        if runs:
            run = max(runs, key=lambda run: run.number)
            cursor |= {"run_id": run.run_id, "epoch": run.epoch, "seq": run.seq}
        return cursor

    def apply(self, frame: Frame) -> None:
        """Apply one decoded frame."""
        self.frames.append(frame)
        check_frame(frame)
        try:
            self._apply(frame)
        except AssertionError as exc:
            raise AssertionError(f"{exc}: {frame}") from None

    def apply_all(self, frames: Iterable[Frame]) -> None:
        """Apply several frames."""
        for frame in frames:
            self.apply(frame)

    def _apply(self, frame: Frame) -> None:
        metadata = frame["metadata"]
        if is_sequenced(frame):
            self._show(self._run(frame), frame)
            return
        match event_of(frame):
            case "resumed":
                self._begin_catch_up(frame)
            case "snapshot":
                self._replace(self._run(frame), frame)
            case "run.reset":
                self._reset(self._run(frame), frame)
            case "accepted":
                run = self.runs.get(metadata["run_id"])
                is_late = not metadata["duplicate"] and run is not None and run.seq > 0
                assert not is_late, "accepted after frames of its run"
            case "message.created" | "message.updated":
                self._see_rev(frame)
                self._keep_message(frame)
            case "queue.changed":
                self._see_rev(frame)

    def _run(self, frame: Frame) -> RunView:
        metadata = frame["metadata"]
        run_id = metadata["run_id"]
        if run_id not in self.runs:
            self.runs[run_id] = RunView(frame["session_id"], run_id, metadata["run_number"])
        run = self.runs[run_id]
        assert run.number == metadata["run_number"], "a run has changed its number"
        return run

    def _begin_catch_up(self, frame: Frame) -> None:
        session_id = frame["session_id"]
        self._followed.add(session_id)
        runs = [run.run_id for run in self.runs.values() if run.session_id == session_id]
        self._catching_up.update(runs)

    def _show(self, run: RunView, frame: Frame) -> None:
        is_catching_up = run.run_id in self._catching_up
        if is_catching_up and self._is_replayed(run, frame):
            return
        assert run.terminal is None, "a frame after the end"
        if not (is_terminal(frame) and frame["metadata"]["seq"] == 1):
            self._check_order(run)
        self._catching_up.discard(run.run_id)
        self._live.add(run.session_id)
        self._check_place(run, frame, is_catching_up=is_catching_up)
        self._add(run, frame)

    def _is_replayed(self, run: RunView, frame: Frame) -> bool:
        """Whether a frame was sent again. The end is, to a cursor in a run that has ended.

        Other frames may arrive twice when `resume` overlaps with live frames on the same socket.
        """
        metadata = frame["metadata"]
        if (metadata["epoch"], metadata["seq"]) > (run.epoch, run.seq):
            return False
        if run.terminal and is_terminal(frame):
            assert frame["content"] == run.terminal["content"], "a second, different end"
            return True
        return run.session_id in self._live

    def _check_place(self, run: RunView, frame: Frame, *, is_catching_up: bool) -> None:
        metadata, is_followed = frame["metadata"], run.session_id in self._followed
        is_fresh = not run.seq or (not is_followed and not run.text and metadata["seq"] == 1)
        if is_fresh and metadata["epoch"] != run.epoch:
            run.epoch, run.seq = metadata["epoch"], 0
        # The run's events may be folded; a client that never resumed gets one token instead.
        kind = "complete" if is_catching_up else "" if is_followed else "token"
        assert metadata["epoch"] == run.epoch, f"epoch was {run.epoch}"
        if frame["type"] == kind:
            assert metadata["seq"] > run.seq, f"seq was {run.seq}"
        else:
            assert metadata["seq"] == run.seq + 1, f"seq was {run.seq}"

    def _add(self, run: RunView, frame: Frame) -> None:
        metadata = frame["metadata"]
        is_next = metadata["seq"] == run.seq + 1
        run.seq, run.message_id = metadata["seq"], metadata["message_id"]
        run.events.append(frame)
        if frame["type"] == "token":
            run.text += frame["content"]
        elif frame["type"] == "complete":
            assert run.text == frame["content"] or not is_next, f"tokens added up to {run.text!r}"
            run.text = frame["content"]
        if is_terminal(frame):
            run.terminal = frame

    def _check_order(self, run: RunView) -> None:
        others = [other for other in self.runs.values() if other.session_id == run.session_id]
        ahead = [other.number for other in others if other.number < run.number and other.is_working]
        assert not ahead, f"run {run.number} before the end of {ahead}"
        shown = [other for other in others if other.seq and not other.never_worked]
        behind = [other.number for other in shown if other.number > run.number]
        assert not behind, f"run {run.number} after frames of {behind}"

    def _replace(self, run: RunView, frame: Frame) -> None:
        metadata = frame["metadata"]
        assert run.terminal is None, "a snapshot after the end"
        self._check_order(run)
        place = metadata["epoch"], metadata["seq"]
        assert place >= (run.epoch, run.seq), "a snapshot from the past"
        run.epoch, run.seq = place
        run.message_id = metadata["message_id"]
        run.text = text_of(metadata["parts"])
        self._catching_up.discard(run.run_id)

    def _reset(self, run: RunView, frame: Frame) -> None:
        assert run.terminal is None, "a reset after the end"
        assert frame["metadata"]["epoch"] > run.epoch, "a reset to an old epoch"
        run.epoch = frame["metadata"]["epoch"]
        run.seq, run.text, run.events = 0, "", []

    def _see_rev(self, frame: Frame) -> None:
        """Frames of one revision may arrive apart: it is complete only when a later one arrives."""
        whole, last = self._revs.get(frame["session_id"], (0, 0))
        if frame["metadata"]["rev"] > last:
            whole, last = last, frame["metadata"]["rev"]
        self._revs[frame["session_id"]] = whole, last

    def _keep_message(self, frame: Frame) -> None:
        """A message without `parts` keeps its parts, or gets them from the frames of its run."""
        metadata = frame["metadata"] | {"session_id": frame["session_id"]}
        held = self.messages.get(metadata["message_id"], {})
        self.messages[metadata["message_id"]] = held | metadata
        run = self.runs.get(metadata.get("run_id") or "")
        if run and run.terminal and "parts" in metadata:
            assert run.text == text_of(metadata["parts"]), "the message is not what was shown"


class BaseClient:
    """A client that knows only `type` and `content`: compares joined tokens with `complete`."""

    def __init__(self) -> None:
        self.text = ""
        self.replies: list[str] = []
        self.errors: list[str] = []

    def apply(self, frame: Frame) -> None:
        """Apply one decoded frame."""
        match frame["type"]:
            case "token":
                self.text += frame["content"]
            case "complete":
                assert self.text == frame["content"], f"tokens added up to {self.text!r}"
                self.replies.append(self.text)
                self.text = ""
            case "error":
                self.errors.append(frame["content"])
                self.text = ""
