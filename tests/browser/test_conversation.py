"""The page's view of a session, frame by frame, without a socket: `static/chat/conversation/conversation.js`."""

from dataclasses import dataclass
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Page

from tests.browser.conftest import Opener

pytestmark = pytest.mark.asyncio(loop_scope="session")

SESSION = "5e551017-0000-0000-0000-000000000000"
EMPTY = {
    "session_id": SESSION,
    "rev": 1,
    "run": None,
    "parts": [],
    "queue": [],
    "messages": [],
    "siblings": {},
    "branch": "",
}
PLAY = """
async ([data, frames]) => {
  const { Conversation } = await import("/static/chat/conversation/conversation.js");
  const { joinText } = await import("/static/chat/conversation/parts.js");
  const conversation = new Conversation(structuredClone(data));
  const effects = [];
  for (const frame of frames) {
    for (const effect of conversation.apply(frame)) {
      effects.push(effect.kind);
      if (effect.kind === "resume") conversation.beginResume();
    }
  }
  return {
    effects,
    cursor: conversation.beginResume(),
    shown: conversation.messages.map((message) => [
      message.message_id,
      joinText(message.parts ?? []),
      message.run_status ?? "",
      message.generation ?? 0,
      (message.parts ?? []).map((part) => part.type).join(" "),
    ]),
  };
}
"""


@dataclass
class Played:
    """What the page does and shows after some frames."""

    effects: list[str]
    cursor: dict[str, Any]
    shown: list[list[Any]]

    @property
    def ids(self) -> list[str]:
        return [entry[0] for entry in self.shown]

    @property
    def texts(self) -> list[str]:
        return [entry[1] for entry in self.shown]

    @property
    def kinds(self) -> list[str]:
        return [entry[4] for entry in self.shown]

    @property
    def statuses(self) -> list[str]:
        return [entry[2] for entry in self.shown]


async def play(page: Page, *frames: dict[str, Any], **data: Any) -> Played:
    return Played(**await page.evaluate(PLAY, [EMPTY | data, list(frames)]))


@pytest_asyncio.fixture(loop_scope="session")
async def page(open_chat: Opener) -> Page:
    return (await open_chat()).page


def status(event: str, **metadata: Any) -> dict[str, Any]:
    return {
        "type": "status",
        "session_id": SESSION,
        "content": "",
        "metadata": {"event": event, **metadata},
    }


def message(id_: str, number: int, parent: str | None, rev: int = 2, **fields: Any) -> Any:
    role = "user" if id_.startswith("u") else "assistant"
    shared = {"message_id": id_, "number": number, "parent_message_id": parent, "role": role}
    return status("message.created", rev=rev, **shared, **fields)


def asked(id_: str, number: int, parent: str | None, rev: int = 2) -> Any:
    return message(id_, number, parent, rev, parts=[{"type": "text", "text": id_}])


def replying(id_: str, number: int, parent: str, rev: int = 2, run: str = "r1") -> Any:
    return message(id_, number, parent, rev, run_id=run, run_status="queued", parts=[])


def at(seq: int, *, run: str = "r1", number: int = 1, epoch: int = 1, reply: str = "a2") -> Any:
    return {
        "run_id": run,
        "run_number": number,
        "epoch": epoch,
        "seq": seq,
        "message_id": reply,
    }


def started(**where: Any) -> Any:
    return status("run.started", agent="assistant", **at(1, **where))


def token(seq: int, text: str, **where: Any) -> Any:
    metadata = at(seq, **where)
    return {"type": "token", "session_id": SESSION, "content": text, "metadata": metadata}


def complete(seq: int, text: str, **where: Any) -> Any:
    metadata = at(seq, **where) | {"finish_reason": "completed", "html": text, "usage": {}}
    return {"type": "complete", "session_id": SESSION, "content": text, "metadata": metadata}


TURN = (asked("u1", 1, None), replying("a2", 2, "u1"), started())


async def test_tokens_are_appended_in_order(page: Page) -> None:
    played = await play(page, *TURN, token(2, "one "), token(3, "two"))
    assert played.texts == ["u1", "one two"]
    assert played.statuses == ["", "running"]
    assert played.effects == ["started"]
    assert played.cursor == {"rev": 1, "run_id": "r1", "epoch": 1, "seq": 3}


async def test_what_is_old_is_dropped(page: Page) -> None:
    played = await play(page, *TURN, token(2, "one "), token(2, "one "), started(), token(3, "two"))
    assert played.texts == ["u1", "one two"]


