"""Messages that wait are edited, taken back and moved, and everybody sees the same."""

import asyncio
import random
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client

from conversations.errors import AgentSiteError, ErrorCode
from conversations.models import ChatSession, Message, Run, RunStatus
from conversations.runs.inputs import read_path
from conversations.sessions import posting, queue
from conversations.sessions.history import get_history
from realtime.process import Process
from tests.support.chats import ask, begin, finish, make_user, session_of
from tests.support.client import ChatClient, event, frame_of
from tests.support.inprocess import open_chat_here
from tests.support.site_agents import echo_words
from tests.support.threads import in_thread

pytestmark = pytest.mark.django_db(transaction=True)

NOBODY = "00000000-0000-0000-0000-000000000000"


@pytest.fixture(autouse=True)
def echo(settings: Any) -> None:
    settings.AGENTS = "tests.support.site_agents"


@pytest.fixture
def user(transactional_db: None) -> User:
    return make_user("ada")


class Line:
    """A session with a reply at work and messages that wait behind it, named by their texts."""

    def __init__(self, user: Any, *waiting: str, agent: str | None = None) -> None:
        self.user = user
        self.posted = {"head": ask(user, "head", agent=agent)}
        self.session_id = str(self.posted["head"].session_id)
        self.more(*waiting)

    def more(self, *texts: str, **fields: Any) -> None:
        for text in texts:
            self.posted[text] = ask(self.user, text, self.session, **fields)

    @property
    def session(self) -> ChatSession:
        return session_of(self.posted["head"])

    def run_id(self, name: str) -> str:
        return str(self.posted[name].run_id)

    @property
    def waiting(self) -> list[str]:
        return [entry.content for entry in queue.get_queue(self.user, self.session_id)]

    @property
    def shown(self) -> list[str]:
        """The prompts on the branch that is shown."""
        messages = get_history(self.session).messages
        return [message.text for message in messages if message.role == "user"]

    def edit(self, name: str, content: str) -> None:
        queue.edit_queued(
            user=self.user, session_id=self.session_id, run_id=self.run_id(name), content=content
        )

    def remove(self, name: str) -> None:
        queue.remove_queued(user=self.user, session_id=self.session_id, run_id=self.run_id(name))

    def move(self, name: str, position: int) -> None:
        queue.move_queued(
            user=self.user,
            session_id=self.session_id,
            run_id=self.run_id(name),
            position=position,
        )

    def work_off(self) -> list[str]:
        """Answer all of it; what the model was asked, each with all that it saw before."""
        seen = []
        unfinished = Run.objects.filter(session=self.session, ended_at=None).order_by("number")
        while run := unfinished.first():
            turns = read_path(run, run.prompt_id, 60).turns
            seen.append(" ".join(turn.text or "·" for turn in reversed(turns)))
            finish(next(p for p in self.posted.values() if p.run_id == run.pk), "ok")
        return seen


def code_of(work: Callable[..., Any], *args: Any, **kwargs: Any) -> ErrorCode:
    with pytest.raises(AgentSiteError) as caught:
        work(*args, **kwargs)
    return caught.value.code


class TestEdit:
    def test_the_new_text_is_what_is_asked(self, user: User) -> None:
        line = Line(user, "a", "b")
        line.edit("a", "better")
        assert line.waiting == ["better", "b"]
        assert line.work_off() == ["head", "head · better", "head · better · b"]

    def test_the_next_one_too_until_it_has_begun(self, user: User) -> None:
        line = Line(user, "a")
        line.edit("head", "first")
        assert code_of(line.remove, "head") == ErrorCode.NOT_QUEUED
        assert line.work_off() == ["first", "first · a"]

    def test_sending_the_first_text_again_starts_nothing(self, user: User) -> None:
        line = Line(user)
        line.more("a", client_message_id="m1")
        line.edit("a", "better")
        again = ask(user, "a", line.session, client_message_id="m1")
        assert again.duplicate
        assert line.waiting == ["better"]

    @pytest.mark.parametrize("content", ["", "  \n", "\u200b\u3164"])
    def test_it_must_say_something(self, user: User, content: str) -> None:
        line = Line(user, "a")
        assert code_of(line.edit, "a", content) == ErrorCode.BAD_FRAME

    def test_what_was_answered_already_is_not_rewritten(self, user: User) -> None:
        line = Line(user)
        finish(line.posted["head"], "ok")
        line.more("next")
        line.posted["again"] = ask(
            user, "", line.session, regenerate=str(line.posted["head"].run.message_id)
        )
        (entry,) = queue.get_queue(user, line.session_id)
        assert entry.again
        assert code_of(line.edit, "again", "other") == ErrorCode.FORBIDDEN


