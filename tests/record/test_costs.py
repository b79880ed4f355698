"""Each model call costs what its own model costs, wherever the cost of a reply is shown."""

import asyncio
import csv
import io
import json
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
from agents import Agent, Usage, function_tool
from agents.testing import ModelStep, ScriptedModel, assistant_message, function_call
from django.contrib.auth.models import User
from django.test import AsyncClient, Client

from conversations.changes import write_events
from conversations.models import Run
from conversations.review import figures
from conversations.runs import lifecycle
from realtime.process import Process
from tests.support.agent_site import Serve
from tests.support.chats import ask, begin, make_user
from tests.support.client import event
from tests.support.downloads import download
from tests.support.inprocess import open_chat_here
from tests.support.threads import in_thread

MILLION = 1_000_000


@pytest.fixture(autouse=True)
def prices(settings: Any) -> None:
    settings.AGENT_MODEL = "cheap"
    # A call of these takes more than a day allows.
    settings.REALTIME = {**settings.REALTIME, "tokens_per_day": 0}
    settings.MODEL_PRICES = {
        name: {"input": price, "output": price, "cached_input": None}
        for name, price in (("cheap", "1"), ("dear", "100"))
    }
    # These replies take millions of tokens.
    settings.REALTIME = {**settings.REALTIME, "tokens_per_day": 0, "site_tokens_per_day": 0}


def step(*output: Any) -> ModelStep:
    """A model call of a million tokens."""
    usage = Usage(requests=1, input_tokens=MILLION, output_tokens=0, total_tokens=MILLION)
    return ModelStep(output=output, usage=usage)


def model(name: str, *steps: ModelStep) -> ScriptedModel:
    """A model of that name."""
    made = ScriptedModel(steps)
    made.model = name  # type: ignore[attr-defined]
    return made


def expert_of(name: str) -> Agent[Any]:
    return Agent(name="expert", model=model(name, step(assistant_message("42"))))


async def reply(ada: User) -> Run:
    async with open_chat_here(ada) as client:
        accepted = await client.chat("How many?")
        await client.wait_end(accepted["run_id"])
    return await Run.objects.aget()


async def test_a_worker_claims_with_the_model_of_the_agent(
    process: Process, serve_agents: Serve, ada: User
) -> None:
    """Before it is asked: the context is measured, and a lost reply is priced, by that model."""
    free = asyncio.Event()

    class Waiting(ScriptedModel):
        model = "dear"

        async def stream_response(self, *args: Any, **kwargs: Any) -> Any:
            await free.wait()
            async for said in super().stream_response(*args, **kwargs):
                yield said

    expert = Agent[Any](name="dear", model=Waiting([step(assistant_message("42"))]))
    serve_agents(Agent(name="plain"), expert)
    async with open_chat_here(ada) as client:
        accepted = await client.chat("hi", agent="dear")
        await client.wait_for(event("run.started"))
        assert (await Run.objects.aget()).model == "dear"
        free.set()
        await client.wait_end(accepted["run_id"])


def serve_dear(serve: Serve) -> None:
    """One agent, which has the dear model."""
    serve(expert_of("dear"))


def serve_handoff(serve: Serve) -> None:
    """An agent that hands over to that one after a call of its own, cheap model."""
    hand_over = step(function_call("transfer_to_expert", {}, call_id="call_1"))
    desk = Agent(name="desk", model=model("cheap", hand_over), handoffs=[expert_of("dear")])
    serve(desk)


@pytest.mark.parametrize(("serve", "cost"), [(serve_dear, 100), (serve_handoff, 101)])
async def test_a_reply_costs_what_its_models_cost_wherever_that_is_shown(
    process: Process,
    serve_agents: Serve,
    ada: User,
    async_client: AsyncClient,
    serve: Callable[[Serve], None],
    cost: int,
) -> None:
    serve(serve_agents)
    run = await reply(ada)
    assert (run.model, run.cost) == ("dear", Decimal(cost))
    if serve is serve_handoff:
        assert (run.agent, run.context_model) == ("desk", "cheap"), "the first input was the desk's"
    share = (await in_thread(figures.read_figures, 1)).shares[0]
    assert (share.model, share.cost) == ("dear", Decimal(cost))
    await async_client.aforce_login(ada)
    await check_api(async_client, f"/api/sessions/{run.session_id}/", cost)
    staff = Client()
    await in_thread(staff.force_login, await in_thread(make_admin))
    await in_thread(check_admin, staff, run, cost)


