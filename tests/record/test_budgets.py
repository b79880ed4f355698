"""What a day allows ends a reply before the call that would go above it, in every process."""

from typing import Any

import pytest
from agents import Agent, AgentHooks, Usage, function_tool
from agents.testing import ModelStep, ScriptedModel, assistant_message, function_call
from django.contrib.auth.models import User

from conversations.errors import AgentSiteError, ErrorCode
from conversations.models import Run, RunStatus, SiteUsage, UsageSource, UserUsage
from conversations.people.accounts import create_guest
from conversations.runs.lifecycle import release_run
from conversations.runs.usage import ChatLimits, TokenUsage, check_budget, count_spent
from realtime.process import Process
from tests.support.agent_site import Serve
from tests.support.chats import CLAIM, ask, begin, finish, make_user
from tests.support.inprocess import open_chat_here
from tests.support.threads import in_thread

pytestmark = pytest.mark.django_db(transaction=True)

CALL = 1_000


def step(*output: Any) -> ModelStep:
    """A model call of `CALL` tokens."""
    usage = Usage(requests=1, input_tokens=CALL - 1, output_tokens=1, total_tokens=CALL)
    return ModelStep(output=output, usage=usage)


def spent(user: Any) -> int:
    return sum(UserUsage.objects.filter(user=user).values_list("tokens", flat=True))


def spent_by_all() -> int:
    return sum(SiteUsage.objects.values_list("tokens", flat=True))


class Looking:
    """An agent that looks three times and then says so; notes what is counted meanwhile."""

    def __init__(self, user: Any) -> None:
        self.seen: list[int] = []

        @function_tool
        async def look() -> str:
            """Look once more."""
            self.seen.append(await in_thread(spent, user))
            return "nothing yet"

        looks = [step(function_call("look", {}, call_id=f"call_{n}")) for n in range(3)]
        self.model = ScriptedModel([*looks, step(assistant_message("Done."))])
        self.agent = Agent[Any](name="looker", model=self.model, tools=[look])


class Noticing(AgentHooks[Any]):
    """Hooks of a site's own."""

    def __init__(self) -> None:
        self.calls = 0

    async def on_llm_end(self, *args: Any) -> None:
        self.calls += 1


async def reply(user: User) -> Run:
    async with open_chat_here(user) as client:
        accepted = await client.chat("Look!")
        await client.wait_end(accepted["run_id"])
    return await Run.objects.select_related("reply").aget(pk=accepted["run_id"])


@pytest.mark.parametrize("setting", ["tokens_per_day", "site_tokens_per_day"])
async def test_a_run_ends_before_the_call_above_its_budget(
    process: Process, serve_agents: Serve, ada: User, settings: Any, setting: str
) -> None:
    settings.REALTIME = {**settings.REALTIME, setting: CALL + 1}
    looking = Looking(ada)
    serve_agents(looking.agent)
    run = await reply(ada)
    code = "limit_tokens" if setting == "tokens_per_day" else "limit_site"
    assert (run.status, run.error_code, run.reason) == (RunStatus.FAILED, code, "limit")
    # Two calls: overspent by less than one.
    assert (await in_thread(spent, ada), await in_thread(spent_by_all)) == (2 * CALL, 2 * CALL)
    assert run.input_tokens == 2 * (CALL - 1)
    assert [part["type"] for part in run.reply.parts] == ["tool", "tool"]


@pytest.mark.parametrize("has_hooks", [False, True])
async def test_an_agent_that_is_a_tool_is_checked_before_each_of_its_calls(
    process: Process, serve_agents: Serve, ada: User, settings: Any, has_hooks: bool
) -> None:
    """It would make four; the call that asked for it and two of its own are above the limit."""
    settings.REALTIME = {**settings.REALTIME, "tokens_per_day": 2 * CALL + 1}
    looking, noticing = Looking(ada), Noticing()
    looking.agent.hooks = noticing if has_hooks else None
    asking = ScriptedModel([step(function_call("looker", {"input": "Look!"}, call_id="call_a"))])
    tool = looking.agent.as_tool("looker", "Looks.")
    serve_agents(Agent[Any](name="desk", model=asking, tools=[tool]))
    run = await reply(ada)
    assert (run.status, run.error_code) == (RunStatus.FAILED, "limit_tokens")
    assert await in_thread(spent, ada) == 3 * CALL
    assert looking.seen == [CALL, 2 * CALL]
    assert noticing.calls == (2 if has_hooks else 0)


async def test_each_call_counts_when_the_next_begins(
    process: Process, serve_agents: Serve, ada: User
) -> None:
    """So that the runs of a user in other processes know of it."""
    looking = Looking(ada)
    serve_agents(looking.agent)
    run = await reply(ada)
    assert run.status == RunStatus.COMPLETED
    assert looking.seen == [0, CALL, 2 * CALL]
    assert await in_thread(spent, ada) == 4 * CALL


async def test_a_queued_run_is_checked_when_it_begins(
    process: Process, serve_agents: Serve, ada: User, settings: Any
) -> None:
    looking = Looking(ada)
    serve_agents(looking.agent)
    async with open_chat_here(ada) as client:
        accepted = await client.chat("Look!")
        queued = await client.chat("Again!", accepted["session_id"])
        settings.REALTIME = {**settings.REALTIME, "tokens_per_day": CALL}
        end = await client.wait_end(queued["run_id"])
    assert end["metadata"]["code"] == "limit_tokens"
    assert (await Run.objects.aget(pk=queued["run_id"])).input_tokens in (0, None)


def refused(user: Any, **limits: int) -> str:
    try:
        check_budget(user.pk, ChatLimits(**limits))
    except AgentSiteError as exc:
        return exc.code
    return ""


def spend(user: Any, tokens: int) -> None:
    usage = TokenUsage(tokens, 0, source=UsageSource.MEASURED)
    finish(ask(user, "hi"), "Hello", usage=usage)


def test_a_guest_has_less(transactional_db: None) -> None:
    guest, ann = create_guest(), make_user("ann")
    for user in (guest, ann):
        spend(user, 60)
    limits = {"tokens_a_day": 100, "guest_tokens_a_day": 50}
    assert (refused(guest, **limits), refused(ann, **limits)) == (ErrorCode.LIMIT_TOKENS, "")


def test_a_crowd_of_guests_ends_at_the_ceiling_of_the_site(transactional_db: None) -> None:
    for _ in range(3):
        spend(create_guest(), 40)
    newcomer = create_guest()
    assert refused(newcomer, guest_tokens_a_day=50, site_tokens_a_day=121) == ""
    assert refused(newcomer, guest_tokens_a_day=50, site_tokens_a_day=120) == ErrorCode.LIMIT_SITE


def test_nothing_is_counted_twice_or_lost_with_its_worker(transactional_db: None) -> None:
    ann = make_user("ann")
    posted = ask(ann, "hi")
    begin(posted)
    for tokens in (30, 30, 50):
        count_spent(posted.run_id, tokens)
    assert spent(ann) == 50
    Run.objects.update(lease_until=None)
    release_run(posted.run_id, worker=CLAIM.worker)
    finish(posted, "Hello", usage=TokenUsage(20, 0, source=UsageSource.MEASURED))
    assert (spent(ann), spent_by_all()) == (70, 70)
    assert Run.objects.get().ended_at is not None
