"""The wire protocol, version 1: every frame as a type, and nothing else.

A frame is one JSON object in a WebSocket text message: `type`, `session_id`, `content`,
`metadata`. What a server status frame says is named by `metadata.event`.
"""

import json
from typing import Annotated, ClassVar, Literal, NoReturn

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    model_validator,
)

from conversations.errors import AgentSiteError, ErrorCode
from conversations.sessions.parts import DescribedPart

SUBPROTOCOL = "agentchat.v1"
VERSION = 1

CLOSE_NOT_AUTHENTICATED = 4001
CLOSE_RESTART = 4012
CLOSE_UNAVAILABLE = 4013
CLOSE_SIGN_IN_ENDED = 4401
CLOSE_ORIGIN = 4403
CLOSE_TOO_FAST = 4429


def _refuse_nul(text: str) -> str:
    """Postgres keeps none, and ids are not mended."""
    if "\x00" in text:
        raise ValueError("NUL in an id")
    return text


ShortText = Annotated[str, Field(max_length=200), AfterValidator(_refuse_nul)]
ClientId = Annotated[str, Field(min_length=1, max_length=100), AfterValidator(_refuse_nul)]


class _Incoming(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True)


class ChatMetadata(_Incoming):
    """How a chat is to be taken.

    Without `on_busy` it is enqueued behind a reply at work, and interrupts one that awaits input.
    """

    client_message_id: ClientId | None = None
    on_busy: Literal["enqueue", "interrupt", "reject"] | None = None
    agent: ShortText | None = None
    parent_message_id: ShortText | None = None
    regenerate: ShortText | None = None


class Chat(_Incoming):
    """A message to the agent; without `session_id` it begins a session."""

    type: Literal["chat"]
    session_id: ShortText = ""
    content: str = ""
    metadata: ChatMetadata = ChatMetadata()


class CancelMetadata(_Incoming):
    """Which run to stop; with neither field, the active one."""

    run_id: ShortText | None = None
    client_message_id: ShortText | None = None


class Cancel(_Incoming):
    """Stop a reply; valid before its first token and while it waits."""

    type: Literal["cancel"]
    session_id: ShortText = ""
    metadata: CancelMetadata = CancelMetadata()


class PingMetadata(_Incoming):
    """`ts` is echoed as it came."""

    ts: int | float | ShortText | None = None


class ClientPing(_Incoming):
    """Asks for a `pong`."""

    type: Literal["ping"]
    metadata: PingMetadata = PingMetadata()


class ClientPong(_Incoming):
    """Answers the server's `ping`; accepted and ignored."""

    type: Literal["pong"]


class ResumeMetadata(_Incoming):
    """The cursor: what the client has shown already."""

    rev: Annotated[int, Field(ge=0, le=2**53)] | None = None
    run_id: ShortText | None = None
    epoch: Annotated[int, Field(ge=0, le=2**53)] = 0
    seq: Annotated[int, Field(ge=0, le=2**53)] = 0


class QueueMetadata(_Incoming):
    """What to do with the message of a run: `position` counts from 1.

    `edit` gives it the frame's `content`, `remove` takes it back, `move` has it wait at
    `position`; `clear` takes back all that waits.
    """

    op: Literal["edit", "remove", "move", "clear"]
    run_id: ShortText = ""
    position: Annotated[int, Field(ge=1, le=1_000)] = 1

    @model_validator(mode="after")
    def refuse_incomplete(self) -> "QueueMetadata":
        if self.op != "clear" and not self.run_id:
            raise ValueError("which one?")
        return self


class Queue(_Incoming):
    """Change what waits for its turn."""

    type: Literal["queue"]
    session_id: ShortText
    content: str = ""
    metadata: QueueMetadata


class Resume(_Incoming):
    """Follow a session and catch up from a cursor."""

    type: Literal["resume"]
    session_id: ShortText
    metadata: ResumeMetadata = ResumeMetadata()


class RespondMetadata(_Incoming):
    """What is decided about a request; with `reject`, the model is told `message`."""

    request_id: ShortText
    decision: Literal["approve", "reject"]
    message: Annotated[str, Field(max_length=2_000)] = ""


class Respond(_Incoming):
    """Answer a request of a reply that awaits input."""

    type: Literal["respond"]
    session_id: ShortText
    metadata: RespondMetadata