async def test_a_gap_is_asked_for_once(page: Page) -> None:
    played = await play(page, *TURN, token(3, "two"), token(4, "three"))
    assert played.texts == ["u1", ""]
    assert played.effects == ["started", "resume"]
    assert played.cursor["seq"] == 1


async def test_a_gap_that_stays_ends_in_a_reload(page: Page) -> None:
    lost = (token(5, "late"), status("resumed", rev=2, recovered=True))
    played = await play(page, *TURN, *lost, *lost, *lost, *lost)
    assert played.effects == ["started", "resume", "resume", "resume", "reload"]


async def test_too_much_was_missed(page: Page) -> None:
    played = await play(page, status("resumed", rev=99, recovered=False))
    assert played.effects == ["reload"]


async def test_the_end_counts_after_a_gap_too(page: Page) -> None:
    played = await play(page, *TURN, token(2, "one "), complete(9, "one two three"))
    assert played.texts == ["u1", "one two three"]
    assert played.statuses[-1] == "completed"
    assert played.effects == ["started", "ended"]
    assert played.cursor == {"rev": 1}


async def test_nothing_follows_the_end(page: Page) -> None:
    end = complete(3, "one")
    played = await play(page, *TURN, token(2, "one"), end, token(4, "!"), end, started())
    assert played.texts == ["u1", "one"]
    assert played.effects == ["started", "ended"]


async def test_a_later_epoch_begins_again(page: Page) -> None:
    reset = status("run.reset", run_id="r1", run_number=1, epoch=2, reason="worker_lost")
    again = (started(epoch=2), token(2, "new", epoch=2))
    played = await play(page, *TURN, token(2, "old"), reset, token(3, "older"), *again)
    assert played.shown[-1][:4] == ["a2", "new", "running", 1]
    unannounced = await play(page, *TURN, token(2, "old"), *again)
    assert unannounced.shown[-1][:4] == ["a2", "new", "running", 1]


async def test_a_snapshot_takes_the_place_of_what_is_shown(page: Page) -> None:
    def snapshot(seq: int, text: str) -> Any:
        parts = [{"type": "text", "text": text}]
        return status("snapshot", parts=parts, run_status="running", **at(seq))

    grown = await play(page, *TURN, token(2, "one "), snapshot(7, "one two"), token(8, "!"))
    assert grown.shown[-1][:4] == ["a2", "one two!", "running", 0]
    other = await play(page, *TURN, token(2, "one "), snapshot(7, "else"))
    assert other.shown[-1][:4] == ["a2", "else", "running", 1]
    older = await play(page, *TURN, token(2, "one "), snapshot(1, ""))
    assert older.shown[-1][:4] == ["a2", "one ", "running", 0]


async def test_text_after_a_step_is_a_part_of_its_own(page: Page) -> None:
    step = status("tool.started", tool_call_id="c", name="search", **at(3))
    played = await play(page, *TURN, token(2, "before"), step, token(4, "\n\nafter"))
    assert played.texts == ["u1", "before\n\nafter"]
    assert played.kinds == ["text", "text tool text"]


async def test_a_whole_message_is_not_grown(page: Page) -> None:
    whole = message(
        "a2",
        2,
        "u1",
        rev=3,
        run_id="r1",
        run_status="completed",
        parts=[{"type": "text", "text": "all of it"}],
        html="all of it",
    )
    late = (token(3, " of it"), complete(4, "all of it"))
    played = await play(page, *TURN, token(2, "all"), whole, *late)
    assert played.texts == ["u1", "all of it"]
    assert played.effects == ["started", "ended"]


async def test_an_ended_reply_whose_frames_follow_is_grown_by_them(page: Page) -> None:
    told = message("a2", 2, "u1", rev=3, run_id="r1", run_status="completed")
    step = status("tool.started", tool_call_id="c", name="search", **at(3))
    rest = (step, token(4, "\n\nafter"), complete(5, "before\n\nafter"))
    played = await play(page, *TURN, token(2, "before"), told, *rest)
    assert played.kinds == ["text", "text tool text"]
    assert played.statuses == ["", "completed"]
    unknown = (asked("u1", 1, None), told, started(), token(2, "before"), *rest)
    played = await play(page, *unknown)
    assert played.kinds == ["text", "text tool text"]
    assert played.statuses == ["", "completed"]


