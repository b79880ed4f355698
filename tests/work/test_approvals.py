"""A tool call that needs approval: asked, answered, expired, stopped, gone on with."""

from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from django.contrib.auth.models import User
from django.db.models.functions import Now
from django.test import Client

from conversations import queries
from conversations.models import Approval, ChatSession, Run, RunState, RunStatus
from conversations.runs import states
from conversations.sessions import history
from realtime.process import Process
from realtime.work.sdk import requests_of
from tests.support.approvals import ask, erase, outputs, requests, respond, times_run
from tests.support.client import event, frame_of
from tests.support.inprocess import make_user, open_chat_here
from tests.support.provider import Provider, Reply, ToolCall
from tests.support.threads import in_thread

DONE = Reply(["Done", "."])


@pytest.fixture(params=["chat", "responses"])
def provider(request: pytest.FixtureRequest, settings: Any, provider: Provider) -> Provider:
    """The stand-in behind agents with tools, by each of its APIs."""
    settings.AGENT_API = request.param
    settings.AGENTS = "tests.support.drill_agents"
    settings.OPENAI_BASE_URL = provider.base_url
    settings.REALTIME = {**settings.REALTIME, "head_interval_s": 0.3, "sweep_s": 600}
    return provider


@pytest.fixture
async def ada(transactional_db: None, process: Process) -> User:
    return await in_thread(make_user, "ada")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Gets a line for each time that `erase` was run."""
    return tmp_path / "file"


async def test_an_approved_call_is_made_and_the_reply_goes_on(
    provider: Provider, ada: User, path: Path
) -> None:
    async with open_chat_here(ada) as client:
        accepted = await ask(client, provider, erase(path))
        [asked] = requests(client, accepted["run_id"])
        assert asked["tool"] == "erase"
        assert asked["arguments"] == f'{{"path": "{path}"}}'
        assert asked["description"] == "Erase a file."
        assert times_run(path) == 0
        provider.queue(DONE)
        told = await respond(client, accepted, asked["request_id"], "approve")
        assert (told["decision"], told["by"], told["duplicate"]) == ("approve", "ada", False)
        end = await client.wait_end(accepted["run_id"])
    assert times_run(path) == 1
    assert end["content"] == "I will erase it.\n\nDone."
    assert end["metadata"]["epoch"] == 1
    assert end["metadata"]["usage"]["input_tokens"] == 20
    run = await Run.objects.select_related("reply").aget()
    assert (run.status, run.claim, run.epoch) == (RunStatus.COMPLETED, 2, 1)
    assert [part["type"] for part in run.reply.parts] == ["text", "approval", "tool", "text"]
    assert [call.refusal for call in provider.calls] == ["", ""]
    assert not await RunState.objects.aexists()


async def test_a_rejection_reaches_the_model_with_what_the_user_said(
    provider: Provider, ada: User, path: Path
) -> None:
    async with open_chat_here(ada) as client:
        accepted = await ask(client, provider, erase(path))
        [asked] = requests(client, accepted["run_id"])
        provider.queue(Reply(["Then not."]))
        await respond(client, accepted, asked["request_id"], "reject", message="I need it")
        end = await client.wait_end(accepted["run_id"])
    assert end["content"] == "I will erase it.\n\nThen not."
    assert times_run(path) == 0
    assert outputs(provider) == ["The user did not allow this call. The user said: I need it"]


async def test_a_reply_goes_on_when_all_its_requests_are_answered(
    provider: Provider, ada: User, path: Path, tmp_path: Path
) -> None:
    kept = tmp_path / "kept"
    calls = erase(path), ToolCall("look_up", '{"word": "mill"}'), erase(kept)
    async with open_chat_here(ada) as client, open_chat_here(ada) as other:
        accepted = await ask(client, provider, *calls)
        await other.resume(accepted["session_id"], rev=0)
        first, second = requests(client, accepted["run_id"])
        await respond(other, accepted, second["request_id"], "reject")
        resolved = await client.wait_for(event("input.resolved"))
        assert resolved["metadata"]["request_id"] == second["request_id"]
        assert (await Run.objects.aget()).status == RunStatus.AWAITING_INPUT
        assert len(provider.calls) == 1
        provider.queue(DONE)
        await respond(client, accepted, first["request_id"], "approve")
        ends = [await tab.wait_end(accepted["run_id"]) for tab in (client, other)]
    assert ends[0] == ends[1]
    assert (times_run(path), times_run(kept)) == (1, 0)
    assert sorted(outputs(provider)) == [
        f"Erased {path}.",
        "The user did not allow this call.",
        "“mill” was found.",
    ]
    assert provider.calls[-1].refusal == ""


async def test_a_reply_may_ask_again(provider: Provider, ada: User, path: Path) -> None:
    async with open_chat_here(ada) as client:
        accepted = await ask(client, provider, erase(path))
        for turn in (1, 2):
            await client.wait_until(lambda: len(requests(client, accepted["run_id"])) == turn)  # noqa: B023
            asked = requests(client, accepted["run_id"])[-1]
            provider.queue(Reply(["And again."], tool_calls=[erase(path)]) if turn == 1 else DONE)
            await respond(client, accepted, asked["request_id"], "approve")
        end = await client.wait_end(accepted["run_id"])
    assert times_run(path) == 2
    assert end["content"] == "I will erase it.\n\nAnd again.\n\nDone."
    assert end["metadata"]["usage"]["input_tokens"] == 30


async def test_the_agent_that_was_handed_over_to_goes_on(
    provider: Provider, ada: User, path: Path
) -> None:
    provider.queue(Reply(tool_calls=[ToolCall("transfer_to_specialist")]))
    async with open_chat_here(ada) as client:
        accepted = await ask(client, provider, erase(path))
        [asked] = requests(client, accepted["run_id"])
        provider.queue(DONE)
        await respond(client, accepted, asked["request_id"], "approve")
        await client.wait_end(accepted["run_id"])
        changes = client.transcript.told("agent.changed")
    assert [change["name"] for change in changes] == ["specialist"]
    assert times_run(path) == 1


async def test_the_first_answer_holds(
    provider: Provider, ada: User, path: Path, tmp_path: Path
) -> None:
    """While another request of the reply is open, while the reply goes on, and after its end."""
    kept = tmp_path / "kept"
    async with open_chat_here(ada) as client, open_chat_here(ada) as other:
        accepted = await ask(client, provider, erase(path), erase(kept))
        asked, open_one = requests(client, accepted["run_id"])
        provider.queue(DONE)
        first = await respond(client, accepted, asked["request_id"], "approve")
        again = await respond(other, accepted, asked["request_id"], "reject")
        assert again == first | {"duplicate": True}
        last = await respond(client, accepted, open_one["request_id"], "reject")
        again = await respond(other, accepted, open_one["request_id"], "approve")
        assert again == last | {"duplicate": True}
        await client.wait_end(accepted["run_id"])
        late = await respond(other, accepted, asked["request_id"], "approve")
        assert late == first | {"duplicate": True}
    assert (times_run(path), times_run(kept)) == (1, 0)
    assert len(provider.calls) == 2


async def test_nobody_answers_for_another(provider: Provider, ada: User, path: Path) -> None:
    eve = await in_thread(make_user, "eve")
    async with open_chat_here(ada) as client, open_chat_here(eve) as foreign:
        accepted = await ask(client, provider, erase(path))
        [asked] = requests(client, accepted["run_id"])
        other = await client.chat("Hello")
        for socket, session_id, request_id in (
            (foreign, accepted["session_id"], asked["request_id"]),
            (client, other["session_id"], asked["request_id"]),
            (client, accepted["session_id"], accepted["run_id"]),
            (client, accepted["session_id"], "no id"),
        ):
            metadata = {"request_id": request_id, "decision": "approve"}
            after = len(socket.frames)
            await socket.send({"type": "respond", "session_id": session_id, "metadata": metadata})
            refused = await socket.wait_for(frame_of("error"), after=after)
            assert refused["metadata"]["code"] == "not_found"
        api = Client()
        await in_thread(api.force_login, eve)
        answer = await in_thread(post, api, asked["request_id"], decision="approve")
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")
        listed = await in_thread(api.get, f"/api/sessions/{accepted['session_id']}/approvals/")
        assert listed.status_code == 404
        await client.cancel(accepted["session_id"], run_id=accepted["run_id"])
        await client.wait_end(accepted["run_id"])
    assert times_run(path) == 0


def post(api: Client, request_id: str, **data: str) -> Any:
    return api.post(f"/api/approvals/{request_id}/", data, content_type="application/json")


def test_a_request_holds_what_every_database_takes() -> None:
    item = SimpleNamespace(
        call_id="a\0b", qualified_name="drain\ud83d", arguments='{"a": "\0\udc80"}', agent=None
    )
    (request,) = requests_of(cast(Any, SimpleNamespace(interruptions=[item])))
    assert request.tool_call_id == "a\ufffdb"
    assert request.tool == "drain\ufffd"
    assert request.arguments == '{"a": "\ufffd\ufffd"}'


async def test_it_is_answered_by_rest(provider: Provider, ada: User, path: Path) -> None:
    api = Client()
    await in_thread(api.force_login, ada)
    async with open_chat_here(ada) as client:
        accepted = await ask(client, provider, erase(path))
        listed = await in_thread(api.get, f"/api/sessions/{accepted['session_id']}/approvals/")
        assert listed.json().keys() == {"next", "previous", "results"}
        [waiting] = listed.json()["results"]
        assert (waiting["tool"], waiting["decision"]) == ("erase", None)
        assert waiting["arguments"] == f'{{"path": "{path}"}}'
        wrong = await in_thread(post, api, waiting["request_id"], decision="perhaps")
        assert wrong.status_code == 400
        provider.queue(DONE)
        answer = await in_thread(post, api, waiting["request_id"], decision="approve")
        assert (answer.json()["decision"], answer.json()["duplicate"]) == ("approve", False)
        # No sweeper runs: this process has picked it up at once.
        await client.wait_end(accepted["run_id"])
        again = await in_thread(post, api, waiting["request_id"], decision="reject")
        assert again.json() == answer.json() | {"duplicate": True}
    assert times_run(path) == 1


async def test_a_stop_ends_it_and_the_next_turn_works(
    provider: Provider, ada: User, path: Path
) -> None:
    async with open_chat_here(ada) as client:
        accepted = await ask(client, provider, erase(path))
        [asked] = requests(client, accepted["run_id"])
        await client.cancel(accepted["session_id"])
        end = await client.wait_end(accepted["run_id"])
        assert end["content"] == "I will erase it."
        assert (end["metadata"]["finish_reason"], end["metadata"]["reason"]) == (
            "cancelled",
            "user",
        )
        resolved = await client.wait_for(event("input.resolved"))
        assert resolved["metadata"]["decision"] == "cancelled"
        late = await respond(client, accepted, asked["request_id"], "approve")
        assert (late["decision"], late["duplicate"]) == ("cancelled", True)
        again = await client.chat("Go on", accepted["session_id"])
        await client.wait_end(again["run_id"])
    assert times_run(path) == 0
    assert [call.refusal for call in provider.calls] == ["", ""]
    assert not await RunState.objects.aexists()


async def test_a_newer_message_takes_its_place_unless_it_is_to_wait(
    provider: Provider, ada: User, path: Path
) -> None:
    async with open_chat_here(ada) as client:
        accepted = await ask(client, provider, erase(path))
        session_id = accepted["session_id"]
        waiting = await client.chat("later", session_id, on_busy="enqueue")
        assert waiting["outcome"] == "queued"
        state = await in_thread(queries.list_queue, accepted_id(session_id))
        assert [entry.run_id for entry in state] == [waiting["run_id"]]
        urgent = await client.chat("rather this", session_id)
        assert urgent["outcome"] == "interrupting"
        ends = [await client.wait_end(a["run_id"]) for a in (accepted, urgent, waiting)]
    assert [end["metadata"].get("reason") for end in ends] == ["redirect", None, None]
    assert [call.prompt for call in provider.calls] == ["Erase the file", "rather this", "later"]
    assert [call.refusal for call in provider.calls] == [""] * 3


def accepted_id(session_id: str) -> Any:
    return queries.parse_id(session_id)


async def expire() -> None:
    await Approval.objects.aupdate(expires_at=Now() - timedelta(seconds=1))


async def test_what_nobody_answers_expires_without_another_call(
    provider: Provider, ada: User, process: Process, path: Path
) -> None:
    async with open_chat_here(ada) as client:
        accepted = await ask(client, provider, erase(path))
        [asked] = requests(client, accepted["run_id"])
        await process.sweeper.sweep()
        assert (await Run.objects.aget()).status == RunStatus.AWAITING_INPUT
        await expire()
        await process.sweeper.sweep()
        end = await client.wait_end(accepted["run_id"])
        assert end["metadata"]["finish_reason"] == "interrupted"
        assert end["metadata"]["reason"] == "approval_expired"
        assert end["content"] == "I will erase it."
        late = await respond(client, accepted, asked["request_id"], "approve")
        assert (late["decision"], late["duplicate"]) == ("expired", True)
    assert len(provider.calls) == 1
    assert times_run(path) == 0


async def test_an_answer_that_comes_too_late_is_none(
    provider: Provider, ada: User, path: Path
) -> None:
    async with open_chat_here(ada) as client:
        accepted = await ask(client, provider, erase(path))
        [asked] = requests(client, accepted["run_id"])
        waiting = await client.chat("next", accepted["session_id"], on_busy="enqueue")
        await expire()
        late = await respond(client, accepted, asked["request_id"], "approve")
        assert (late["decision"], late["duplicate"]) == ("expired", True)
        await client.wait_end(accepted["run_id"])
        await client.wait_end(waiting["run_id"])
    assert times_run(path) == 0


async def test_an_answer_is_for_the_arguments_that_were_shown(
    provider: Provider, ada: User, path: Path
) -> None:
    async with open_chat_here(ada) as client:
        accepted = await ask(client, provider, erase(path))
        [asked] = requests(client, accepted["run_id"])
        state = await RunState.objects.aget()
        state.payload = state.payload.replace(str(path), str(path.with_name("other")))
        await state.asave()
        await respond(client, accepted, asked["request_id"], "approve")
        end = await client.wait_end(accepted["run_id"])
        assert end["metadata"]["code"] == "internal"
        again = await client.chat("Go on", accepted["session_id"])
        await client.wait_end(again["run_id"])
    assert (times_run(path), times_run(path.with_name("other"))) == (0, 0)
    assert [call.refusal for call in provider.calls] == ["", ""]


async def test_a_reader_that_comes_back_is_shown_the_open_request(
    provider: Provider, ada: User, path: Path, settings: Any
) -> None:
    async with open_chat_here(ada) as client:
        accepted = await ask(client, provider, erase(path))
        [asked] = requests(client, accepted["run_id"])
    settings.REALTIME = {**settings.REALTIME, "replay_events": 1}
    async with open_chat_here(ada) as client:
        await client.resume(accepted["session_id"], rev=0)
        snapshot = (await client.wait_for(event("snapshot")))["metadata"]
        assert snapshot["run_status"] == "awaiting_input"
        names = ["request_id", "tool_call_id", "tool", "description", "arguments", "expires_at"]
        names.append("irreversible")
        assert snapshot["open_requests"] == [{name: asked[name] for name in names}]
        assert [part["type"] for part in snapshot["parts"]] == ["text", "approval"]
        provider.queue(DONE)
        await respond(client, accepted, asked["request_id"], "approve")
        end = await client.wait_end(accepted["run_id"])
    assert end["content"] == "I will erase it.\n\nDone."


async def test_it_waits_also_when_nobody_watches(
    provider: Provider, ada: User, process: Process, path: Path
) -> None:
    async with open_chat_here(ada) as client:
        accepted = await ask(client, provider, erase(path))
    await ChatSession.objects.aupdate(viewed_until=Now() - timedelta(days=1))
    assert await in_thread(states.list_unwatched, timedelta(0)) == []
    async with open_chat_here(ada) as client:
        shown = await in_thread(history.get_history, await ChatSession.objects.aget())
        assert shown.run is not None
        assert shown.run.status == "awaiting_input"
        [request_id] = [part["request_id"] for part in (shown.messages[-1].parts or [])[1:]]
        provider.queue(DONE)
        await respond(client, accepted, request_id, "approve")
        assert await in_thread(states.list_unwatched, timedelta(0)) == []
