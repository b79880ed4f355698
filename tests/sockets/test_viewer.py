"""What a socket is shown after a pause, a gap or an overflow, read from a real database."""

import asyncio
import json
import threading
from datetime import timedelta
from typing import Any, cast

import pytest
from channels.layers import InMemoryChannelLayer
from django.contrib.auth.base_user import AbstractBaseUser

from conversations.models import RunEvent, RunStatus
from conversations.runs import catch_up, lifecycle
from conversations.runs import events as events_module
from conversations.runs.events import Batch
from conversations.runs.lifecycle import Ending
from conversations.runs.states import Claim, Claimed
from conversations.runs.usage import ChatLimits
from conversations.sessions import posting, rendering
from conversations.sessions.posting import NewChat, Posted
from realtime.channel_layer import Envelope, Hub, RunFrames, run_frames, session_group
from realtime.protocol import ResumeMetadata
from realtime.sockets import announcer, frames
from realtime.sockets.reader import Outbox
from realtime.sockets.viewer import Viewer
from tests.support.conformance import check_frame
from tests.support.inprocess import make_user
from tests.support.threads import in_thread
from tests.support.transcript import BaseClient, Frame, Transcript
from tests.support.waiting import time_limit

CLAIM = Claim(worker="w1", lease=timedelta(seconds=60), agent="echo", model="m")


class Talk:
    """A session whose run is written by the test itself, word by word."""

    def __init__(self) -> None:
        self.user: AbstractBaseUser = make_user("ada")
        self.ask()

    def ask(self, session_id: str = "") -> None:
        """Begin a run, in a new session if none is named."""
        chat = NewChat(content="hi", session_id=session_id)
        self.posted = posting.post_chat(
            user=self.user, chat=chat, limits=ChatLimits(), viewed_for=None, claim=CLAIM
        )
        assert self.posted.claimed is not None
        self.work: Claimed = self.posted.claimed
        self.last_seq = 1
        self.words: list[str] = []

    def claim(self, posted: Posted) -> None:
        """Begin a run that was queued by its chat."""
        claimed = lifecycle.claim_run(posted.run_id, CLAIM)
        assert claimed is not None
        self.posted, self.work, self.last_seq, self.words = posted, claimed, 1, []

    @property
    def session_id(self) -> str:
        return str(self.posted.session_id)

    def say(self, *words: str) -> RunFrames:
        """Commit a token for each word; the message that the layer would carry."""
        first = self.last_seq + 1
        events = [(first + n, "token", {"delta": word}) for n, word in enumerate(words)]
        run = self.work.run
        batch = Batch(run.pk, run.claim, run.epoch, self.last_seq, events)
        assert events_module.commit_batches([batch], CLAIM.lease).kept
        self.last_seq = batch.next_seq
        self.words += words
        encoded = [frames.event_frame(self.work.ref, *event).encode() for event in events]
        chars = sum(map(len, words))
        _, message = run_frames(self.work.ref, first, encoded, chars=chars, ended=False)
        return cast(RunFrames, message)

    def begun(self) -> RunFrames:
        """The message of the run's first frame."""
        first = frames.event_frame(self.work.ref, 1, "run.started", {"agent": "echo"})
        _, message = run_frames(self.work.ref, 1, [first.encode()], chars=0, ended=False)
        return cast(RunFrames, message)

    def end(self) -> None:
        text = "".join(self.words)
        ending = Ending(RunStatus.COMPLETED, [{"type": "text", "text": text}])
        lifecycle.finish_run(self.work, last_seq=self.last_seq, events=[], ending=ending)


class RefusingLayer(InMemoryChannelLayer):
    """Lets nobody into a group while it `refuses`."""

    refuses = False

    async def group_add(self, group: str, channel: str) -> None:
        if self.refuses:
            raise OSError("the layer is away")
        await super().group_add(group, channel)


