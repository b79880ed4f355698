"""OpenTelemetry traces of runs: the wait in the queue, model calls, tools and commits.

Spans follow the semantic conventions for generative AI. Without `OTEL_EXPORTER_OTLP_ENDPOINT`
nothing is traced, and OpenTelemetry's SDK is not imported.
"""

import asyncio
import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Any

from django.conf import settings

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
    from opentelemetry.trace import Span, Tracer

    from conversations.runs.lifecycle import Ending, Suspension
    from conversations.runs.states import Claimed

NAME = "agentsite"
PROVIDER = "openai"
"""The API that model servers are called by, theirs or a compatible one."""

EXPORT_TIMEOUT_S = 2.0
"""How long sending a batch of spans may take; short, since the end of the process waits for one."""

_provider: "TracerProvider | None" = None
_tracer: "Tracer | None" = None


def start() -> None:
    """Start to trace the runs of this process, if the settings say where traces are sent.

    Does nothing if they do not, or if tracing has started. Raises `ImportError` if the packages are
    missing.
    """
    endpoint = getattr(settings, "OTEL_EXPORTER_OTLP_ENDPOINT", None)
    if not endpoint or _tracer is not None:
        return
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    url = f"{endpoint.rstrip('/')}/v1/traces"
    exporter = OTLPSpanExporter(endpoint=url, timeout=EXPORT_TIMEOUT_S)
    start_with(BatchSpanProcessor(exporter))


def start_with(processor: "SpanProcessor") -> None:
    """Start to trace the runs of this process, and pass their spans to `processor`.

    Call it only while nothing is traced; this is not checked. Raises `ImportError` if the packages
    are missing.
    """
    global _provider, _tracer
    from opentelemetry.sdk.resources import SERVICE_NAME, Resource
    from opentelemetry.sdk.trace import TracerProvider

    # From `OTEL_SERVICE_NAME` and `OTEL_RESOURCE_ATTRIBUTES`.
    resource = Resource.create()
    if str(resource.attributes[SERVICE_NAME]).startswith("unknown_service"):
        resource = resource.merge(Resource({SERVICE_NAME: NAME}))
    _provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    _provider.add_span_processor(processor)
    _tracer = _provider.get_tracer(NAME)


async def stop() -> None:
    """Trace no more, and send the ended spans that wait; the caller bounds the time.

    Spans that end later are lost. Does nothing if nothing is traced.
    """
    global _provider, _tracer
    provider, _provider, _tracer = _provider, None, None
    if provider is not None:
        await asyncio.to_thread(provider.shutdown)


class NoTrace:
    """A run's trace if nothing is traced: its methods do nothing. `RunTrace` overrides them."""

    def begin_call(self, model: str, agent: str, instructions: str | None, items: Any) -> None:
        """Do nothing; `RunTrace` begins the span of a model call here.

        An open model call ends as failed first. `instructions` and `items`, what the model is
        given, are recorded only with `TRACE_CONTENT`.
        """

    def end_call(self, response: Any) -> None:
        """Do nothing; `RunTrace` ends the span of the open model call, with `response.usage`.

        It does nothing if no call is open. The output of `response` is recorded only with
        `TRACE_CONTENT`.
        """

    def begin_tool(self, call_id: str, name: str, arguments: str) -> None:
        """Do nothing; `RunTrace` begins the span of the tool call `call_id` here.

        `arguments` are recorded only with `TRACE_CONTENT`. Tool calls may overlap.
        """

    def end_tool(self, call_id: str, output: object, *, failed: bool) -> None:
        """Do nothing; `RunTrace` ends the span of the tool call `call_id`, as an error if `failed`.

        It does nothing if that call is not open. `output` is recorded only with `TRACE_CONTENT`.
        """

    @contextmanager
    def commit(self, outcome: "Ending | Suspension | None" = None) -> Iterator[None]:
        """Only run the block; `RunTrace` makes it a span, which fails if the block raises.

        The block is one transaction of the run. `outcome` is given for the one that ends the work
        on the run: if the block succeeds, `end` reports it.
        """
        yield

    def end(self) -> None:
        """Do nothing; `RunTrace` ends the run's span here, with the last committed outcome.

        Spans that are still open end as failed first. Without an outcome the status is `lost`.
        """


NO_TRACE = NoTrace()


def trace_run(claimed: "Claimed") -> NoTrace:
    """Return the trace of a run that this worker has claimed; `NO_TRACE` if nothing is traced."""
    return NO_TRACE if _tracer is None else RunTrace(_tracer, claimed)