async def test_another_reply_takes_the_place_of_the_first(page: Page) -> None:
    again = replying("a3", 3, "u1", rev=3, run="r2")
    played = await play(page, *TURN, complete(2, "first"), again)
    assert played.ids == ["u1", "a3"]


async def test_a_change_to_a_left_branch_changes_nothing(page: Page) -> None:
    again = replying("a3", 3, "u1", rev=3, run="r2")
    stale = message("a2", 2, "u1", rev=4, run_id="r1", run_status="cancelled", parts=[])
    played = await play(page, *TURN, again, stale)
    assert played.ids == ["u1", "a3"]


async def test_children_may_come_before_their_parents(page: Page) -> None:
    frames = (asked("u3", 3, "a2", rev=5), replying("a4", 4, "u3", rev=5, run="r2"))
    before = await play(page, asked("u1", 1, None), *frames)
    assert before.ids == ["u1"]
    after = await play(page, asked("u1", 1, None), *frames, replying("a2", 2, "u1", rev=5))
    assert after.ids == ["u1", "a2", "u3", "a4"]


async def test_a_message_may_go_before_what_waits(page: Page) -> None:
    waiting = (asked("u3", 3, "a2"), replying("a4", 4, "u3", run="r2"))
    sooner = (asked("u5", 5, "a2", rev=3), replying("a6", 6, "u5", rev=3, run="r3"))
    moved = asked("u3", 3, "a6", rev=3)
    played = await play(page, *TURN, *waiting, *sooner, moved)
    assert played.ids == ["u1", "a2", "u5", "a6", "u3", "a4"]


async def test_what_waits_may_end_first(page: Page) -> None:
    waiting = (asked("u3", 3, "a2"), replying("a4", 4, "u3", run="r2"))
    dropped = complete(1, "", run="r2", number=2, epoch=0, reply="a4")
    played = await play(page, *TURN, *waiting, token(2, "one "), dropped, token(3, "two"))
    assert played.texts == ["u1", "one two", "u3", ""]
    assert played.statuses == ["", "running", "", "completed"]
    assert played.cursor["seq"] == 3


async def test_a_revision_counts_only_when_the_next_one_comes(page: Page) -> None:
    half = await play(page, asked("u1", 1, None, rev=7))
    assert half.cursor == {"rev": 1}
    whole = await play(page, asked("u1", 1, None, rev=7), asked("u3", 3, "u1", rev=8))
    assert whole.cursor == {"rev": 7}


async def test_other_sessions_are_not_shown(page: Page) -> None:
    foreign = {**asked("u1", 1, None), "session_id": "other"}
    played = await play(page, foreign, {**token(1, "x"), "session_id": "other"})
    assert played.shown == []


async def test_what_is_not_known_is_let_pass(page: Page) -> None:
    unknown = ({"type": "novelty", "session_id": SESSION, "metadata": {}}, status("novelty"))
    played = await play(page, *unknown, *TURN)
    assert played.effects == ["started"]


def requested(seq: int, request_id: str = "q1") -> Any:
    call = {"tool_call_id": "c1", "tool": "erase", "description": "", "arguments": "{}"}
    return status("input.requested", request_id=request_id, expires_at="", **call, **at(seq))


def resolved(seq: int, request_id: str = "q1", decision: str = "approve") -> Any:
    answer = {"request_id": request_id, "decision": decision, "decided_at": ""}
    return status("input.resolved", **answer, **at(seq))


async def test_a_reply_waits_for_its_requests_and_goes_on(page: Page) -> None:
    asking = (*TURN, token(2, "one"), requested(3), requested(4, "q2"), requested(4, "q2"))
    played = await play(page, *asking)
    assert played.statuses[-1] == "awaiting_input"
    assert played.effects == ["started", "asked", "asked"]
    played = await play(page, *asking, resolved(5, "q2", "reject"))
    assert played.statuses[-1] == "awaiting_input"
    played = await play(page, *asking, resolved(5, "q2"), resolved(6), token(7, "\n\ntwo"))
    assert played.statuses[-1] == "running"
    assert played.texts[-1] == "one\n\ntwo"
    assert played.kinds[-1] == "text approval approval text"


async def test_a_second_answer_is_told_apart(page: Page) -> None:
    where = {"request_id": "q1", "run_id": "r1"}
    played = await play(page, status("responded", duplicate=True, **where))
    assert played.effects == ["answered"]