class Socket:
    """A viewer and what came out of it."""

    def __init__(self, user: AbstractBaseUser, *, max_frames: int = 1_000) -> None:
        self.outbox = Outbox(max_frames=max_frames, max_bytes=10**9)
        self.layer = RefusingLayer()
        self.hub = Hub(self.layer)
        self.viewer = Viewer(user, self.hub, self.outbox)
        self.frames: list[Frame] = []
        self.closed: int | None = None
        self.drained = asyncio.Event()

    async def _send(self, text: str) -> None:
        frame = json.loads(text)
        check_frame(frame)
        self.frames.append(frame)

    async def _close(self, code: int) -> None:
        self.closed = code

    async def _drained(self) -> None:
        await self.viewer.on_drained()
        self.drained.set()

    async def read(self) -> list[Frame]:
        """Everything that was put until now."""
        self.drained.clear()
        sending = asyncio.create_task(self.outbox.run(self._send, self._close, self._drained))
        waiting = asyncio.create_task(self.drained.wait())
        async with time_limit("the frames"):
            await asyncio.wait([sending, waiting], return_when=asyncio.FIRST_COMPLETED)
        for task in (sending, waiting):
            task.cancel()
        await asyncio.gather(sending, waiting, return_exceptions=True)
        return self.frames


@pytest.fixture
def talk(transactional_db: None) -> Talk:
    return Talk()


def shown(found: list[Frame]) -> Transcript:
    transcript = Transcript()
    transcript.apply_all(found)
    return transcript


async def test_resume_in_the_middle_sends_what_came_after(talk: Talk) -> None:
    await in_thread(talk.say, "one ", "two ", "three")
    socket = Socket(talk.user)
    cursor = ResumeMetadata(rev=1, run_id=str(talk.posted.run_id), epoch=1, seq=3)
    await socket.viewer.resume(talk.session_id, cursor)
    found = await socket.read()
    assert [f["content"] for f in found if f["type"] == "token"] == ["three"]


async def test_an_event_of_a_later_version_is_counted_and_not_shown(
    talk: Talk, caplog: pytest.LogCaptureFixture
) -> None:
    run = talk.work.run
    frames._warn_of.cache_clear()
    events = [(2, "token", {"delta": "one "}), (3, "tool.dreamt", {"of": "x"})]
    batch = Batch(run.pk, run.claim, run.epoch, 1, [*events, (4, "token", {"delta": "two"})])
    await in_thread(events_module.commit_batches, [batch], CLAIM.lease)
    for _ in range(2):
        found = await resumed_without_a_check(talk)
        assert [f["metadata"]["seq"] for f in found if "seq" in f["metadata"]] == [2, 3, 4]
        assert [f["content"] for f in found if f["type"] == "token"] == ["one ", "two"]
        transcript = BaseClient()
        for frame in found:
            transcript.apply(frame)
    assert caplog.text.count("tool.dreamt") == 1


async def resumed_without_a_check(talk: Talk) -> list[Frame]:
    """The frames after the first event; the protocol of this version declares not all of them."""
    socket = Socket(talk.user)
    await socket.viewer.resume(
        talk.session_id, ResumeMetadata(rev=1, run_id=str(talk.posted.run_id), epoch=1, seq=1)
    )
    taken: list[str] = []

    async def take(text: str) -> None:
        taken.append(text)

    sending = asyncio.create_task(socket.outbox.run(take, socket._close, socket._drained))
    async with time_limit("the frames"):
        await socket.drained.wait()
    sending.cancel()
    await asyncio.wait([sending])
    return [json.loads(text) for text in taken]


@pytest.mark.parametrize("status", [RunStatus.FAILED, RunStatus.CANCELLED])
async def test_an_end_of_a_later_version_is_shown(talk: Talk, status: RunStatus) -> None:
    ending = Ending(status, [], error_code="abducted" if status == RunStatus.FAILED else "")
    await in_thread(lambda: lifecycle.finish_run(talk.work, last_seq=1, events=[], ending=ending))
    await RunEvent.objects.filter(seq=2, kind="complete").aupdate(
        payload={"finish_reason": "cancelled", "reason": "abduction"}
    )
    socket = Socket(talk.user)
    cursor = ResumeMetadata(rev=1, run_id=str(talk.posted.run_id), epoch=1, seq=1)
    await socket.viewer.resume(talk.session_id, cursor)
    end = (await socket.read())[-1]
    assert end["metadata"].get("code") == ("internal" if status == RunStatus.FAILED else None)
    assert "reason" not in end["metadata"]


