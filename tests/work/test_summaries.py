"""What stands in for the beginning of a conversation that is too long for its model."""

import uuid
from typing import Any

import pytest
from agents import Agent
from django.contrib.auth.models import User
from django.test import Client

from conversations.models import ChatSession, Message, Run, SideCall, Summary
from conversations.runs.inputs import Turn, read_path
from conversations.sessions.history import get_history
from conversations.sessions.lists import save_summary
from realtime.process import Process
from realtime.work.background import Cut, describe_cut
from tests.support.agent_site import AgentSite
from tests.support.chats import ask, make_user, session_of, talk
from tests.support.client import ChatClient, event
from tests.support.inprocess import open_chat_here
from tests.support.provider import Call, Gate, Provider, Reply, echo
from tests.support.threads import in_thread

pytestmark = pytest.mark.django_db(transaction=True)

WORDS = "word " * 80


@pytest.fixture
def user(transactional_db: None) -> User:
    return make_user("ada")


def replies(session: ChatSession) -> list[Message]:
    return list(session.messages.filter(role="assistant").order_by("number"))


def next_run(user: User, session: ChatSession, **fields: Any) -> Run:
    posted = ask(user, "and now?", session, **fields)
    return Run.objects.select_related("prompt").get(pk=posted.run_id)


def path_of(run: Run, limit: int = 50) -> tuple[list[str], str | None]:
    """The users' texts that a run's model may be given, newest first, and what is before them."""
    path = read_path(run, run.prompt_id, limit)
    return [turn.text for turn in path.turns if turn.text is not None], path.summary


def test_it_stands_for_all_down_to_its_message(user: User) -> None:
    session = talk(user, ("one", "1"), ("two", "2"), ("three", "3"))
    save_summary(session.pk, replies(session)[1].pk, "They counted.", "m")
    assert path_of(next_run(user, session)) == (["and now?", "three"], "They counted.")


def test_only_on_its_branch(user: User) -> None:
    session = talk(user, ("one", "1"), ("two", "2"), ("three", "3"))
    first, second, _ = replies(session)
    save_summary(session.pk, second.pk, "They counted.", "m")
    branch = next_run(user, session, parent_message_id=str(first.pk))
    assert path_of(branch) == (["and now?", "one"], None)


def test_the_latest_one_counts_and_the_first_of_a_place_stays(user: User) -> None:
    session = talk(user, ("one", "1"), ("two", "2"), ("three", "3"))
    first, second, _ = replies(session)
    save_summary(session.pk, first.pk, "One.", "m")
    save_summary(session.pk, second.pk, "One and two.", "m")
    save_summary(session.pk, second.pk, "Too late.", "m")
    assert path_of(next_run(user, session)) == (["and now?", "three"], "One and two.")


def test_no_more_than_the_limit_is_read(user: User, django_assert_max_num_queries: Any) -> None:
    session = talk(user, *((str(number), "yes") for number in range(30)))
    run = next_run(user, session)
    with django_assert_max_num_queries(1):
        assert path_of(run, limit=10) == (["and now?", "29", "28", "27", "26"], "")


def test_it_is_part_of_the_history(user: User) -> None:
    session = talk(user, ("one", "1"), ("two", "2"))
    before = session_of(ask(user, "three", session))
    save_summary(session.pk, replies(session)[0].pk, "One.", "m")
    session.refresh_from_db()
    assert session.rev == before.rev + 1
    assert session.active_at == before.active_at
    history = get_history(session)
    assert [message.summary for message in history.messages[:4]] == [None, "One.", None, None]
    client = Client()
    client.force_login(user)
    page = client.get(f"/s/{session.pk}/").content.decode()
    assert page.count("Earlier messages were summarised for the model") == 2, "one is a template"


def test_the_newest_of_what_is_too_much_is_summarised() -> None:
    turns = [Turn(uuid.uuid4(), text=f"{number} " + WORDS) for number in range(20)]
    text = describe_cut(Cut(uuid.uuid4(), "Before.", turns), 500)
    assert text.startswith("Summary of what was before: Before.")
    assert "User: 19 word" in text
    assert "User: 0 word" not in text
    assert len(text) / 3.6 < 500


