"""Works on one run, from its claim to its end or to a request for approval."""

import asyncio
import copy
import json
import logging
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, suppress
from dataclasses import replace
from datetime import timedelta
from functools import cache, partial
from typing import TYPE_CHECKING, Any, TypeVar, cast

import openai
from agents import (
    Agent,
    AgentOutputSchema,
    AgentOutputSchemaBase,
    AgentUpdatedStreamEvent,
    ItemHelpers,
    ModelBehaviorError,
    ModelRefusalError,
    ModelSettings,
    RawResponsesStreamEvent,
    RunConfig,
    RunErrorHandlerInput,
    RunErrorHandlerResult,
    Runner,
    RunResultStreaming,
    StreamEvent,
    ToolExecutionConfig,
    ToolOutputText,
)
from agents.items import MessageOutputItem, ToolCallOutputItem
from agents.run import CallModelData, ModelInputData
from django.db import InterfaceError, OperationalError
from django.utils import timezone
from pydantic import BaseModel

from conversations import queries
from conversations.changes import RunLostError
from conversations.errors import AgentSiteError, ErrorCode
from conversations.models import EndReason, RunStatus
from conversations.people.accounts import read_instructions
from conversations.queries import EventRow
from conversations.runs import lifecycle
from conversations.runs.inputs import Step, items_of_parts
from conversations.runs.lifecycle import Ending, Suspension, suspend_run
from conversations.runs.states import Claimed
from conversations.runs.usage import usage_of
from conversations.sessions.rendering import render_texts
from realtime import dbpool, registry
from realtime.conf import get_conf
from realtime.providers.endings import StreamEnding, stream_ending
from realtime.providers.model_calls import Shortening, shortening
from realtime.providers.provider import Budget, StartPlace
from realtime.registry import name_model
from realtime.tasks import describe, name_types
from realtime.telemetry.tracing import trace_run
from realtime.work import sdk
from realtime.work.context import ModelInput, measure_input, read_input, stored_items
from realtime.work.metering import UsageMeter
from realtime.work.run_context import ProgressReports, RunContext
from realtime.work.run_errors import RUN_LIMITS, Retries, broken_stream, is_refusal, run_error
from realtime.work.sdk import StepItems, Translator
from realtime.work.tools import ToolServers, WorkHooks, copy_agent, find_agent, work_hooks

if TYPE_CHECKING:
    from realtime.providers.provider import Provider
    from realtime.work.journal import Flusher


def answer_of_tool(result: RunResultStreaming) -> str:
    """Return the output of a tool as text, if it is the run's answer; "" for any other run.

    An object or a list becomes a code block of JSON. Also "" for an output without a text, such as
    a picture, and for a run that awaits approval.
    """
    made = result.new_items
    if result.interruptions or not made or not isinstance(made[-1], ToolCallOutputItem):
        return ""
    # The SDK has turned the output into text by `str`; find the output itself.
    outputs = [item.output for item in made if isinstance(item, ToolCallOutputItem)]
    final = result.final_output
    return _as_text(next((each for each in outputs if str(each) == final), final))


def _as_text(output: Any) -> str:
    """Return an output as text for people; "" for one that is no text, such as a picture."""
    if isinstance(output, str):
        return output
    if isinstance(output, ToolOutputText):
        return output.text
    if isinstance(output, BaseModel):
        output = output.model_dump(mode="json")
    if isinstance(output, dict | list):
        return f"```json\n{json.dumps(output, ensure_ascii=False, default=str)}\n```"
    return json.dumps(output) if isinstance(output, bool | int | float) else ""


def find_output(given: RunErrorHandlerInput[Any]) -> RunErrorHandlerResult | None:
    """Read structured output that has a code fence or words around it.

    A handler for the SDK, called if the last message is not of the agent's output type. It reads
    from the first `{` of that message to the last `}`. Returns None if that does not fit the type
    either.
    """
    messages = [item for item in given.run_data.new_items if isinstance(item, MessageOutputItem)]
    text = ItemHelpers.text_message_output(messages[-1]) if messages else ""
    found = text[text.find("{") : text.rfind("}") + 1]
    try:
        output = _schema(given.run_data.last_agent.output_type).validate_json(found)
    except ModelBehaviorError:
        return None
    return RunErrorHandlerResult(output, include_in_history=False)


