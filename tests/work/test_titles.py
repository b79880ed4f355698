"""What a conversation is called, and by whom."""

from datetime import timedelta
from typing import Any

import pytest
from agents import Agent
from django.contrib.auth.base_user import AbstractBaseUser

from agentsite import tour
from conversations.errors import AgentSiteError
from conversations.models import ChatSession, Run, SideCall, TitleSource
from conversations.sessions.lists import (
    begin_upkeep,
    end_upkeep,
    first_words,
    rename_session,
    set_model_title,
)
from realtime.process import Process
from realtime.work.background import clean_answer
from realtime.work.executor import DueUpkeep, Upkeep
from tests.support.agent_site import AgentSite
from tests.support.chats import ask, session_of, talk
from tests.support.client import event
from tests.support.inprocess import make_user, open_chat_here
from tests.support.provider import Call, Gate, Provider, Reply, echo
from tests.support.threads import in_thread

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def user(transactional_db: None) -> AbstractBaseUser:
    return make_user("ada")


def rename(user: Any, session: ChatSession, title: str) -> ChatSession:
    return rename_session(user=user, session_id=str(session.pk), title=title)


def test_a_conversation_begins_with_its_first_words(user: AbstractBaseUser) -> None:
    session = session_of(ask(user, "  Tell me\n of herons  "))
    assert (session.title, session.title_source) == ("Tell me of herons", TitleSource.WORDS)
    assert first_words("word " * 50).endswith("word word…")


def test_the_users_title_stays(user: AbstractBaseUser) -> None:
    session = talk(user, ("hi", "hello"))
    renamed = rename(user, session, "Mine\x00 ")
    assert not set_model_title(session.pk, "The model's")
    session.refresh_from_db()
    assert (session.title, session.title_source) == ("Mine\ufffd", TitleSource.USER)
    assert session.rev == renamed.rev


def test_the_models_title_replaces_first_words_once(user: AbstractBaseUser) -> None:
    session = talk(user, ("hi", "hello"))
    before = session.active_at
    assert set_model_title(session.pk, "Greetings")
    assert not set_model_title(session.pk, "Once more")
    session.refresh_from_db()
    assert (session.title, session.title_source) == ("Greetings", TitleSource.MODEL)
    assert session.active_at == before, "a new title is no activity"


@pytest.mark.parametrize("title", ["", " \n ", "\t"])
def test_a_title_has_words(user: AbstractBaseUser, title: str) -> None:
    session = talk(user, ("hi", "hello"))
    with pytest.raises(AgentSiteError, match="bad_frame"):
        rename(user, session, title)
    session.refresh_from_db()
    assert session.title == "hi"


def test_a_foreign_conversation_is_not_renamed(user: AbstractBaseUser) -> None:
    session = talk(user, ("hi", "hello"))
    with pytest.raises(AgentSiteError, match="not_found"):
        rename(make_user("eve"), session, "Eve's")


async def test_every_tab_is_told(process: Process, user: AbstractBaseUser) -> None:
    session = await in_thread(talk, user, ("hi", "hello"))
    async with open_chat_here(user) as one, open_chat_here(user) as two:
        await one.resume(str(session.pk), rev=0)
        renamed = await in_thread(rename, user, session, "Renamed")
        for tab in (one, two):
            frame = await tab.wait_for(event("session.updated", title="Renamed"))
            assert frame["session_id"] == str(session.pk)
            assert frame["metadata"]["rev"] == renamed.rev


@pytest.mark.parametrize(
    ("answer", "title"),
    [
        ("Herons by the river", "Herons by the river"),
        ('\n**Title: "Herons."**\n\nI hope this helps!', "Herons"),
        ("", ""),
        ("I am sorry, " * 20, ""),
    ],
)
def test_what_models_put_around_a_title_is_left_out(answer: str, title: str) -> None:
    assert clean_answer(answer) == title


def test_one_process_at_a_time_looks_after_a_session(user: AbstractBaseUser) -> None:
    session = talk(user, ("hi", "hello"))
    assert begin_upkeep(session.pk, timedelta(minutes=1))
    assert not begin_upkeep(session.pk, timedelta(minutes=1))
    end_upkeep(session.pk)
    assert begin_upkeep(session.pk, timedelta(seconds=-1))
    assert begin_upkeep(session.pk, timedelta(minutes=1)), "the one before has not come back"


def is_title_call(call: Call) -> bool:
    return "Give the conversation below a title" in str(call.body)


