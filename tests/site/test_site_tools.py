"""The site's agent at work on a person's own conversations."""

import json
from datetime import datetime
from typing import Any

import pytest
from agents import Agent
from django.contrib.auth.models import User

from agentsite import agents as site_agents
from agentsite.site_tools import archive_conversations, period_start
from conversations.errors import AgentSiteError
from conversations.models import ChatSession
from conversations.queries import list_sessions
from conversations.sessions.lists import archive_sessions
from realtime.process import Process
from tests.support.agent_site import AgentSite
from tests.support.chats import make_user, talk
from tests.support.client import event
from tests.support.inprocess import open_chat_here
from tests.support.provider import Reply, ToolCall
from tests.support.threads import in_thread


def seed(ada: Any) -> list[str]:
    """Two conversations of the user, one of another; the ids of the two."""
    talk(make_user("eve"), ("Tides of hers", "private"))
    return [str(talk(ada, (name, "The moon pulls.")).pk) for name in ("Tides", "Dinner")]


async def call_tool(
    site: AgentSite, ada: User, name: str, **arguments: Any
) -> tuple[dict[str, Any], Any]:
    """Let the site's agent call a tool: the metadata of its end, and what the model was told."""
    site.serve(site_agents.site)
    site.provider.queue(
        Reply(tool_calls=[ToolCall(name, json.dumps(arguments))]), Reply(["There ", "you are."])
    )
    async with open_chat_here(ada) as client:
        accepted = await client.chat("Please")
        finished = await client.wait_for(event("tool.finished"))
        assert (await client.wait_end(accepted["run_id"]))["content"] == "There you are."
    metadata: dict[str, Any] = finished["metadata"]
    return metadata, site.provider.calls[-1].input


async def test_counting(process: Process, agent_site: AgentSite, ada: User) -> None:
    await in_thread(seed, ada)
    end, told = await call_tool(agent_site, ada, "count_conversations", period="this week")
    # The one that asks counts too.
    assert end["summary"] == "Counted 3 conversations"
    assert end["duration_ms"] >= 0
    assert json.loads(end["output"])["conversations"] == 3
    assert end["output"] in [item.get("content", item.get("output")) for item in told]


async def test_searching_finds_ones_own(process: Process, agent_site: AgentSite, ada: User) -> None:
    tides, _ = await in_thread(seed, ada)
    end, _ = await call_tool(agent_site, ada, "search_conversations", words="tides")
    assert end["summary"] == "Found 1 conversation"
    assert tides in end["output"]
    assert "hers" not in end["output"]


async def test_reading_a_foreign_one(process: Process, agent_site: AgentSite, ada: User) -> None:
    await in_thread(seed, ada)
    foreign = await ChatSession.objects.exclude(owner_id=ada.pk).aget()
    for session_id in (str(foreign.pk), "nonsense"):
        end, _ = await call_tool(agent_site, ada, "read_conversation", session_id=session_id)
        assert "There is no such conversation." in end["output"]
        assert "private" not in end["output"]


async def test_reading_ones_own(process: Process, agent_site: AgentSite, ada: User) -> None:
    tides, _ = await in_thread(seed, ada)
    end, _ = await call_tool(agent_site, ada, "read_conversation", session_id=tides)
    assert end["summary"] == "Read “Tides”"
    assert "The moon pulls." in end["output"]


@pytest.mark.django_db
class TestArchiving:
    def test_it_needs_approval(self) -> None:
        assert archive_conversations.needs_approval is True

    def test_they_leave_the_list_and_stay_readable(self, ada: User) -> None:
        tides, dinner = seed(ada)
        titles = archive_sessions(user=ada, session_ids=[dinner, tides, dinner])
        assert sorted(titles) == ["Dinner", "Tides"]
        assert list(list_sessions(ada)) == []
        assert ChatSession.objects.filter(owner_id=ada.pk).exclude(archived_at=None).count() == 2

    def test_again_changes_nothing(self, ada: User) -> None:
        tides, _ = seed(ada)
        archive_sessions(user=ada, session_ids=[tides])
        before = ChatSession.objects.get(pk=tides)
        archive_sessions(user=ada, session_ids=[tides])
        after = ChatSession.objects.get(pk=tides)
        assert before.archived_at == after.archived_at

    def test_all_or_none(self, ada: User) -> None:
        tides, _ = seed(ada)
        foreign = ChatSession.objects.exclude(owner_id=ada.pk).get()
        with pytest.raises(AgentSiteError, match="not_found"):
            archive_sessions(user=ada, session_ids=[tides, str(foreign.pk)])
        assert not ChatSession.objects.exclude(archived_at=None).exists()


async def test_an_archived_one_leaves_every_list(process: Process, ada: User) -> None:
    tides, _ = await in_thread(seed, ada)
    async with open_chat_here(ada) as client:
        await in_thread(archive_sessions, user=ada, session_ids=[tides])
        frame = await client.wait_for(event("session.updated"))
    assert frame["session_id"] == tides
    assert frame["metadata"]["archived"] is True


@pytest.mark.parametrize(
    ("period", "start"),
    [
        ("today", "2026-03-19"),
        ("this week", "2026-03-16"),
        ("this month", "2026-03-01"),
        ("this year", "2026-01-01"),
    ],
)
def test_when_a_period_begins(period: Any, start: str) -> None:
    thursday = datetime.fromisoformat("2026-03-19T17:30:00+00:00")
    begun = period_start(period, thursday)
    assert begun == datetime.fromisoformat(f"{start}T00:00:00+00:00")


def test_ever_has_no_beginning() -> None:
    assert period_start("ever", datetime.fromisoformat("2026-03-19T17:30:00+00:00")) is None


def test_every_agent_can_be_made() -> None:
    made = [site_agents.assistant, site_agents.team, site_agents.site]
    assert all(isinstance(agent, Agent) for agent in made)