async def test_a_group_that_was_refused_is_joined_later(talk: Talk) -> None:
    socket = Socket(talk.user)
    socket.layer.refuses = True
    await socket.viewer.resume(talk.session_id, ResumeMetadata())
    assert not await socket.hub.rejoin()
    assert socket.layer.groups == {}
    socket.layer.refuses = False
    assert await socket.hub.rejoin()
    group = session_group(talk.posted.session_id)
    assert socket.layer.groups.keys() == {group}
    await socket.viewer.close()
    assert await socket.hub.rejoin()
    assert socket.layer.groups.get(group, {}) == {}


async def test_too_much_becomes_a_snapshot(talk: Talk, settings: Any) -> None:
    settings.REALTIME = {**settings.REALTIME, "replay_events": 2}
    await in_thread(talk.say, *"abcdef")
    socket = Socket(talk.user)
    await socket.viewer.resume(talk.session_id, ResumeMetadata(rev=0))
    transcript = shown(await socket.read())
    assert transcript.text(str(talk.posted.run_id)) == "abcdef"
    assert any(f["metadata"].get("event") == "snapshot" for f in socket.frames)


@pytest.mark.parametrize("seq", [0, 3, 7])
async def test_a_cursor_in_an_ended_run_is_told_its_end(talk: Talk, seq: int) -> None:
    await in_thread(talk.say, *"abcde")
    await in_thread(talk.end)
    if seq == 3:
        await in_thread(events_module.fold_events, timedelta(0))
    socket = Socket(talk.user)
    cursor = ResumeMetadata(rev=2, run_id=str(talk.posted.run_id), epoch=1, seq=seq)
    await socket.viewer.resume(talk.session_id, cursor)
    found = await socket.read()
    assert found[-1]["type"] == "complete"
    assert found[-1]["content"] == "abcde"
    assert socket.viewer.open_runs == []