class TestByTheModel:
    @pytest.fixture(autouse=True)
    def model(self, settings: Any, agent_site: AgentSite) -> None:
        agent_site.serve(Agent(name="assistant", instructions="Be brief."), tour.ENTRY.agent)
        settings.REALTIME = {**settings.REALTIME, "titles": "model"}

    @pytest.fixture
    def title(self, provider: Provider) -> Reply:
        """What the model says when it is asked for a title."""
        title = Reply(["Herons ", "at the mill"], input_tokens=50)
        provider.script = lambda call: title if is_title_call(call) else echo(call)
        return title

    async def test_after_the_first_reply(
        self, process: Process, user: AbstractBaseUser, provider: Provider, title: Reply
    ) -> None:
        async with open_chat_here(user) as client, open_chat_here(user) as other:
            accepted = await client.chat("Tell me of herons")
            for tab in (client, other):
                await tab.wait_for(event("session.updated", title="Herons at the mill"))
            again = await client.chat("More", accepted["session_id"])
            await client.wait_end(again["run_id"])
        session = await ChatSession.objects.aget()
        assert session.title_source == TitleSource.MODEL
        call = await SideCall.objects.aget()
        assert (call.purpose, call.input_tokens, call.model) == ("title", 50, "stand-in")
        assert "Tell me of herons" in str(provider.calls[1].input)
        assert sum(map(is_title_call, provider.calls)) == 1

    async def test_never_in_the_way(
        self, process: Process, user: AbstractBaseUser, provider: Provider, title: Reply
    ) -> None:
        title.hold = Gate()
        async with open_chat_here(user) as client:
            accepted = await client.chat("one")
            await client.wait_end(accepted["run_id"])
            await provider.until(lambda p: any(map(is_title_call, p.calls)))
            second = await client.chat("two", accepted["session_id"])
            assert (await client.wait_end(second["run_id"]))["content"] == "You said: two"
            title.open()
            await client.wait_for(event("session.updated", title="Herons at the mill"))

    async def test_the_user_was_faster(
        self, process: Process, user: AbstractBaseUser, provider: Provider, title: Reply
    ) -> None:
        title.hold = Gate()
        async with open_chat_here(user) as client:
            accepted = await client.chat("one")
            await provider.until(lambda p: any(map(is_title_call, p.calls)))
            session = await ChatSession.objects.aget()
            await in_thread(rename, user, session, "Mine")
            title.open()
            await process.executor.settled()
        session = await ChatSession.objects.aget()
        assert (session.title, session.upkeep_until) == ("Mine", None)
        assert await SideCall.objects.acount() == 1, "it has cost something all the same"
        assert accepted["session_id"] == str(session.pk)

    async def test_a_title_that_fails_is_tried_after_the_next_reply(
        self, process: Process, user: AbstractBaseUser, provider: Provider
    ) -> None:
        provider.queue(Reply(["one"]), Reply(error_status=500))
        async with open_chat_here(user) as client:
            accepted = await client.chat("one")
            await provider.until(lambda p: len(p.calls) == 2)
            await process.executor.settled()
            provider.queue(Reply(["two"]), Reply(["Counting"]))
            await client.chat("two", accepted["session_id"])
            await client.wait_for(event("session.updated", title="Counting"))

    @pytest.mark.parametrize(
        ("reply", "is_repeated"),
        [
            (Reply(error_status=503), True),
            (Reply(error_status=429), True),
            (Reply(error_status=401), False),
            (Reply(["Herons"], cut_after=1), False),
            (Reply(["Herons"], finish_reason="content_filter"), False),
        ],
    )
    async def test_only_what_cost_nothing_is_repeated(
        self,
        process: Process,
        user: AbstractBaseUser,
        provider: Provider,
        reply: Reply,
        is_repeated: bool,
    ) -> None:
        await in_thread(talk, user, ("hi", "hello"))
        provider.queue(reply)
        upkeep = Upkeep(process.executor._provider)  # type: ignore[attr-defined]
        due = DueUpkeep(wants_title=True, wants_summary=False)
        assert await upkeep.tend(await Run.objects.aget(), due) is not is_repeated
        assert len(provider.calls) == 1

    async def test_a_script_is_not_asked(
        self, process: Process, user: AbstractBaseUser, provider: Provider
    ) -> None:
        async with open_chat_here(user) as client:
            accepted = await client.chat("hi", agent="tour")
            await client.wait_end(accepted["run_id"])
            await process.executor.settled()
        assert provider.calls == []
        assert (await ChatSession.objects.aget()).title_source == TitleSource.WORDS
