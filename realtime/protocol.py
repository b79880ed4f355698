"""The wire protocol, version 1: every frame as a type, and nothing else.

A frame is one JSON object in a WebSocket text message with `type`, `session_id`, `content` and
`metadata`. `metadata.event` names what a status frame of the server tells.
"""

import json
from typing import Annotated, ClassVar, Literal, NoReturn
from uuid import UUID

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
    """Refuse NUL: Postgres stores none in text, and an id must not be changed."""
    if "\x00" in text:
        raise ValueError("an id must not contain NUL")
    return text


ShortText = Annotated[str, Field(max_length=200), AfterValidator(_refuse_nul)]
ClientId = Annotated[str, Field(min_length=1, max_length=100), AfterValidator(_refuse_nul)]


class _Incoming(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True)


class ChatMetadata(_Incoming):
    """How a chat is handled; absent fields are as if they were null.

    A chat with a `client_message_id` that the user has sent before is a duplicate: nothing is
    stored. `on_busy` says what happens if a reply of the session is unfinished; without it, the
    chat is enqueued behind a queued or running one, and interrupts one that awaits input. Without
    `agent` that of the session answers. `parent_message_id` is the reply to go on from: empty
    begins a new branch, without it the chat goes on from the end of the active branch.
    `regenerate` is a reply whose prompt is to be answered again; then no message is stored.
    """

    client_message_id: ClientId | None = None
    on_busy: Literal["enqueue", "interrupt", "reject"] | None = None
    agent: ShortText | None = None
    parent_message_id: ShortText | None = None
    regenerate: ShortText | None = None


class Chat(_Incoming):
    """A message to the agent; without `session_id` it starts a session."""

    type: Literal["chat"]
    session_id: ShortText = ""
    content: str = ""
    metadata: ChatMetadata = ChatMetadata()


class CancelMetadata(_Incoming):
    """Which run of the session to stop: that of `run_id`, else that of `client_message_id`.

    With neither it is the session's first unfinished run, else its last.
    """

    run_id: ShortText | None = None
    client_message_id: ShortText | None = None


class Cancel(_Incoming):
    """Stop a reply; also before its first token, while it waits, and when it has ended.

    The answer is `run.cancelling`, or `run.head` if it had ended.
    """

    type: Literal["cancel"]
    session_id: ShortText = ""
    metadata: CancelMetadata = CancelMetadata()


class PingMetadata(_Incoming):
    """`ts` is any number or text, which `pong` returns unchanged."""

    ts: int | float | ShortText | None = None


class ClientPing(_Incoming):
    """Asks for a `pong`."""

    type: Literal["ping"]
    metadata: PingMetadata = PingMetadata()


class ClientPong(_Incoming):
    """Answers the server's `ping`; accepted and ignored."""

    type: Literal["pong"]


class ResumeMetadata(_Incoming):
    """The cursor: how much the client has already shown; without `rev` no messages are sent.

    `rev` is the last revision of the session that it has. `epoch` and `seq` are those of the last
    frame of the run `run_id`, the latest that it shows; without `run_id` they are ignored.
    """

    rev: Annotated[int, Field(ge=0, le=2**53)] | None = None
    run_id: ShortText | None = None
    epoch: Annotated[int, Field(ge=0, le=2**53)] = 0
    seq: Annotated[int, Field(ge=0, le=2**53)] = 0


class QueueMetadata(_Incoming):
    """The change to make in the queue, which is without the session's first unfinished run.

    `edit` replaces the text of a waiting message by the frame's `content`, `remove` withdraws the
    message, `move` puts it at `position`; these three need `run_id`. `position` counts from 1;
    beyond the end it is the end. `clear` withdraws all messages in the queue, but not the first
    unfinished one, even if it waits to start.
    """

    op: Literal["edit", "remove", "move", "clear"]
    run_id: ShortText = ""
    position: Annotated[int, Field(ge=1, le=1_000)] = 1

    @model_validator(mode="after")
    def refuse_incomplete(self) -> "QueueMetadata":
        if self.op != "clear" and not self.run_id:
            raise ValueError("run_id is required unless op is clear")
        return self