ClientFrame = Chat | Cancel | ClientPing | ClientPong | Resume | Respond | Queue
CLIENT_FRAMES: tuple[type[BaseModel], ...] = (
    Chat,
    Cancel,
    ClientPing,
    ClientPong,
    Resume,
    Respond,
    Queue,
)

_client_id: TypeAdapter[str] = TypeAdapter(ClientId)
_client_adapter: TypeAdapter[ClientFrame] = TypeAdapter(
    Annotated[ClientFrame, Field(discriminator="type")]
)
_CLIENT_TYPES = {"chat", "cancel", "ping", "pong", "resume", "respond", "queue"}


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def parse_client_frame(text: str) -> ClientFrame:
    """The frame in `text`.

    Raises `AgentSiteError` with `bad_frame` (not JSON, too deep, wrong shape) or
    `unsupported_type`.
    """
    try:
        data = json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as exc:
        raise AgentSiteError(ErrorCode.BAD_FRAME) from exc
    if not isinstance(data, dict) or not isinstance(data.get("type"), str):
        raise AgentSiteError(ErrorCode.BAD_FRAME)
    if data["type"] not in _CLIENT_TYPES:
        raise AgentSiteError(ErrorCode.UNSUPPORTED_TYPE)
    for key in ("session_id", "metadata"):
        if data.get(key, ...) is None:
            del data[key]
    try:
        return _client_adapter.validate_python(data)
    except ValidationError as exc:
        raise AgentSiteError(ErrorCode.BAD_FRAME) from exc


def read_message_id(text: str) -> str | None:
    """The `client_message_id` of a frame that is refused, if it has a sound one."""
    try:
        named = json.loads(text)["metadata"]["client_message_id"]
        return _client_id.validate_python(named, strict=True)
    except (ValueError, LookupError, TypeError, RecursionError):
        return None


class _Outgoing(BaseModel):
    model_config = ConfigDict(frozen=True)


class Usage(_Outgoing):
    """Tokens of all model calls of a run; a field is absent where it is not known.

    `cost` is a decimal number, by the site's price list.
    """

    input_tokens: int | None = None
    output_tokens: int | None = None
    total_tokens: int | None = None
    cached_input_tokens: int | None = None
    reasoning_tokens: int | None = None
    cost: str | None = None
    currency: str | None = None


class RunMetadata(_Outgoing):
    """The run that a frame is about, and the generation of what is shown of it."""

    run_id: str
    run_number: int
    epoch: int


class SequencedMetadata(RunMetadata):
    """A frame of the run's journal: `seq` counts from 1 without a gap in an epoch."""

    seq: int
    message_id: str


UsageSource = Literal["measured", "estimated", "unknown"]


class CompleteMetadata(SequencedMetadata):
    """How the run ended."""

    finish_reason: Literal["completed", "cancelled", "interrupted"]
    reason: (
        Literal["user", "redirect", "disconnect", "limit", "worker_lost", "approval_expired"] | None
    ) = None
    usage: Usage
    usage_source: UsageSource
    html: str


class ErrorMetadata(_Outgoing):
    """`terminal` means that the run named here has ended; `retry_after` is in seconds."""

    code: ErrorCode
    retryable: bool
    retry_after: float | None = None
    client_message_id: str | None = None
    run_id: str | None = None
    run_number: int | None = None
    epoch: int | None = None
    seq: int | None = None
    message_id: str | None = None
    terminal: bool | None = None
    usage: Usage | None = None
    usage_source: UsageSource | None = None


class Limits(_Outgoing):
    """What the server accepts."""

    frame_max_bytes: int
    frames_per_minute: int
    queue_max: int
    follow_max: int


class Connected(_Outgoing):
    """First frame of every socket; `user_id` is whose it is."""

    text: ClassVar[str] = "connected"
    event: Literal["connected"] = "connected"
    protocol: str
    user_id: str
    heartbeat_s: float
    limits: Limits


class Resumed(_Outgoing):
    """Answers `resume`. `recovered: false` means: load the history again."""

    text: ClassVar[str] = "resumed"
    event: Literal["resumed"] = "resumed"
    rev: int
    recovered: bool
    run_id: str | None = None