class RunTrace(NoTrace):
    """The spans of the work on one run, from its place in the queue on.

    A run that is resumed after an approval has another trace, with the same `agentsite.run.id`.
    """

    def __init__(self, tracer: "Tracer", claimed: "Claimed") -> None:
        run = claimed.run
        self._tracer = tracer
        self._has_content = bool(getattr(settings, "TRACE_CONTENT", False))
        queued_ns = _nanoseconds(run.queued_at)
        self._root = self._begin(
            f"invoke_agent {run.agent}",
            {
                "gen_ai.operation.name": "invoke_agent",
                "gen_ai.provider.name": PROVIDER,
                "gen_ai.agent.name": run.agent,
                "gen_ai.request.model": run.model,
                "gen_ai.conversation.id": str(run.session_id),
                "agentsite.run.id": str(run.pk),
            },
            start_ns=queued_ns,
        )
        self._begin("queue", parent=self._root, start_ns=queued_ns).end()
        self._outcome: Ending | Suspension | None = None
        self._call: Span | None = None
        self._tools: dict[str, Span] = {}

    def _begin(
        self,
        name: str,
        attributes: dict[str, Any] | None = None,
        *,
        parent: "Span | None" = None,
        start_ns: int | None = None,
        is_client: bool = False,
    ) -> "Span":
        from opentelemetry.context import Context
        from opentelemetry.trace import SpanKind, set_span_in_context

        return self._tracer.start_span(
            name,
            context=set_span_in_context(parent, Context()) if parent else Context(),
            kind=SpanKind.CLIENT if is_client else SpanKind.INTERNAL,
            attributes=attributes,
            start_time=start_ns,
        )

    def begin_call(self, model: str, agent: str, instructions: str | None, items: Any) -> None:
        attributes: dict[str, Any] = {
            "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": PROVIDER,
            "gen_ai.request.model": model,
            "gen_ai.request.stream": True,
            "gen_ai.agent.name": agent,
        }
        if self._has_content:
            attributes["gen_ai.system_instructions"] = instructions or ""
            attributes["gen_ai.input.messages"] = _as_json(items)
        _fail([self._call])
        self._call = self._begin(f"chat {model}", attributes, parent=self._root, is_client=True)

    def end_call(self, response: Any) -> None:
        call, self._call = self._call, None
        if call is None:
            return
        usage = response.usage
        counts = {
            "input_tokens": usage.input_tokens,
            "output_tokens": usage.output_tokens,
            "cache_read.input_tokens": usage.input_tokens_details.cached_tokens,
            "reasoning.output_tokens": usage.output_tokens_details.reasoning_tokens,
        }
        call.set_attributes({f"gen_ai.usage.{name}": n or 0 for name, n in counts.items()})
        if response.response_id:
            call.set_attribute("gen_ai.response.id", response.response_id)
        if self._has_content:
            items = [item.model_dump(exclude_none=True) for item in response.output]
            call.set_attribute("gen_ai.output.messages", _as_json(items))
        call.end()

    def begin_tool(self, call_id: str, name: str, arguments: str) -> None:
        attributes = {
            "gen_ai.operation.name": "execute_tool",
            "gen_ai.tool.name": name,
            "gen_ai.tool.type": "function",
            "gen_ai.tool.call.id": call_id,
        }
        if self._has_content:
            attributes["gen_ai.tool.call.arguments"] = arguments
        self._tools[call_id] = self._begin(f"execute_tool {name}", attributes, parent=self._root)

    def end_tool(self, call_id: str, output: object, *, failed: bool) -> None:
        if (tool := self._tools.pop(call_id, None)) is None:
            return
        if self._has_content:
            tool.set_attribute("gen_ai.tool.call.result", _as_json(output))
        if failed:
            _fail([tool])
        else:
            tool.end()

    @contextmanager
    def commit(self, outcome: "Ending | Suspension | None" = None) -> Iterator[None]:
        span = self._begin("commit", parent=self._root)
        try:
            yield
        except BaseException as exc:
            _fail([span], type(exc).__name__)
            raise
        span.end()
        self._outcome = outcome or self._outcome

    def end(self) -> None:
        _fail([self._call, *self._tools.values()])
        outcome = self._outcome
        status = str(getattr(outcome, "status", "awaiting_input")) if outcome else "lost"
        self._root.set_attribute("agentsite.run.status", status)
        if error_code := getattr(outcome, "error_code", ""):
            _fail([self._root], error_code)
        else:
            self._root.end()


def _fail(spans: "Iterable[Span | None]", error_type: str = "_OTHER") -> None:
    """End spans of what has not succeeded."""
    from opentelemetry.trace import Status, StatusCode

    for span in spans:
        if span is not None:
            span.set_attribute("error.type", error_type)
            span.set_status(Status(StatusCode.ERROR))
            span.end()


def _nanoseconds(moment: datetime) -> int:
    return int(moment.timestamp() * 1_000_000) * 1_000


def _as_json(value: Any) -> str:
    return json.dumps(value, default=str, ensure_ascii=False)