class Queue(_Incoming):
    """Change the messages that wait in the queue."""

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
    """The decision about the request `request_id`; with `reject`, the model is given `message`.

    `message` is empty for a text of the site's. Only the first decision counts.
    """

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
    """Parse one frame; a `session_id` or `metadata` that is null counts as missing.

    Unknown fields are ignored. The size is not checked. Raises `AgentSiteError` with `bad_frame`
    (not JSON, too deep, no `type`, wrong shape) or `unsupported_type` (an unknown `type`).
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
    """Return the `client_message_id` in the text of a refused frame.

    None if the text is not JSON or has no valid one; raises nothing.
    """
    try:
        named = json.loads(text)["metadata"]["client_message_id"]
        return _client_id.validate_python(named, strict=True)
    except (ValueError, LookupError, TypeError, RecursionError):
        return None


class _Outgoing(BaseModel):
    model_config = ConfigDict(frozen=True)


class Usage(_Outgoing):
    """Tokens of all model calls of a run; a field is absent if it is unknown.

    Cached input is part of the input, and reasoning of the output; the total is input and output.
    `cost` is a decimal number in `currency`, by the site's price list.
    """

    input_tokens: int | None = None
    output_tokens: int | None = None
    total_tokens: int | None = None
    cached_input_tokens: int | None = None
    reasoning_tokens: int | None = None
    cost: str | None = None
    currency: str | None = None


class RunMetadata(_Outgoing):
    """The run that a frame is about, and its epoch.

    `run_number` gives the order of runs in their session, from 1; that of a waiting run may rise.
    `epoch` is 0 until the run is claimed.
    """

    run_id: str
    run_number: int
    epoch: int


class SequencedMetadata(RunMetadata):
    """A frame of the run's journal: within an epoch, `seq` counts from 1 without a gap.

    `message_id` is the id of the run's reply.
    """

    seq: int
    message_id: str


UsageSource = Literal["measured", "estimated", "unknown"]


class CompleteMetadata(SequencedMetadata):
    """How the run ended, without a failure; `html` is the HTML of the whole reply.

    `reason` says why it was stopped, or ended early; absent for a run that came to its own end.
    """

    finish_reason: Literal["completed", "cancelled", "interrupted"]
    reason: (
        Literal["user", "redirect", "disconnect", "limit", "worker_lost", "approval_expired"] | None
    ) = None
    usage: Usage
    usage_source: UsageSource
    html: str


class ErrorMetadata(_Outgoing):
    """`terminal` means that the run named here has ended; `retry_after` is in seconds.

    Without `terminal` the error is outside any run: fields of a run and the usage are absent, and
    `client_message_id` is that of the refused frame. `retryable`: the same may succeed later.
    """

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
    """What the server accepts from one socket: bytes of UTF-8 in a frame, and frames in a minute.

    `queue_max` messages may wait in each session; a socket may follow `follow_max` sessions.
    """

    frame_max_bytes: int
    frames_per_minute: int
    queue_max: int
    follow_max: int


class Connected(_Outgoing):
    """First frame of every socket; `user_id` is the user who is signed in.

    `protocol` is the name and version of the protocol. The server pings about every `heartbeat_s`
    seconds.
    """

    text: ClassVar[str] = "connected"
    event: Literal["connected"] = "connected"
    protocol: str
    user_id: str
    heartbeat_s: float
    limits: Limits


class Resumed(_Outgoing):
    """Answers `resume`. `recovered: false` means: load the history again.

    `rev` is the session's revision now. `run_id` is its first unfinished run, absent without one.
    The server also sends this unasked, with `recovered: false`, if a socket has missed too much.
    """

    text: ClassVar[str] = "resumed"
    event: Literal["resumed"] = "resumed"
    rev: int
    recovered: bool
    run_id: str | None = None


class Unfollowed(_Outgoing):
    """The server dropped this session in favour of a newer one; `resume` follows it again."""

    text: ClassVar[str] = "not followed any more"
    event: Literal["unfollowed"] = "unfollowed"


class Draining(_Outgoing):
    """The server is about to stop: connect again after the pause, then close this socket.

    The pause is `reconnect_after_ms` and a random time of the client's own.
    """

    text: ClassVar[str] = "restarting"
    event: Literal["draining"] = "draining"
    reconnect_after_ms: int


class ModelStatus(_Outgoing):
    """The state of the embedded model, if there is one; `fraction` is from 0 to 1.

    Sent after `connected` and at every change. `detail` is a short text for people. `fraction` is
    how much of the model is fetched, absent in other states.
    """

    text: ClassVar[str] = "{detail}"
    event: Literal["model.status"] = "model.status"
    model: str
    state: Literal["starting", "fetching", "loading", "ready", "failed"]
    detail: str
    fraction: float | None = None


class MessageMetadata(_Outgoing):
    """A message; the receiver replaces the one that it has under `message_id`.

    Without `parts` the receiver keeps its parts: the run's frames bring them. A `withdrawn` message
    was taken back while it waited; the receiver removes it. `summary` is the text that the model is
    given in place of all messages up to this one, empty if it is given none; without `summary` the
    receiver keeps its own. `number` gives the order in the session; `html` is that of a whole
    reply. `run_id` to `error_code` are those of the run that writes the message.
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
    """A run that waits in the queue; `again` asks for another reply to an earlier message.

    `message_id` and `content` are those of the message that it answers.
    """

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
    """Answers `queue`: the change is made, and `queue` waits now. It moves no cursor."""

    text: ClassVar[str] = "queue changed"
    event: Literal["queue.done"] = "queue.done"
    op: Literal["edit", "remove", "move", "clear"]
    queue: list[QueueEntry]