class Unfollowed(_Outgoing):
    """This session was dropped for another one that was resumed; `resume` follows it again."""

    text: ClassVar[str] = "not followed any more"
    event: Literal["unfollowed"] = "unfollowed"


class Draining(_Outgoing):
    """The server is about to stop: connect again after the pause, then close this socket."""

    text: ClassVar[str] = "restarting"
    event: Literal["draining"] = "draining"
    reconnect_after_ms: int


class ModelStatus(_Outgoing):
    """How far the server's own model is, where it has one; `fraction` is from 0 to 1.

    Comes after `connected` and at every change.
    """

    text: ClassVar[str] = "{detail}"
    event: Literal["model.status"] = "model.status"
    model: str
    state: Literal["starting", "fetching", "loading", "ready", "failed"]
    detail: str
    fraction: float | None = None


class MessageMetadata(_Outgoing):
    """A message; the receiver replaces what it holds under `message_id`.

    Without `parts` the receiver keeps those that it has: they come by the frames of the run. One
    that is `withdrawn` was taken back while it waited: the receiver drops it. `summary` is what
    the model is given in place of all down to this message, empty where that is nothing; without
    it the receiver keeps what it has.
    """

    rev: int
    message_id: str
    number: int
    role: Literal["user", "assistant"]
    parts: list[DescribedPart] | None = None
    created_at: str
    parent_message_id: str | None = None
    run_id: str | None = None
    run_status: str | None = None
    agent: str | None = None
    reason: str | None = None
    error_code: str | None = None
    client_message_id: str | None = None
    withdrawn: bool | None = None
    summary: str | None = None
    html: str | None = None


class MessageCreated(MessageMetadata):
    """A message was added."""

    text: ClassVar[str] = "new message"
    event: Literal["message.created"] = "message.created"


class MessageUpdated(MessageMetadata):
    """A message or the status of its run changed."""

    text: ClassVar[str] = "message changed"
    event: Literal["message.updated"] = "message.updated"


class QueueEntry(_Outgoing):
    """A run that waits for its turn; `again` asks for another reply to an earlier message."""

    run_id: str
    run_number: int
    message_id: str
    content: str
    again: bool


class QueueChanged(_Outgoing):
    """The whole queue, in order; the active run is not in it."""

    text: ClassVar[str] = "queue changed"
    event: Literal["queue.changed"] = "queue.changed"
    rev: int
    queue: list[QueueEntry]


class QueueDone(_Outgoing):
    """Answers `queue`: it is done, and this waits now. It moves no cursor."""

    text: ClassVar[str] = "queue changed"
    event: Literal["queue.done"] = "queue.done"
    op: Literal["edit", "remove", "move", "clear"]
    queue: list[QueueEntry]


class SessionMetadata(_Outgoing):
    """A line of the list of sessions; one that is `archived` leaves it."""

    rev: int
    title: str
    active_at: str
    run_status: str | None = None
    archived: bool = False


class SessionCreated(SessionMetadata):
    """The user has a new session."""

    text: ClassVar[str] = "new conversation"
    event: Literal["session.created"] = "session.created"


class SessionUpdated(SessionMetadata):
    """A session was renamed, archived, taken out of the archive or restored."""

    text: ClassVar[str] = "conversation changed"
    event: Literal["session.updated"] = "session.updated"


class SessionDeleted(SessionMetadata):
    """A session is gone."""

    text: ClassVar[str] = "conversation deleted"
    event: Literal["session.deleted"] = "session.deleted"


class SessionActivity(SessionMetadata):
    """Something happened in a session."""

    text: ClassVar[str] = "conversation active"
    event: Literal["session.activity"] = "session.activity"


class FeedbackChanged(_Outgoing):
    """The user's verdict on a reply; without `value` it was taken back."""

    text: ClassVar[str] = "feedback changed"
    event: Literal["feedback.changed"] = "feedback.changed"
    message_id: str
    value: Literal["up", "down"] | None = None


class ShareCreated(_Outgoing):
    """The session has a new link to read by."""

    text: ClassVar[str] = "shared"
    event: Literal["share.created"] = "share.created"
    share_id: str
    created_at: str


class ShareRevoked(_Outgoing):
    """A link to read by holds no more."""

    text: ClassVar[str] = "no longer shared"
    event: Literal["share.revoked"] = "share.revoked"
    share_id: str


