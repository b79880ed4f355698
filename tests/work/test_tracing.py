"""The trace of a reply: its spans, their attributes, and nothing that was said."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from agents import Agent, function_tool
from django.contrib.auth.models import User
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from realtime import conf
from realtime.process import Process
from realtime.telemetry import tracing
from tests.support.agent_site import AgentSite
from tests.support.inprocess import open_chat_here
from tests.support.provider import Reply, ToolCall, words
from tests.support.site import environment, run_python

MARK = "heron-canary-47"


@pytest.fixture
async def spans(process: Process) -> Any:
    """The spans that end; tracing ends with the process."""
    exporter = InMemorySpanExporter()
    tracing.start_with(SimpleSpanProcessor(exporter))
    return exporter


@function_tool
async def look_up(word: str) -> str:
    """Look a word up."""
    return f"{word} is a bird"


async def chat(agent_site: AgentSite, process: Process, user: User) -> dict[str, Any]:
    agent_site.serve(Agent(name="desk", instructions=MARK, tools=[look_up]))
    async with open_chat_here(user) as client:
        accepted = await client.chat(f"What is a {MARK}?")
        await client.wait_end(accepted["run_id"])
    await process.executor.settled()
    return accepted


def call_tool(agent_site: AgentSite) -> None:
    call = ToolCall("look_up", json.dumps({"word": MARK}))
    agent_site.provider.queue(Reply(tool_calls=[call]), Reply([MARK]))


def facts_of(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


def text_of(spans: tuple[ReadableSpan, ...]) -> str:
    return "".join(span.to_json() for span in spans)


async def test_a_reply_with_a_tool(
    process: Process, agent_site: AgentSite, ada: User, spans: InMemorySpanExporter
) -> None:
    call_tool(agent_site)
    accepted = await chat(agent_site, process, ada)
    found = spans.get_finished_spans()
    names = [span.name for span in found]
    assert names == [
        *("queue", "chat stand-in", "commit", "execute_tool look_up"),
        *("chat stand-in", "commit", "invoke_agent desk"),
    ]
    root = found[-1]
    assert {span.context.trace_id for span in found} == {root.context.trace_id}
    assert {span.parent.span_id for span in found[:-1] if span.parent} == {root.context.span_id}
    facts = facts_of(root)
    assert facts["gen_ai.operation.name"] == "invoke_agent"
    assert facts["gen_ai.conversation.id"] == accepted["session_id"]
    assert facts["agentsite.run.id"] == accepted["run_id"]
    assert facts["agentsite.run.status"] == "completed"
    assert facts_of(found[1])["gen_ai.usage.output_tokens"]
    assert facts_of(found[3])["gen_ai.tool.name"] == "look_up"
    assert root.start_time == found[0].start_time
    assert MARK not in text_of(found)


async def test_what_was_said_if_it_is_asked_for(
    process: Process,
    agent_site: AgentSite,
    ada: User,
    settings: Any,
    spans: InMemorySpanExporter,
) -> None:
    settings.TRACE_CONTENT = True
    call_tool(agent_site)
    await chat(agent_site, process, ada)
    told = {name for span in spans.get_finished_spans() for name in facts_of(span)}
    assert {
        *("gen_ai.system_instructions", "gen_ai.input.messages", "gen_ai.output.messages"),
        *("gen_ai.tool.call.arguments", "gen_ai.tool.call.result"),
    } <= told
    assert f"{MARK} is a bird" in text_of(spans.get_finished_spans())


async def test_a_failure(
    process: Process, agent_site: AgentSite, ada: User, spans: InMemorySpanExporter
) -> None:
    agent_site.provider.queue(Reply(words(3), error_status=401))
    await chat(agent_site, process, ada)
    _queue, _commit, call, root = spans.get_finished_spans()
    assert (call.name, call.status.is_ok) == ("chat stand-in", False)
    assert facts_of(root)["agentsite.run.status"] == "failed"
    assert facts_of(root)["error.type"] == "provider_key"
    assert not root.status.is_ok


def test_nothing_is_imported_without_a_collector() -> None:
    code = (
        "import sys, agentsite.asgi, asyncio\n"
        "from realtime.process import Process\n"
        "async def begin(): Process('all').start()\n"
        "asyncio.run(begin())\n"
        "print([name for name in sys.modules if name.startswith('opentelemetry.sdk')])"
    )
    env = environment(DEBUG="1", DJANGO_SETTINGS_MODULE="agentsite.settings", AGENT_MODEL="tour")
    assert run_python("-c", code, env=env) == "[]\n"


def test_missing_packages_are_told(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert conf.check_tracing(None) == []
    settings.OTEL_EXPORTER_OTLP_ENDPOINT = "http://127.0.0.1:4318"
    assert conf.check_tracing(None) == []
    monkeypatch.setattr(conf, "TRACING_MODULES", ("no_such_module",))
    [message] = conf.check_tracing(None)
    assert "requirements-tracing.txt" in str(message.hint)


@pytest.fixture(autouse=True)
def _untraced() -> Iterator[None]:
    yield
    tracing._tracer = tracing._provider = None