class SessionMetadata(_Outgoing):
    """An entry of the list of sessions; an `archived` one leaves it, a `pinned` one is at its top.

    `active_at` is ISO 8601. `run_status` is that of the first unfinished run, absent without one.
    """

    rev: int
    title: str
    active_at: str
    run_status: str | None = None
    archived: bool = False
    pinned: bool = False


class SessionCreated(SessionMetadata):
    """The user has a new session."""

    text: ClassVar[str] = "new conversation"
    event: Literal["session.created"] = "session.created"


class SessionUpdated(SessionMetadata):
    """A session was renamed, pinned, archived, restored, or one of the first three was undone.

    Also sent if its queue changed, and if such a request changed nothing.
    """

    text: ClassVar[str] = "conversation changed"
    event: Literal["session.updated"] = "session.updated"


class SessionDeleted(SessionMetadata):
    """A session was deleted."""

    text: ClassVar[str] = "conversation deleted"
    event: Literal["session.deleted"] = "session.deleted"


class SessionActivity(SessionMetadata):
    """Something happened in a session: a chat, or a change of a run's status."""

    text: ClassVar[str] = "conversation active"
    event: Literal["session.activity"] = "session.activity"


class FeedbackChanged(_Outgoing):
    """The user's feedback on a reply; without `value` it was taken back."""

    text: ClassVar[str] = "feedback changed"
    event: Literal["feedback.changed"] = "feedback.changed"
    message_id: str
    value: Literal["up", "down"] | None = None


class ShareCreated(_Outgoing):
    """The session has a new share."""

    text: ClassVar[str] = "shared"
    event: Literal["share.created"] = "share.created"
    share_id: str
    created_at: str


class ShareRevoked(_Outgoing):
    """A share was revoked."""

    text: ClassVar[str] = "no longer shared"
    event: Literal["share.revoked"] = "share.revoked"
    share_id: str


class Accepted(_Outgoing):
    """The chat is stored and has a run; a `duplicate` was stored before, and nothing is changed.

    `user_message_id` is the message that is answered, `message_id` the reply. `outcome` is what
    was done at first: the run was started, waits, or interrupts another one.
    """

    text: ClassVar[str] = "accepted"
    event: Literal["accepted"] = "accepted"
    client_message_id: str | None = None
    user_message_id: str
    message_id: str
    run_id: str
    outcome: Literal["started", "queued", "interrupting"]
    duplicate: bool


class RunQueued(RunMetadata):
    """The run waits at `position` in the queue; 0: it is the next, once a worker takes it."""

    text: ClassVar[str] = "waiting"
    event: Literal["run.queued"] = "run.queued"
    position: int


class RunHead(RunMetadata):
    """Answers a `cancel` of a run that had already ended, with its last status and `seq`."""

    text: ClassVar[str] = "already ended"
    event: Literal["run.head"] = "run.head"
    status: str
    seq: int


class RunCancelling(RunMetadata):
    """A request to stop the run is stored; the run's last frame comes when it has stopped."""

    text: ClassVar[str] = "stopping"
    event: Literal["run.cancelling"] = "run.cancelling"


class RunReset(RunMetadata):
    """Drop what is shown of this run: it starts again in a new epoch."""

    text: ClassVar[str] = "starting again"
    event: Literal["run.reset"] = "run.reset"
    reason: Literal["worker_lost"]


class Responded(RunMetadata):
    """Answers `respond` with the decision that counts; a `duplicate` has changed nothing.

    `by` is the name of the user who decided; absent for `cancelled` and `expired`.
    """

    text: ClassVar[str] = "answered"
    event: Literal["responded"] = "responded"
    request_id: str
    decision: Literal["approve", "reject", "cancelled", "expired"]
    by: str | None = None
    decided_at: str
    duplicate: bool


class OpenRequest(_Outgoing):
    """A tool call that waits for approval; `arguments` are exactly those that the model gave.

    `description` says what the tool does, `irreversible` that it cannot be undone. `expires_at` is
    ISO 8601; then the run ends.
    """

    request_id: str
    tool_call_id: str
    tool: str
    description: str
    arguments: str
    expires_at: str
    irreversible: Literal[True] | None = None