class Accepted(_Outgoing):
    """The chat is stored and has its run."""

    text: ClassVar[str] = "accepted"
    event: Literal["accepted"] = "accepted"
    client_message_id: str | None = None
    user_message_id: str
    message_id: str
    run_id: str
    outcome: Literal["started", "queued", "interrupting"]
    duplicate: bool


class RunQueued(RunMetadata):
    """`position` is the place in the queue; 0: next, once the model is ready (`model.status`)."""

    text: ClassVar[str] = "waiting"
    event: Literal["run.queued"] = "run.queued"
    position: int


class RunHead(RunMetadata):
    """Where a run is: answers a `cancel` that came after the end."""

    text: ClassVar[str] = "already ended"
    event: Literal["run.head"] = "run.head"
    status: str
    seq: int


class RunCancelling(RunMetadata):
    """The request to stop is noted."""

    text: ClassVar[str] = "stopping"
    event: Literal["run.cancelling"] = "run.cancelling"


class RunReset(RunMetadata):
    """Drop what is shown of this run: it starts again in a new epoch."""

    text: ClassVar[str] = "starting again"
    event: Literal["run.reset"] = "run.reset"
    reason: Literal["worker_lost"]


class Responded(RunMetadata):
    """Answers `respond` with what holds now; a `duplicate` has changed nothing."""

    text: ClassVar[str] = "answered"
    event: Literal["responded"] = "responded"
    request_id: str
    decision: Literal["approve", "reject", "cancelled", "expired"]
    by: str | None = None
    decided_at: str
    duplicate: bool


class OpenRequest(_Outgoing):
    """A tool call that waits to be approved; `arguments` is what the model gave, to the letter."""

    request_id: str
    tool_call_id: str
    tool: str
    description: str
    arguments: str
    expires_at: str


class Snapshot(RunMetadata):
    """Replaces all that is shown of the run; the next frame is `seq + 1`.

    `open_requests` are those of `parts` that nobody has decided.
    """

    text: ClassVar[str] = "caught up"
    event: Literal["snapshot"] = "snapshot"
    seq: int
    message_id: str
    parts: list[DescribedPart]
    open_requests: list[OpenRequest] = []
    run_status: str


class RunStarted(SequencedMetadata):
    """The agent is at work; always seq 1."""

    text: ClassVar[str] = "thinking"
    event: Literal["run.started"] = "run.started"
    agent: str


class RunRetrying(SequencedMetadata):
    """The model's server is asked again after `wait_s` seconds; `code` is what it had answered."""

    text: ClassVar[str] = "waiting for the model, trying again in {wait_s} s"
    event: Literal["run.retrying"] = "run.retrying"
    attempt: int
    wait_s: int
    code: ErrorCode


class ToolStarted(SequencedMetadata):
    """A tool is about to run."""

    text: ClassVar[str] = "using {name}"
    event: Literal["tool.started"] = "tool.started"
    tool_call_id: str
    name: str
    arguments: str | None = None


class ToolProgress(SequencedMetadata):
    """A tool tells how far it is; `fraction` is from 0 to 1."""

    text: ClassVar[str] = "{progress}"
    event: Literal["tool.progress"] = "tool.progress"
    tool_call_id: str
    name: str
    progress: str
    fraction: float | None = None


class ToolFinished(SequencedMetadata):
    """A tool has returned; `summary` says in a few words what it has done."""

    text: ClassVar[str] = "used {name}"
    event: Literal["tool.finished"] = "tool.finished"
    tool_call_id: str
    name: str
    output: str
    summary: str | None = None
    duration_ms: int | None = None


class ToolFailed(SequencedMetadata):
    """A tool has failed or was stopped."""

    text: ClassVar[str] = "{name} failed"
    event: Literal["tool.failed"] = "tool.failed"
    tool_call_id: str
    name: str
    output: str | None = None
    summary: str | None = None
    duration_ms: int | None = None


class ReasoningDelta(SequencedMetadata):
    """A piece of what the model tells of its reasoning."""

    text: ClassVar[str] = "thinking"
    event: Literal["reasoning.delta"] = "reasoning.delta"
    delta: str


class AgentChanged(SequencedMetadata):
    """Another agent has taken over."""

    text: ClassVar[str] = "{name} takes over"
    event: Literal["agent.changed"] = "agent.changed"
    name: str