def is_summary_call(call: Call) -> bool:
    return "Summarise the conversation below" in str(call.body)


class TestByTheModel:
    @pytest.fixture(autouse=True)
    def model(self, settings: Any, agent_site: AgentSite) -> None:
        agent_site.serve(Agent(name="assistant", instructions="Be brief."))
        wanted = {"summaries": "model", "context_tokens": "stand-in=600", "titles": "words"}
        settings.REALTIME = {**settings.REALTIME, **wanted}

    @pytest.fixture
    def summary(self, provider: Provider) -> Reply:
        """What the model says when it is asked for a summary."""
        summary = Reply(["They spoke of words."], input_tokens=70)

        def script(call: Call) -> Reply:
            if is_summary_call(call):
                return summary
            return Reply(echo(call).tokens[:3], input_tokens=len(str(call.input)) // 4)

        provider.script = script
        return summary

    async def fill(self, client: ChatClient, session_id: str = "", turns: int = 6) -> str:
        """Talk until the conversation is too long for the model; its session."""
        for number in range(turns):
            accepted = await client.chat(f"{number} {WORDS}", session_id)
            session_id = accepted["session_id"]
            await client.wait_end(accepted["run_id"])
        return session_id

    async def test_between_turns_told_to_open_tabs_and_used(
        self, process: Process, user: User, provider: Provider, summary: Reply
    ) -> None:
        async with open_chat_here(user) as client:
            session_id = await self.fill(client, turns=1)
            await client.resume(session_id)
            await self.fill(client, session_id, turns=5)
            told = await client.wait_for(event("message.updated", summary="They spoke of words."))
            await process.executor.settled()
            accepted = await client.chat("and now?", session_id)
            await client.wait_end(accepted["run_id"])
        row = await Summary.objects.order_by("created_at").afirst()
        assert row
        assert (str(row.message_id), row.model) == (told["metadata"]["message_id"], "stand-in")
        call = await SideCall.objects.afirst()
        assert call
        assert (call.purpose, call.input_tokens) == ("summary", 70)
        users = [item["content"] for item in provider.calls[-1].input if item["role"] == "user"]
        assert users[0].startswith("[The conversation so far, summarised:]\nThey spoke of words.")
        assert "0 word" not in str(provider.calls[-1].input)
        assert [call.refusal for call in provider.calls if call.refusal] == []

    async def test_until_it_is_there_the_beginning_is_left_out(
        self, process: Process, user: User, provider: Provider, summary: Reply
    ) -> None:
        summary.hold = Gate()
        async with open_chat_here(user) as client:
            await self.fill(client, turns=12)
            assert sum(map(is_summary_call, provider.calls)) == 1, "one at a time"
            last = [call for call in provider.calls if not is_summary_call(call)][-1]
            assert "The beginning of this conversation is left out." in str(last.input)
            summary.open()
            await process.executor.settled()
        assert await Summary.objects.acount() == 1

    async def test_one_that_fails_is_tried_after_the_next_reply(
        self, process: Process, user: User, provider: Provider, summary: Reply
    ) -> None:
        summary.error_status = 500
        async with open_chat_here(user) as client:
            session_id = await self.fill(client)
            await process.executor.settled()
            assert await Summary.objects.acount() == 0
            summary.error_status = 0
            await self.fill(client, session_id, turns=1)
            await process.executor.settled()
        assert await Summary.objects.acount() == 1

    async def test_without_a_model_to_ask_the_page_is_told_what_is_left_out(
        self, process: Process, user: User, provider: Provider, summary: Reply, settings: Any
    ) -> None:
        settings.REALTIME = {**settings.REALTIME, "summaries": "off"}
        async with open_chat_here(user) as client:
            session_id = await self.fill(client)
            await client.resume(session_id, rev=0)
            await client.wait_for(event("message.updated", summary=""))
        assert not any(map(is_summary_call, provider.calls))
        session = await ChatSession.objects.aget()
        history = await in_thread(get_history, session)
        assert [message.summary for message in history.messages if message.summary is not None]