class Snapshot(RunMetadata):
    """Replaces all that is shown of the run; the next frame is `seq + 1`.

    `open_requests` are the requests in `parts` that nobody has decided yet.
    """

    text: ClassVar[str] = "caught up"
    event: Literal["snapshot"] = "snapshot"
    seq: int
    message_id: str
    parts: list[DescribedPart]
    open_requests: list[OpenRequest] = []
    run_status: str


class RunStarted(SequencedMetadata):
    """The agent has started work; always seq 1."""

    text: ClassVar[str] = "thinking"
    event: Literal["run.started"] = "run.started"
    agent: str


class RunRetrying(SequencedMetadata):
    """The model's server is asked again after `wait_s` seconds; `code` is its latest error.

    `attempt` counts such repetitions of one model call from 1.
    """

    text: ClassVar[str] = "waiting for the model, trying again in {wait_s} s"
    event: Literal["run.retrying"] = "run.retrying"
    attempt: int
    wait_s: int
    code: ErrorCode


class ToolStarted(SequencedMetadata):
    """A tool is about to run; `arguments` are shortened to what users are shown."""

    text: ClassVar[str] = "using {name}"
    event: Literal["tool.started"] = "tool.started"
    tool_call_id: str
    name: str
    arguments: str | None = None


class ToolProgress(SequencedMetadata):
    """The progress of a tool; `fraction` is from 0 to 1, absent if the tool gave none."""

    text: ClassVar[str] = "{progress}"
    event: Literal["tool.progress"] = "tool.progress"
    tool_call_id: str
    name: str
    progress: str
    fraction: float | None = None


class ToolFinished(SequencedMetadata):
    """A tool has returned; `summary` says in a few words what it did.

    `output` is shortened to what users are shown. `summary` is absent if the tool gave none.
    """

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
    """A piece of the model's reasoning, to be added to the pieces before it."""

    text: ClassVar[str] = "thinking"
    event: Literal["reasoning.delta"] = "reasoning.delta"
    delta: str


class AgentChanged(SequencedMetadata):
    """Another agent has taken over the reply; `name` is its name."""

    text: ClassVar[str] = "{name} takes over"
    event: Literal["agent.changed"] = "agent.changed"
    name: str


class InputRequested(SequencedMetadata):
    """The run awaits its user's decision about a tool call; answer with `respond`.

    `arguments` are exactly those that the model gave; `description` says what the tool does, and
    `irreversible` that its effect cannot be undone.
    """

    text: ClassVar[str] = "{tool} needs your approval"
    event: Literal["input.requested"] = "input.requested"
    request_id: str
    tool_call_id: str
    tool: str
    description: str
    arguments: str
    expires_at: str
    irreversible: Literal[True] | None = None


class InputResolved(SequencedMetadata):
    """A request was decided, `by` somebody, or never will be: the run was stopped or expired.

    `by` is the name of a user, absent if nobody decided. `message` is what the user said with a
    rejection.
    """

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
        """Return the frame as JSON, without fields that are None."""
        return self.model_dump_json(exclude_none=True)


class Token(_ServerFrame):
    """A piece of the answer's text, `content`, to be added to the pieces before it."""

    type: Literal["token"] = "token"
    content: str
    metadata: SequencedMetadata


class Status(_ServerFrame):
    """Anything that is neither text nor an end; `content` is a short text for people."""

    type: Literal["status"] = "status"
    content: str
    metadata: Annotated[StatusMetadata, Field(discriminator="event")]


class Complete(_ServerFrame):
    """The end of a run; `content` is the whole reply and replaces the text that was streamed."""

    type: Literal["complete"] = "complete"
    content: str
    metadata: CompleteMetadata


class Error(_ServerFrame):
    """Something was refused, or (`terminal`) a run has failed; `content` is safe to show."""

    type: Literal["error"] = "error"
    content: str
    metadata: ErrorMetadata


class PongMetadata(_Outgoing):
    """`server_time` is in seconds since 1970; `ts` is that of the client's `ping`, else absent."""

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


def status(metadata: StatusMetadata, session_id: UUID | str = "") -> Status:
    """Make a status frame; its `content` is the short text of its event, with fields filled in.

    `session_id` "" is for a frame that is about no session.
    """
    text = metadata.text.format_map(metadata.__dict__) if "{" in metadata.text else metadata.text
    return Status(session_id=str(session_id), content=text, metadata=metadata)


def error(
    exc: AgentSiteError, *, session_id: str = "", client_message_id: str | None = None
) -> Error:
    """Make the frame for an error outside any run; its `content` is the error's text for people.

    The ids are those of the refused frame, "" and None if it has none.
    """
    metadata = ErrorMetadata(
        code=exc.code,
        retryable=exc.info.retryable,
        retry_after=exc.retry_after,
        client_message_id=client_message_id,
    )
    return Error(session_id=session_id, content=str(exc.info.text), metadata=metadata)