class InputRequested(SequencedMetadata):
    """The run awaits its user's decision about a tool call; answer with `respond`.

    `arguments` is what the model gave, to the letter; `description` says what the tool does.
    """

    text: ClassVar[str] = "{tool} needs your approval"
    event: Literal["input.requested"] = "input.requested"
    request_id: str
    tool_call_id: str
    tool: str
    description: str
    arguments: str
    expires_at: str


class InputResolved(SequencedMetadata):
    """A request is decided, `by` somebody, or will not be: the run was stopped or expired."""

    text: ClassVar[str] = "{decision}"
    event: Literal["input.resolved"] = "input.resolved"
    request_id: str
    decision: Literal["approve", "reject", "cancelled", "expired"]
    by: str | None = None
    decided_at: str
    message: str | None = None


SEQUENCED_STATUS = (
    RunStarted,
    RunRetrying,
    ToolStarted,
    ToolProgress,
    ToolFinished,
    ToolFailed,
    ReasoningDelta,
    AgentChanged,
    InputRequested,
    InputResolved,
)
StatusMetadata = (
    Connected
    | Resumed
    | Unfollowed
    | Draining
    | ModelStatus
    | MessageCreated
    | MessageUpdated
    | QueueChanged
    | QueueDone
    | SessionCreated
    | SessionUpdated
    | SessionDeleted
    | SessionActivity
    | FeedbackChanged
    | ShareCreated
    | ShareRevoked
    | Accepted
    | RunQueued
    | RunHead
    | RunCancelling
    | RunReset
    | Responded
    | Snapshot
    | RunStarted
    | RunRetrying
    | ToolStarted
    | ToolProgress
    | ToolFinished
    | ToolFailed
    | ReasoningDelta
    | AgentChanged
    | InputRequested
    | InputResolved
)


class _ServerFrame(_Outgoing):
    session_id: str = ""

    def encode(self) -> str:
        """The frame as it goes over the wire."""
        return self.model_dump_json(exclude_none=True)


class Token(_ServerFrame):
    """A piece of the answer's text."""

    type: Literal["token"] = "token"
    content: str
    metadata: SequencedMetadata


class Status(_ServerFrame):
    """Anything that is neither text nor end; `content` is a short text for people."""

    type: Literal["status"] = "status"
    content: str
    metadata: Annotated[StatusMetadata, Field(discriminator="event")]


class Complete(_ServerFrame):
    """The end of a run; `content` is the whole authoritative reply."""

    type: Literal["complete"] = "complete"
    content: str
    metadata: CompleteMetadata


class Error(_ServerFrame):
    """Something was refused, or (`terminal`) a run has failed; `content` is safe to show."""

    type: Literal["error"] = "error"
    content: str
    metadata: ErrorMetadata


class PongMetadata(_Outgoing):
    """`server_time` in seconds since 1970."""

    server_time: float
    ts: int | float | str | None = None


class ServerPing(_ServerFrame):
    """The server's heartbeat."""

    type: Literal["ping"] = "ping"
    content: Literal[""] = ""
    metadata: PongMetadata


class ServerPong(_ServerFrame):
    """Answers the client's `ping`."""

    type: Literal["pong"] = "pong"
    content: Literal[""] = ""
    metadata: PongMetadata


ServerFrame = Token | Status | Complete | Error | ServerPing | ServerPong
SERVER_FRAMES: tuple[type[BaseModel], ...] = (
    Token,
    Status,
    Complete,
    Error,
    ServerPing,
    ServerPong,
)


def status(metadata: StatusMetadata, session_id: str = "") -> Status:
    """A status frame with the short text that goes with its event."""
    text = metadata.text.format_map(metadata.__dict__) if "{" in metadata.text else metadata.text
    return Status(session_id=session_id, content=text, metadata=metadata)


def error(
    exc: AgentSiteError, *, session_id: str = "", client_message_id: str | None = None
) -> Error:
    """The frame that tells a client of an error outside any run."""
    metadata = ErrorMetadata(
        code=exc.code,
        retryable=exc.info.retryable,
        retry_after=exc.retry_after,
        client_message_id=client_message_id,
    )
    return Error(session_id=session_id, content=str(exc.info.text), metadata=metadata)