async def check_api(client: AsyncClient, session: str, cost: int) -> None:
    """The session's usage, and each format of its export that tells of costs."""
    assert Decimal((await client.get(session)).json()["usage"]["cost"]) == cost
    as_json = await download(client, f"{session}transcript/")
    told = json.loads(as_json.body)["messages"][-1]
    assert (told["model"], Decimal(told["cost"])) == ("dear", Decimal(cost))
    as_csv = await download(client, f"{session}transcript/?export_format=csv")
    line = list(csv.DictReader(io.StringIO(as_csv.text.removeprefix("\ufeff"))))[-1]
    assert (line["model"], Decimal(line["cost"])) == ("dear", Decimal(cost))


def check_admin(staff: Client, run: Run, cost: int) -> None:
    """The list of replies, the reply on its session's page, the list of sessions, the figures."""

    def show(address: str) -> str:
        answer = staff.get(address, follow=True)
        assert answer.status_code == 200, address
        return answer.content.decode()

    runs, sessions = "/admin/conversations/run/", "/admin/conversations/chatsession/"
    listed = show(runs)
    assert f'<td class="field-cost">{cost}.000000</td>' in listed
    assert '<td class="field-model">dear</td>' in listed
    page = show(f"{runs}{run.pk}/change/")
    assert f"<td>{cost}.000000</td>" in page
    assert f"{cost}.0000 USD" in page
    assert f">{cost}.0000</span>" in show(sessions)
    assert f"<td>{cost}.00</td>" in show(f"{sessions}figures/")


def make_admin() -> User:
    return make_user("root", is_staff=True, is_superuser=True)


async def test_an_agent_as_a_tool_costs_what_its_model_costs(
    process: Process, serve_agents: Serve, ada: User
) -> None:
    asking = step(function_call("expert", {"input": "How many?"}, call_id="call_1"))
    desk = model("cheap", asking, step(assistant_message("42, they say.")))
    serve_agents(Agent(name="desk", model=desk, tools=[expert_of("dear").as_tool("expert", "")]))
    run = await reply(ada)
    assert (run.model, run.cost) == ("cheap", Decimal(102))


@pytest.mark.parametrize("name", ["unpriced", None])
async def test_a_price_that_is_not_known_makes_the_cost_unknown(
    process: Process, serve_agents: Serve, ada: User, name: str | None
) -> None:
    """A model without a name is none of the price list, nor that of the settings."""
    expert = expert_of("unpriced")
    if name is None:
        del expert.model.model  # type: ignore[union-attr]
    hand_over = step(function_call("transfer_to_expert", {}, call_id="call_1"))
    serve_agents(Agent(name="desk", model=model("cheap", hand_over), handoffs=[expert]))
    run = await reply(ada)
    assert (run.model, run.cost) == (name or "ScriptedModel", None)
    assert run.input_tokens == 2 * MILLION


async def test_a_reply_that_asked_costs_what_it_took_before_and_after(
    process: Process, serve_agents: Serve, ada: User
) -> None:
    @function_tool(needs_approval=True)
    async def count() -> str:
        """Count the things."""
        return "42"

    asking = step(function_call("count", {}, call_id="call_2"))
    said = step(assistant_message("42"))
    expert = Agent[Any](name="expert", model=model("dear", asking, said), tools=[count])
    hand_over = step(function_call("transfer_to_expert", {}, call_id="call_1"))
    serve_agents(Agent(name="desk", model=model("cheap", hand_over), handoffs=[expert]))
    async with open_chat_here(ada) as client:
        accepted = await client.chat("How many?")
        asked = (await client.wait_for(event("input.requested")))["metadata"]
        waiting = await Run.objects.aget()
        assert (waiting.model, waiting.cost) == ("dear", Decimal(101))
        answer = {"request_id": asked["request_id"], "decision": "approve"}
        await client.send(
            {"type": "respond", "session_id": accepted["session_id"], "metadata": answer}
        )
        await client.wait_end(accepted["run_id"])
    run = await Run.objects.aget()
    assert (run.model, run.cost) == ("dear", Decimal(201))


@pytest.mark.django_db
def test_a_lost_reply_that_changed_its_agent_has_no_known_cost(settings: Any) -> None:
    settings.MODEL_PRICES["scripted"] = settings.MODEL_PRICES["dear"]
    claimed = begin(ask(make_user("ann"), "hi"), "abc")
    write_events(claimed.run, [(3, "agent.changed", {"name": "expert"})])
    Run.objects.update(last_seq=3)
    lifecycle.release_run(claimed.run.pk, worker="test")
    run = Run.objects.get()
    assert run.output_tokens == 1
    assert run.cost is None