class TestRemove:
    @pytest.mark.parametrize("name", ["a", "b", "c"])
    def test_it_is_neither_shown_nor_asked(self, user: User, name: str) -> None:
        line = Line(user, "a", "b", "c")
        line.remove(name)
        left = [text for text in ("a", "b", "c") if text != name]
        assert line.waiting == left
        assert line.shown == ["head", *left]
        assert name not in line.work_off()[-1].split()

    def test_its_run_ends_once(self, user: User) -> None:
        line = Line(user, "a")
        line.remove("a")
        run = Run.objects.get(pk=line.run_id("a"))
        assert (run.status, run.reason, run.epoch) == (RunStatus.CANCELLED, "user", 0)
        assert code_of(line.remove, "a") == ErrorCode.NOT_QUEUED

    def test_nothing_goes_on_from_it(self, user: User) -> None:
        line = Line(user, "a")
        line.remove("a")
        reply = str(line.posted["a"].run.message_id)
        for fields in ({"parent_message_id": reply}, {"regenerate": reply}):
            content = "" if "regenerate" in fields else "more"
            assert code_of(ask, user, content, line.session, **fields) == ErrorCode.NOT_FOUND
        assert line.shown == ["head"]

    def test_all_of_it(self, user: User) -> None:
        line = Line(user, "a", "b", "c")
        queue.clear_queue(user=user, session_id=line.session_id)
        assert line.waiting == []
        line.more("d")
        assert line.work_off() == ["head", "head · d"]

    def test_another_reply_that_waits(self, user: User) -> None:
        line = Line(user)
        finish(line.posted["head"], "ok")
        line.more("next")
        first = str(line.posted["head"].run.message_id)
        line.posted["again"] = ask(user, "", line.session, regenerate=first)
        line.more("behind")
        line.remove("again")
        assert line.waiting == ["behind"]
        # What was said behind it goes on from the reply that there is.
        behind = Message.objects.get(pk=line.posted["behind"].user_message_id)
        assert str(behind.parent_id) == first
        assert Message.objects.filter(withdrawn=True).count() == 1
        line.remove("behind")
        assert line.shown == ["head", "next"]


class TestMove:
    @pytest.mark.parametrize(
        ("name", "position", "order"),
        [
            ("c", 1, ["c", "a", "b"]),
            ("c", 2, ["a", "c", "b"]),
            ("a", 3, ["b", "c", "a"]),
            ("a", 99, ["b", "c", "a"]),
            ("b", 2, ["a", "b", "c"]),
        ],
    )
    def test_the_conversation_follows(
        self, user: User, name: str, position: int, order: list[str]
    ) -> None:
        line = Line(user, "a", "b", "c")
        line.move(name, position)
        assert line.waiting == order
        assert line.shown == ["head", *order]
        line.more("d")
        asked = ["head", *order, "d"]
        assert line.work_off() == [" · ".join(asked[:count]) for count in range(1, 6)]

    @pytest.mark.parametrize("position", [0, -1])
    def test_there_is_no_position_before_the_first(self, user: User, position: int) -> None:
        line = Line(user, "a", "b", "c")
        assert code_of(line.move, "c", position) == ErrorCode.BAD_FRAME
        assert line.waiting == ["a", "b", "c"]

    def test_numbers_only_rise(self, user: User) -> None:
        line = Line(user, "a", "b", "c", "d")
        chance = random.Random(7)
        before = dict(Run.objects.values_list("pk", "number"))
        for _ in range(20):
            line.move(chance.choice("abcd"), chance.randint(1, 4))
            after = dict(Run.objects.values_list("pk", "number"))
            assert all(after[pk] >= number for pk, number in before.items())
            assert line.shown == ["head", *line.waiting]
            before = after

    def test_an_interruption_still_goes_first(self, user: User) -> None:
        line = Line(user, "a", "b")
        line.move("b", 1)
        line.more("now", on_busy="interrupt")
        assert line.waiting == ["b", "a"]
        assert line.shown == ["head", "now", "b", "a"]

    def test_nothing_passes_where_a_branch_begins(self, user: User) -> None:
        line = Line(user, "a")
        line.more("elsewhere", parent_message_id="")
        line.more("b")
        for name, position in (("b", 1), ("b", 2), ("elsewhere", 1), ("a", 3)):
            assert code_of(line.move, name, position) == ErrorCode.FORBIDDEN
        assert line.waiting == ["a", "elsewhere", "b"]


class TestWho:
    def test_not_what_has_begun(self, user: User) -> None:
        line = Line(user, "a")
        begin(line.posted["head"], "hm")
        assert code_of(line.edit, "head", "x") == ErrorCode.NOT_QUEUED
        posting.cancel_run(user=user, session_id=line.session_id, run_id=line.run_id("a"))
        assert code_of(line.move, "a", 1) == ErrorCode.NOT_QUEUED

    @pytest.mark.parametrize("run_id", [NOBODY, "nonsense"])
    def test_not_what_is_not_there(self, user: User, run_id: str) -> None:
        line = Line(user, "a")
        names = {"user": user, "session_id": line.session_id, "run_id": run_id}
        assert code_of(queue.remove_queued, **names) == ErrorCode.NOT_FOUND

    def test_not_somebody_elses(self, user: User) -> None:
        line = Line(user, "a")
        line.user = make_user("eve")
        before = list(Run.objects.values())
        calls = ((line.edit, "a", "x"), (line.remove, "a"), (line.move, "a", 1))
        assert {code_of(*call) for call in calls} == {ErrorCode.NOT_FOUND}
        names = {"user": line.user, "session_id": line.session_id}
        assert code_of(queue.clear_queue, **names) == ErrorCode.NOT_FOUND
        assert list(Run.objects.values()) == before