async def test_replies_are_not_rendered_on_the_event_loop(
    talk: Talk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Long ones take seconds, for which all sockets would stand still."""
    threads = set()

    def render(parts: Any) -> list[str]:
        threads.add(threading.current_thread())
        return ["rendered"]

    monkeypatch.setattr(rendering, "render_texts", render)
    await in_thread(talk.say, "one")
    await in_thread(talk.end)
    ended = ResumeMetadata(rev=0, run_id=str(talk.posted.run_id), epoch=1, seq=1)
    for cursor in (ResumeMetadata(rev=0), ended):
        socket = Socket(talk.user)
        await socket.viewer.resume(talk.session_id, cursor)
        found = await socket.read()
        html = [f["metadata"]["html"] for f in found if "html" in f["metadata"]]
        assert html == ['<div class="text-part">rendered</div>']
    assert len(threads) == 1
    assert threading.current_thread() not in threads


async def test_a_gap_is_read_from_the_database(talk: Talk) -> None:
    socket = Socket(talk.user)
    await socket.viewer.resume(talk.session_id, ResumeMetadata(rev=0))
    await in_thread(talk.say, "lost ")
    late = await in_thread(talk.say, "found")
    await socket.viewer.on_message(late)
    await socket.viewer.on_message(late)
    assert shown(await socket.read()).text(str(talk.posted.run_id)) == "lost found"


async def test_a_message_that_its_own_run_has_overtaken_is_read_as_it_is_now(
    talk: Talk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It came last, and still says that the reply waits and is empty."""
    await in_thread(talk.end)
    socket = Socket(talk.user)
    await socket.viewer.resume(talk.session_id, ResumeMetadata())
    sent: list[Envelope] = []
    monkeypatch.setattr(announcer, "publish", sent.extend)
    chat = NewChat(content="hi", session_id=talk.session_id)
    await in_thread(talk.claim, await socket.viewer.chat(chat, lambda agent: None))
    created = next(message for _, message in sent if message["type"] == "session.frames")
    said = await in_thread(talk.say, "one ", "two")
    parts, html = [{"type": "text", "text": "one two"}], ["<p>one two</p>"]
    ending = Ending(RunStatus.COMPLETED, parts, html=html)
    await in_thread(
        lambda: lifecycle.finish_run(talk.work, last_seq=talk.last_seq, events=[], ending=ending)
    )
    end = [message for _, message in sent if message["type"] == "run.frames"][-1]
    for message in (talk.begun(), said, end, created):
        await socket.viewer.on_message(message)
    transcript = shown(await socket.read())
    assert transcript.messages[str(talk.posted.run.message_id)]["parts"] == parts


async def test_a_run_of_which_nothing_was_heard_comes_before_the_next_one(talk: Talk) -> None:
    socket = Socket(talk.user)
    await in_thread(talk.end)
    await socket.viewer.resume(talk.session_id, ResumeMetadata(rev=100))
    await in_thread(talk.ask, talk.session_id)
    await in_thread(talk.end)
    lost = str(talk.posted.run_id)
    await in_thread(talk.ask, talk.session_id)
    await socket.viewer.on_message(talk.begun())
    found = shown(await socket.read())
    assert found.runs[lost].finish_reason == "completed"
    assert socket.viewer.open_runs == [talk.posted.run_id]


async def test_heads_repair_a_lost_end(talk: Talk) -> None:
    socket = Socket(talk.user)
    await socket.viewer.resume(talk.session_id, ResumeMetadata(rev=0))
    await in_thread(talk.say, "all lost")
    await in_thread(talk.end)
    heads = await in_thread(catch_up.read_heads, socket.viewer.sessions, socket.viewer.open_runs)
    await socket.viewer.on_heads(heads)
    transcript = shown(await socket.read())
    assert transcript.runs[str(talk.posted.run_id)].finish_reason == "completed"
    assert socket.viewer.open_runs == []


async def test_an_overflow_is_caught_up_without_a_gap(talk: Talk) -> None:
    socket = Socket(talk.user, max_frames=5)
    await socket.viewer.resume(talk.session_id, ResumeMetadata(rev=0))
    await socket.read()
    for word in "abcdefghij":
        await socket.viewer.on_message(await in_thread(talk.say, word))
    await in_thread(talk.end)
    assert shown(await socket.read()).text(str(talk.posted.run_id)) == "abcdefghij"


async def test_who_only_chats_is_refilled_with_tokens(talk: Talk, settings: Any) -> None:
    settings.REALTIME = {**settings.REALTIME, "replay_events": 2}
    socket, base = Socket(talk.user), BaseClient()
    async with socket.viewer.lock:
        session = await socket.viewer.join(talk.posted.session_id)
        session.open_run(talk.posted.run_id, 1)
    await socket.viewer.on_message(await in_thread(talk.say, "one "))
    await in_thread(talk.say, *"abcdef")
    await in_thread(talk.end)
    heads = await in_thread(catch_up.read_heads, [], socket.viewer.open_runs)
    await socket.viewer.on_heads(heads)
    for frame in await socket.read():
        base.apply(frame)
    assert base.replies == ["one abcdef"]


async def test_a_new_epoch_is_announced(talk: Talk) -> None:
    socket = Socket(talk.user)
    await socket.viewer.resume(talk.session_id, ResumeMetadata(rev=0))
    await in_thread(lifecycle.release_run, talk.posted.run_id, worker=CLAIM.worker)
    again = await in_thread(lifecycle.claim_run, talk.posted.run_id, CLAIM)
    assert again is not None
    talk.work, talk.last_seq = again, 1
    await socket.viewer.on_message(await in_thread(talk.say, "second try"))
    transcript = shown(await socket.read())
    assert transcript.runs[str(talk.posted.run_id)].epoch == 2
    assert transcript.text(str(talk.posted.run_id)) == "second try"


async def test_too_many_changes_ask_for_a_reload(talk: Talk, settings: Any) -> None:
    settings.REALTIME = {**settings.REALTIME, "replay_messages": 1}
    socket = Socket(talk.user)
    await socket.viewer.resume(talk.session_id, ResumeMetadata(rev=0))
    resumed = (await socket.read())[0]
    assert resumed["metadata"]["recovered"] is False


async def test_a_run_that_was_begun_is_owed_its_end(talk: Talk) -> None:
    """A page resumes right after `accepted`, and the run ends before that is read."""
    socket = Socket(talk.user)
    async with socket.viewer.lock:
        session = await socket.viewer.join(talk.posted.session_id)
        session.open_run(talk.posted.run_id, 1)
    await in_thread(talk.end)
    await socket.viewer.resume(talk.session_id, ResumeMetadata(rev=0))
    found = await socket.read()
    assert [frame["type"] for frame in found].count("complete") == 1
    assert socket.viewer.open_runs == []