OWN_INSTRUCTIONS = """

# What the user wants of every reply
{text}"""


def add_instructions(text: str, call: CallModelData[Any]) -> ModelInputData:
    """Return the input of a model call with the user's own instructions behind the agent's.

    A filter for the SDK, called before each model call of a run, whichever agent makes it.
    """
    given = call.model_data
    own = OWN_INSTRUCTIONS.format(text=text)
    return ModelInputData(given.input, f"{given.instructions or ''}{own}".lstrip())


def _schema(kind: Any) -> AgentOutputSchemaBase:
    return kind if isinstance(kind, AgentOutputSchemaBase) else AgentOutputSchema(kind, False)


T = TypeVar("T")

logger = logging.getLogger(__name__)

STOP_TIMEOUT_S = 2
"""Seconds that a stopped stream or tool may take to unwind before its task is abandoned, and the
last commit of a run whose process stops.
"""

RETRY_PAUSE_S = 0.5

AWAY = (OperationalError, InterfaceError)
"""Database errors that may pass: it is away or too busy, or there was a deadlock."""


class RunWork:
    """The work on one run that this worker has claimed; await `run` once.

    Creating it opens the run's journal, which only `run` closes. Setting `journal.cancelled` ends
    the run as cancelled, with its text so far, unless the agent has ended before.
    """

    def __init__(
        self,
        claimed: Claimed,
        flusher: "Flusher",
        provider: "Provider",
        tool_servers: ToolServers,
    ) -> None:
        self.claimed = claimed
        self.journal = flusher.open(claimed)
        self._flusher = flusher
        self._provider = provider
        self._translator = _translator(claimed)
        self._reports = ProgressReports(self.journal, asyncio.get_running_loop())
        self._verdict = StreamEnding(has_said=claimed.resumption is not None)
        self._meter = _meter(claimed)
        self._steps = StepItems(is_kept=registry.get_entry(claimed.run.agent).continues)
        self.trace = trace_run(claimed)
        self._hooks = WorkHooks(
            self.journal, tool_servers, self._steps, self._meter, Budget(claimed), self.trace
        )
        self._retries = Retries(self.journal, self._meter)
        self._result: RunResultStreaming | None = None
        self._given: ModelInput | None = None
        self._shortening = Shortening()
        self._begun = asyncio.Event()

    @property
    def context_share(self) -> float:
        """The part of its limits that the run's input takes, as `ModelInput.share`; 1 is all.

        0 before the input is read, and for a resumed run.
        """
        return self._given.share if self._given else 0.0

    async def run(self) -> None:
        """Work until the run ends or awaits input, and write that outcome to the database.

        If the database refuses the outcome, the run is ended as failed. Raises `RunLostError` if
        this worker has lost the run, and the last error if nothing can be written for `buffer_s`,
        or if the failure is refused too. When it raises, the run has no outcome. If it is
        cancelled, it first tries for `STOP_TIMEOUT_S` to commit the events that wait.
        """
        try:
            outcome = await self._reach_end()
            if isinstance(outcome, Suspension):
                # The transaction that suspends the run writes no steps.
                await self.journal.commit()
            else:
                # Before the journal is closed: rendering a long text takes time, and an open
                # journal renews the lease.
                outcome = await self._render(outcome)
        except asyncio.CancelledError:
            # The process stops. Another worker can go on behind what is committed now.
            with suppress(RunLostError, TimeoutError):
                async with asyncio.timeout(STOP_TIMEOUT_S):
                    await self.journal.commit()
            raise
        finally:
            # Whatever was raised: a journal that stays open would renew the lease for ever.
            self.journal.close()
            await self._flusher.close(self.journal)
        await self._leave(outcome)

    async def _render(self, ending: Ending) -> Ending:
        """Return `ending` with its HTML, rendered in a thread that is none of the database's."""
        return replace(ending, html=await asyncio.to_thread(render_texts, ending.parts))

    async def _reach_end(self) -> Ending | Suspension:
        """Run the agent until it is done, fails, is stopped, requests input, or the run is lost."""
        stream = asyncio.create_task(self._stream(), name=f"stream {self.claimed.run.pk}")
        signals = [
            asyncio.create_task(self.journal.cancelled.wait()),
            asyncio.create_task(self.journal.lost.wait()),
            asyncio.create_task(self._wait_for_time_limit()),
        ]
        try:
            done, _ = await asyncio.wait([stream, *signals], return_when=asyncio.FIRST_COMPLETED)
        finally:
            for signal in signals:
                signal.cancel()
            await self._unwind(stream)
            self._reports.end_all()
        if self.journal.lost.is_set():
            raise RunLostError
        self._keep_cut_text()
        if stream not in done and self.journal.cancelled.is_set():
            return self._ending(RunStatus.CANCELLED)
        if stream not in done:
            return self._failure(AgentSiteError(ErrorCode.LIMIT_TIME))
        if stream.cancelled():
            return self._failure(RuntimeError("the agent cancelled its own task"))
        return self._judge(stream.exception())

    def _keep_cut_text(self) -> None:
        """Append what a stream that did not end has brought and nobody has been shown.

        While a tool runs, such a stream is that of another agent, whose text is not shown.
        """
        if (cut := self._verdict.cut) is None or self._open_tools:
            return
        for kind, payload in self._translator.cut(*cut()):
            self.journal.append(kind, payload)

    async def _wait_for_time_limit(self) -> None:
        """Return after the time that a run of the agent may work; waiting before that is free."""
        await self._begun.wait()
        own = registry.get_entry(self.claimed.run.agent).run_max_s
        await asyncio.sleep(get_conf().run_max_s if own is None else own)

    def _judge(self, exc: BaseException | None) -> Ending | Suspension:
        """Return the outcome of an agent that has ended, with `exc` if it raised.

        A reply that the model's server cut short is neither finished nor an internal error.
        """
        match self._verdict.finish_reason:
            case "length":
                exc = AgentSiteError(ErrorCode.LIMIT_LENGTH)
            case "content_filter":
                exc = AgentSiteError(ErrorCode.CONTENT_FILTERED)
            case "failed" if not isinstance(exc, openai.APIError):
                # An error of the SDK's client says more than the code.
                has_text = self.journal.folder.has_text
                exc = broken_stream(self._verdict.error_code, has_text=has_text)
        if isinstance(exc, ModelRefusalError):
            # The text of the refusal has been shown, and is the answer.
            self._translator.reopen()
            exc = None
        if exc is not None:
            return self._failure(exc)
        if self._result is not None and self._result.interruptions:
            return self._suspension(self._result)
        if all(part["type"] == "agent" for part in self.journal.folder.parts):
            return self._failure(AgentSiteError(ErrorCode.PROVIDER_UNAVAILABLE))
        return self._ending(RunStatus.COMPLETED)

    async def _unwind(self, stream: asyncio.Task[None]) -> None:
        """Close the provider's stream and cancel async tools; a sync tool runs on in its thread."""
        if stream.done():
            return
        if self._result is not None:
            self._result.cancel()
        stream.cancel()
        _, left = await asyncio.wait([stream], timeout=STOP_TIMEOUT_S)
        for task in left:
            task.add_done_callback(_ignore_end)

    async def _stream(self) -> None:
        run, conf = self.claimed.run, get_conf()
        stream_ending.set(self._verdict)
        shortening.set(self._shortening)
        work_hooks.set(self._hooks)
        is_resumed = self.claimed.resumption is not None
        place = await self._provider.starts.enter(run.owner_id, is_resumed=is_resumed)
        context = RunContext(run.owner_id, run.session_id, run.pk, self._reports)
        agent = self._agent()
        given, own = await self._input(agent, context)
        self._begun.set()
        self._result = Runner.run_streamed(
            agent,
            input=given,
            context=context,
            max_turns=conf.max_turns,
            hooks=self._hooks,
            run_config=self._make_config(own),
            error_handlers={"invalid_final_output": find_output},
        )
        self._meter.start(self._result.context_wrapper.usage)
        await self._read(self._result, place)

    def _make_config(self, instructions: str) -> RunConfig:
        """Return the run's configuration, with the user's own `instructions`."""
        config = copy.copy(_shared_config(get_conf().parallel_tools))
        config.model_provider = self._provider
        config.model_settings = ModelSettings(include_usage=True, retry=self._retries.settings)
        if instructions:
            config.call_model_input_filter = partial(add_instructions, instructions)
        return config

    def _agent(self) -> Agent[Any]:
        """Return the run's own copy of the agent to begin with.

        Behind a handoff of a lost worker that is the agent that had taken over.
        """
        agent = copy_agent(registry.get_agent(self.claimed.run.agent))
        before = self.claimed.resumption
        if before is None or before.state is not None:
            return agent
        return find_agent(agent, before.agent) or agent

    async def _read(self, result: RunResultStreaming, place: StartPlace) -> None:
        """Append all events to the journal, to the end; raises what ended the agent early."""
        events = cast(AsyncGenerator[StreamEvent, None], result.stream_events())
        async with aclosing(events):
            async for event in events:
                self._steps.see(event)
                for kind, payload in self._translator.translate(event):
                    self.journal.append(kind, payload, self._step_of(event))
                if isinstance(event, RawResponsesStreamEvent):
                    place.leave()
                    self._meter.note(event.data)
                    if self._meter.is_over:
                        # Cancel before the stream is closed: closing waits for the agent's end.
                        result.cancel()
                        raise AgentSiteError(ErrorCode.LIMIT_LENGTH)
        if (exc := result.run_loop_exception) is not None:
            raise exc
        for kind, payload in self._translator.finish(answer_of_tool(result)):
            self.journal.append(kind, payload)

    def _step_of(self, event: StreamEvent) -> Step | None:
        """Return the step of a handoff; tools keep theirs by `WorkHooks`."""
        if not isinstance(event, AgentUpdatedStreamEvent) or self._result is None:
            return None
        items, model = self._steps.take_handoff(), name_model(event.new_agent)
        return self._hooks.keep(items, self._result.context_wrapper, model)

    async def _input(self, agent: Agent[Any], context: RunContext) -> tuple[Any, str]:
        """Return the run's input, and the user's own instructions.

        The input is the conversation, followed by what the run has made before, if it goes on
        behind that; or a suspended run's state with the answers.
        """
        before = self.claimed.resumption
        if before is not None and before.state is not None:
            await self._hooks.reconnect(agent, before.agent)
            state = await sdk.resume(agent, before, context)
            self._steps.resume(state, before)
            return state, await dbpool.read_first(read_instructions, context.user_id)
        given = await dbpool.read_first(read_input, self.claimed.run, agent, self._made_before)
        # The sizes of later runs' inputs are estimated from inputs without such items.
        self._given = given if before is None else None
        return given.items, given.instructions

    @property
    def _made_before(self) -> list[dict[str, Any]]:
        """The items that a lost worker has made, which the SDK does not know to be the run's."""
        before = self.claimed.resumption
        return before.items if before is not None and before.checkpoint is not None else []

    def _failure(self, exc: BaseException) -> Ending:
        if self.journal.cancelled.is_set():
            return self._ending(RunStatus.CANCELLED)
        error = run_error(exc, has_text=self.journal.folder.has_text)
        if is_refusal(exc):
            self._meter.note_refusal()
        # Errors of the model's server, and our own codes, are expected: log no traceback.
        is_expected = isinstance(exc, AgentSiteError | openai.APIError)
        told = f" ({name_types(exc)})" if is_expected else f"\n{describe(exc)}"
        logger.error("run %s: %s%s", self.claimed.run.pk, error.code, told)
        return self._ending(
            RunStatus.FAILED,
            error_code=error.code.value,
            retry_after=error.retry_after,
            reason=EndReason.LIMIT if error.code in RUN_LIMITS else "",
        )

    def _ending(self, status: RunStatus, **fields: Any) -> Ending:
        self._fail_open_tools()
        return Ending(
            status=status,
            parts=self.journal.folder.close(),
            items=self._items(),
            **self._spent(),
            context=measure_input(
                self._given,
                self._result,
                fields.get("error_code", ""),
                self._shortening.refused,
            ),
            first_token_at=self.journal.first_token_at,
            last_token_at=self.journal.last_token_at,
            stopped_at=timezone.now() if status == RunStatus.CANCELLED else None,
            retries=self.claimed.run.retries + self._retries.count,
            **fields,
        )

    def _suspension(self, result: RunResultStreaming) -> Suspension:
        return Suspension(
            requests=sdk.requests_of(result),
            state=sdk.state_of(result),
            items=self._items(),
            expires_in=timedelta(seconds=get_conf().approval_expires_s),
            **self._spent(),
            first_token_at=self.journal.first_token_at,
            last_token_at=self.journal.last_token_at,
            retries=self.claimed.run.retries + self._retries.count,
        )

    def _items(self) -> list[dict[str, Any]]:
        """Return what later runs are given of this reply."""
        if self._result is None:
            return self.claimed.resumption.items if self.claimed.resumption else []
        made = [*self._made_before, *sdk.made_items(self._result)]
        return stored_items(made, self._translator.open_text)

    @property
    def _open_tools(self) -> list[dict[str, Any]]:
        """The tool calls that have not finished, by id and name."""
        return [
            {"tool_call_id": part["tool_call_id"], "name": part["name"]}
            for part in self.journal.folder.parts
            if part["type"] == "tool" and part["status"] in ("started", "progress")
        ]

    def _fail_open_tools(self) -> None:
        for call in self._open_tools:
            self.journal.append("tool.failed", call)

    def _spent(self) -> dict[str, Any]:
        """Return the usage and cost of the run, however it ends."""
        counted = self._result.context_wrapper.usage if self._result else None
        usage = self._meter.total(counted)
        return {"usage": usage, "cost": self._meter.cost(usage), "model": self._meter.model}

    async def _leave(self, outcome: Ending | Suspension) -> None:
        """Write the outcome; if the database refuses it for good, write a failure instead."""
        try:
            await self._write(outcome, self.journal.take_rest())
            return
        except (RunLostError, *AWAY):
            raise
        except Exception as exc:
            logger.error(
                "run %s: writing its end failed: %s",
                self.claimed.run.pk,
                describe(exc, is_private=True),
            )
        await self._write(await self._plain_failure(), [])

    async def _plain_failure(self) -> Ending:
        """Return a failure with only what the database has accepted before."""
        parts = (await dbpool.read_first(queries.read_parts, self.claimed.run)).close()
        return Ending(
            RunStatus.FAILED,
            parts,
            items=items_of_parts(parts),
            error_code=ErrorCode.INTERNAL.value,
            first_token_at=self.journal.first_token_at,
            last_token_at=self.journal.last_token_at,
            **self._spent(),
        )

    async def _write(self, outcome: Ending | Suspension, rest: list[EventRow]) -> None:
        """Write the outcome; a run that was asked to stop is cancelled, not suspended."""
        if isinstance(outcome, Suspension):
            if await self._persist(suspend_run, rest, suspension=outcome):
                return
            outcome = await self._render(self._ending(RunStatus.CANCELLED))
        await self._persist(lifecycle.finish_run, rest, ending=outcome)

    async def _persist(
        self, write: Callable[..., T], events: list[EventRow], **outcome: Ending | Suspension
    ) -> T:
        """Write in one transaction; retry for `buffer_s` while the database is away.

        Raises other errors at once, as another try would only repeat them.
        """
        deadline = time.monotonic() + get_conf().buffer_s
        while True:
            try:
                with self.trace.commit(*outcome.values()):
                    return await dbpool.write_first(
                        write,
                        self.claimed,
                        last_seq=self.journal.last_seq,
                        events=events,
                        **outcome,
                    )
            except AWAY as exc:
                if time.monotonic() > deadline:
                    raise
                logger.warning(
                    "run %s: retrying to write its end: %s", self.claimed.run.pk, type(exc).__name__
                )
                await asyncio.sleep(RETRY_PAUSE_S)


@cache
def _shared_config(parallel_tools: int) -> RunConfig:
    """Return what the configurations of all runs share; a run works on a copy.

    Made once: the SDK evaluates all annotations of the class for each object, which takes 2 ms.
    """
    return RunConfig(
        model_settings=ModelSettings(),
        tool_execution=ToolExecutionConfig(max_function_tool_concurrency=parallel_tools),
        tracing_disabled=True,
        tool_error_formatter=WorkHooks.note_error,
        tool_not_found_behavior="return_error_to_model",
    )


def _ignore_end(stream: asyncio.Task[None]) -> None:
    """Retrieve the exception of an abandoned stream: asyncio would log it, with its text."""
    if not stream.cancelled():
        stream.exception()


def _translator(claimed: Claimed) -> Translator:
    if (before := claimed.resumption) is None:
        return Translator(claimed.run.agent)
    return Translator(before.agent, has_text=before.folder.has_text)


def _meter(claimed: Claimed) -> UsageMeter:
    run = claimed.run
    if claimed.resumption is None:
        return UsageMeter(model=run.model)
    return UsageMeter(usage_of(run), run.cost, run.model)