class TestRest:
    @pytest.fixture
    def api(self, user: User) -> Client:
        client = Client()
        client.force_login(user)
        return client

    def test_the_whole_way(self, user: User, api: Client) -> None:
        line = Line(user, "a", "b", "c")
        address = f"/api/sessions/{line.session_id}/queue/"
        assert contents(api.get(address)) == ["a", "b", "c"]
        change = {"content": "better", "position": 1}
        answer = api.patch(f"{address}{line.run_id('b')}/", change, "application/json")
        assert contents(answer) == ["better", "a", "c"]
        assert contents(api.delete(f"{address}{line.run_id('a')}/")) == ["better", "c"]
        assert contents(api.delete(address)) == []
        gone = api.delete(f"{address}{line.run_id('a')}/")
        assert (gone.status_code, gone.json()["error"]["code"]) == (409, "not_queued")

    def test_both_or_none(self, user: User, api: Client) -> None:
        line = Line(user, "a")
        line.more("elsewhere", parent_message_id="")
        address = f"/api/sessions/{line.session_id}/queue/{line.run_id('a')}/"
        change = {"content": "better", "position": 2}
        assert api.patch(address, change, "application/json").status_code == 403
        too_long = {"content": "x" * 65_537}
        assert api.patch(address, too_long, "application/json").status_code == 400
        assert line.waiting == ["a", "elsewhere"]


def contents(answer: Any) -> list[str]:
    assert answer.status_code == 200, answer.content
    return [entry["content"] for entry in answer.json()["queue"]]


async def test_by_frames_and_on_a_second_device(process: Process, user: User) -> None:
    async with open_chat_here(user) as one, open_chat_here(user) as two:
        head = await one.chat("wait", agent="patient")
        session_id = head["session_id"]
        await one.resume(session_id)
        await two.resume(session_id)
        runs = {name: await one.chat(name, session_id, agent="echo") for name in "abc"}
        frames: list[tuple[dict[str, Any], str, list[str]]] = [
            ({"op": "move", "run_id": runs["c"]["run_id"], "position": 1}, "", ["c", "a", "b"]),
            ({"op": "edit", "run_id": runs["a"]["run_id"]}, "better", ["c", "better", "b"]),
            ({"op": "remove", "run_id": runs["b"]["run_id"]}, "", ["c", "better"]),
        ]
        for metadata, content, order in frames:
            await change(one, session_id, metadata, content)
            await two.wait_for(partial(shows_queue, order))
        ended = await two.wait_end(runs["b"]["run_id"])
        assert ended["metadata"]["finish_reason"] == "cancelled"
        await one.cancel(session_id, run_id=head["run_id"])
        for name, text in (("c", "c"), ("a", "better")):
            ends = await asyncio.gather(*(tab.wait_end(runs[name]["run_id"]) for tab in (one, two)))
            assert {end["content"] for end in ends} == {"".join(echo_words(text))}
        # The transcripts of both have seen every run begin after the end of the one before.
        assert one.transcript.texts()[-2:] == two.transcript.texts()[-2:]


async def change(
    client: ChatClient, session_id: str, metadata: dict[str, Any], content: str = ""
) -> None:
    after = len(client.frames)
    await client.send(
        {"type": "queue", "session_id": session_id, "content": content, "metadata": metadata}
    )
    done = await client.wait_for(event("queue.done"), after=after)
    assert done["metadata"]["op"] == metadata["op"]


def shows_queue(order: list[str], frame: dict[str, Any]) -> bool:
    if frame["metadata"].get("event") != "queue.changed":
        return False
    return [entry["content"] for entry in frame["metadata"]["queue"]] == order


@pytest.mark.parametrize(
    ("metadata", "code"),
    [
        ({"op": "remove"}, "bad_frame"),
        ({"op": "explode", "run_id": "x"}, "bad_frame"),
        ({"op": "move", "run_id": "x", "position": 0}, "bad_frame"),
        ({"op": "remove", "run_id": NOBODY}, "not_found"),
        ({"op": "clear"}, "not_found"),
    ],
)
async def test_frames_that_are_refused(
    process: Process, user: User, metadata: dict[str, Any], code: str
) -> None:
    async with open_chat_here(user) as client:
        await client.send({"type": "queue", "session_id": NOBODY, "metadata": metadata})
        error = await client.wait_for(frame_of("error"))
    assert error["metadata"]["code"] == code


async def test_a_late_reader_is_told_what_was_taken_back(process: Process, user: User) -> None:
    # Which this process works on, and does not end.
    line = await in_thread(Line, user, "a", "b", agent="patient")
    rev = (await in_thread(lambda: line.session)).rev
    await in_thread(line.remove, "a")
    async with open_chat_here(user) as client:
        await client.resume(line.session_id, rev=rev)
        gone = await client.wait_for(
            event("message.updated", message_id=str(line.posted["a"].user_message_id))
        )
    assert gone["metadata"]["withdrawn"] is True
