"""A chat: sends requests until they are answered, and passes frames to replies.

After a lost connection, unanswered requests are sent again: messages with the same
`client_message_id`, so that the server accepts each once; active replies are resumed.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal
from uuid import uuid4

from agentsite.client.connection import JITTER, Connection
from agentsite.client.events import Disconnected, Event, ModelStatus, Reconnected
from agentsite.client.http import ClientError, Http, RefusedError, refusal
from agentsite.client.reply import Answer, Frame, GapError, Reply


@dataclass(eq=False)
class Request:
    """A frame, sent or to be sent, that waits for its answer.

    `is_answer` recognizes the answer, with which `take` is called; `fail` is called with the error
    that is answered instead, or that has ended the chat.
    """

    frame: Frame
    is_answer: Callable[[Frame], bool]
    take: Callable[[Frame], Awaitable[None]]
    fail: Callable[[ClientError], Awaitable[None]]

    @property
    def is_chat(self) -> bool:
        return bool(self.frame["type"] == "chat")

    @property
    def is_resume(self) -> bool:
        """Whether this is a `resume`, which every new socket sends anew."""
        return bool(self.frame["type"] == "resume")


class Requests:
    """The unanswered requests in the order of sending, in which the site answers them.

    Iterating goes over a copy, so requests may be added and removed meanwhile.
    """

    def __init__(self) -> None:
        self._all: list[Request] = []

    def __len__(self) -> int:
        return len(self._all)

    def __iter__(self) -> Iterator[Request]:
        return iter(list(self._all))

    def add(self, request: Request) -> None:
        """Append a request; this does not send it."""
        self._all.append(request)

    def remove(self, request: Request) -> None:
        """Remove a request that gets no answer, because it was too large to be sent."""
        self._all.remove(request)

    def is_first(self, request: Request) -> bool:
        return self._all[0] is request

    def is_resuming(self, run_id: str) -> bool:
        """Return whether a `resume` of this run is unanswered."""
        asked = [request.frame["metadata"] for request in self._all if request.is_resume]
        return any(metadata["run_id"] == run_id for metadata in asked)

    def clear(self) -> list[Request]:
        """Remove all requests and return them in their order; calls neither `take` nor `fail`."""
        taken, self._all = self._all, []
        return taken

    async def hear(self, frame: Frame) -> None:
        """Remove the request that `frame` answers, and call its `take` or `fail`.

        An error that names no request is the answer to the oldest one. A frame that answers none
        is ignored.
        """
        is_error = is_refusal(frame)
        for request in self._all:
            named = is_error and _name_of(request.frame) == _name_of(frame) != ""
            if named or request.is_answer(frame):
                break
        else:
            if not is_error or _name_of(frame) or not self._all:
                return
            request = self._all[0]
        self._all.remove(request)
        await (request.fail(fault_of(frame)) if is_error else request.take(frame))


def is_refusal(frame: Frame) -> bool:
    """Return whether a frame is an error that refuses a request; other errors end a run."""
    return frame["type"] == "error" and not frame["metadata"].get("terminal")


def fault_of(frame: Frame) -> RefusedError:
    """Return the exception for an error frame, such as one of `is_refusal`."""
    at = frame["metadata"]
    return refusal(
        at["code"], frame["content"], retryable=at["retryable"], retry_after=at.get("retry_after")
    )


def busy_s(frame: Frame) -> float | None:
    """Return the seconds after which the site has room for a chat that it refuses for now.

    None for any other frame.
    """
    at = frame["metadata"]
    is_busy = is_refusal(frame) and at["code"] == "unavailable" and _name_of(frame)
    return at.get("retry_after") if is_busy else None


def _name_of(frame: Frame) -> str:
    return str(frame["metadata"].get("client_message_id", ""))


OnBusy = Literal["enqueue", "interrupt", "reject"]


class Chat:
    """A conversation over one connection, from `async with client.chat(...)`.

    `session_id` is "" until the first message is accepted. Replies that are active at the end of
    the block continue on the server without a reader; reading them on raises `ClientError`.
    """

    def __init__(self, http: Http, session_id: str, *, agent: str, patience_s: float) -> None:
        self.session_id = session_id
        self._http = http
        self._agent = agent
        self._patience_s = patience_s
        self._connection = Connection(http, self, patience_s=patience_s)
        self._requests = Requests()
        self._unsent: set[Reply] = set()
        self._replies: dict[str, Reply] = {}
        self._model: ModelStatus | None = None
        self._was_lost = False
        self._fault: ClientError | None = None
        self._pause: asyncio.Task[None] | None = None
        self._busy_until: float | None = None

    @property
    def is_waiting(self) -> bool:
        """Whether a request is unanswered or a reply is active."""
        return bool(self._requests or self._replies)

    async def __aenter__(self) -> "Chat":
        self._running = asyncio.create_task(self._run(), name="chat")
        return self

    async def __aexit__(self, *exc: object) -> None:
        for task in (self._running, self._pause):
            if task is not None:
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task
        await self._end(ClientError("The chat was left before this had ended."))

    async def send(self, content: str, *, on_busy: OnBusy | None = None) -> Reply:
        """Send a message, now or once there is a connection; the server accepts it at most once.

        `on_busy` says what happens while another reply is active: `enqueue` waits for it,
        `interrupt` stops it and goes before all that wait, `reject` refuses this message as `busy`;
        without it, the message waits, but stops a reply that awaits an approval. Returns before the
        site has answered. Raises nothing: the reply, when it is read, raises a refusal, and the
        error that ended the chat.
        """
        name = uuid4().hex
        asked = {"client_message_id": name, "agent": self._agent, "on_busy": on_busy}
        metadata = {key: value for key, value in asked.items() if value}
        reply = Reply(self)
        self._unsent.add(reply)

        def is_answer(frame: Frame) -> bool:
            at = frame["metadata"]
            return (at.get("event"), at.get("client_message_id")) == ("accepted", name)

        async def accept(frame: Frame) -> None:
            self._unsent.discard(reply)
            await self._accept(reply, frame)

        async def fail(fault: ClientError) -> None:
            self._unsent.discard(reply)
            reply.close(fault)
            if not self.session_id:
                await self._send_held()

        frame = {"type": "chat", "content": content, "metadata": metadata}
        await self._ask(Request(frame, is_answer, accept, fail))
        return reply

    async def running(self) -> Reply | None:
        """Return the session's first unfinished reply, to be read from its beginning, or None.

        If this chat follows that reply already, the `Reply` of before gets no more events. The chat
        must have a `session_id`. Raises `RefusedError` and `UnreachableError`.
        """
        session = await self._http.get(f"/api/sessions/{self.session_id}/")
        if session["run"] is None:
            return None
        reply = Reply(self)
        self._begin(reply, session["run"])
        await self._resume(reply)
        return reply

    async def cancel(self, reply: Reply) -> None:
        """Stop `reply` once it is accepted, and wait for the answer; called by `Reply.stop`.

        Does nothing if it has ended or was refused. Raises `RefusedError`, and `UnreachableError`
        if the connection is not restored in time.
        """
        await reply.taken()
        if reply.run_id in self._replies:
            frame = {"type": "cancel", "metadata": {"run_id": reply.run_id}}
            await self._answer_to(
                frame, lambda answer: _run_of(answer) == reply.run_id and _is_stop(answer)
            )

    async def respond(
        self, request_id: str, decision: Literal["approve", "reject"], message: str
    ) -> Answer:
        """Decide an approval and wait for the answer; called by `Reply.approve` and `reject`.

        Raises `RefusedError`, and `UnreachableError` if the connection is not restored in time.
        """
        asked = {"request_id": request_id, "decision": decision, "message": message}
        answer = await self._answer_to(
            {"type": "respond", "metadata": asked},
            lambda frame: (
                frame["metadata"].get("event") == "responded"
                and frame["metadata"]["request_id"] == request_id
            ),
        )
        at = answer["metadata"]
        return Answer(at["decision"], at.get("by", ""), at["duplicate"])

    async def _answer_to(self, frame: Frame, is_answer: Callable[[Frame], bool]) -> Frame:
        """Send a frame and return its answer. Raises the error that is answered instead."""
        answer: asyncio.Future[Frame] = asyncio.get_running_loop().create_future()

        async def take(frame: Frame) -> None:
            if not answer.done():
                answer.set_result(frame)

        async def fail(fault: ClientError) -> None:
            if not answer.done():
                answer.set_exception(fault)

        await self._ask(Request(frame, is_answer, take, fail))
        return await answer

    async def _ask(self, request: Request) -> None:
        if self._fault is not None:
            await request.fail(self._fault)
            return
        self._requests.add(request)
        self._connection.wake()
        if self._may_send(request):
            await self._send(request)

    def _may_send(self, request: Request) -> bool:
        """Return whether a request is to be sent now: chats wait for room, all for the session."""
        is_paused = request.is_chat and self._pause is not None
        return not is_paused and bool(self.session_id or self._requests.is_first(request))

    async def _send(self, request: Request) -> None:
        try:
            await self._connection.send({"session_id": self.session_id, **request.frame})
        except RefusedError as exc:
            self._requests.remove(request)
            await request.fail(exc)

    async def _resume(self, reply: Reply) -> None:
        def is_answer(frame: Frame) -> bool:
            return bool(frame["metadata"].get("event") == "resumed")

        cursor = {"run_id": reply.run_id, **reply.view.cursor}
        frame = {"type": "resume", "metadata": cursor}
        await self._ask(Request(frame, is_answer, self._resumed, self._not_resumed))

    async def _resumed(self, frame: Frame) -> None:
        """Do nothing: the frames themselves follow."""

    async def _not_resumed(self, fault: ClientError) -> None:
        if isinstance(fault, RefusedError) and fault.retryable:
            await self._connection.drop()
        else:
            await self._end(fault)

    async def _run(self) -> None:
        try:
            await self._connection.run()
        except ClientError as exc:
            await self._end(exc)
        except Exception as exc:
            await self._end(ClientError(f"{self._http.url} says what is not known here: {exc!r}"))
            raise

    async def _end(self, fault: ClientError) -> None:
        """End the chat: fail all replies and requests with `fault`."""
        if self._fault is None:
            self._fault = fault
            for reply in self._replies.values():
                reply.close(fault)
            self._replies.clear()
            for request in self._requests.clear():
                await request.fail(fault)

    def _tell_all(self, event: Event) -> None:
        for reply in [*self._replies.values(), *self._unsent]:
            reply.tell(event)

    def on_lost(self, retry_s: float) -> None:
        """Give a `Disconnected` to all replies that have not ended; called by the connection."""
        self._was_lost = True
        self._tell_all(Disconnected(retry_s))

    async def on_open(self) -> None:
        """Resume the active replies, then send all unanswered requests again in their order.

        While there is no session, only the first one is sent. Gives all replies that have not ended
        a `Reconnected`, if the connection was lost before. Called by the connection.
        """
        waiting = [request for request in self._requests.clear() if not request.is_resume]
        for reply in self._replies.values():
            await self._resume(reply)
        for request in waiting:
            await self._ask(request)
        if self._was_lost:
            self._was_lost = False
            self._tell_all(Reconnected())

    async def on_frame(self, frame: Frame) -> None:
        """Pass a frame to the request that it answers and to the reply of its run.

        A status of the model goes to all replies that have not ended. Called by the connection.
        """
        at = frame["metadata"]
        if at.get("event") == "model.status":
            self._model = ModelStatus(at["state"], at["detail"], at.get("fraction"))
            self._tell_all(self._model)
        if not self._postpone(frame):
            await self._requests.hear(frame)
        if at.get("event") == "resumed" and not at["recovered"]:
            # The site cannot send what was missed, so ask for each active reply.
            for reply in list(self._replies.values()):
                await self._resume(reply)
        await self._pass_on(frame)

    async def _accept(self, reply: Reply, frame: Frame) -> None:
        is_first = not self.session_id
        self.session_id = frame["session_id"]
        self._begin(reply, frame["metadata"])
        if is_first:
            await self._send_held()
            # Resume, so that the socket follows the session, as it does after each reconnection.
            await self._resume(reply)

    async def _send_held(self) -> None:
        """Send what was held back until the session exists: all of it, or the first message."""
        for request in self._requests:
            if self._may_send(request):
                await self._send(request)

    def _postpone(self, frame: Frame) -> bool:
        """Pause all chats if the site has no room for one; return whether that is so.

        Return False once that has lasted for `patience_s`.
        """
        seconds, now = busy_s(frame), asyncio.get_running_loop().time()
        if frame["metadata"].get("event") == "accepted":
            self._busy_until = None
        if seconds is None:
            return False
        self._busy_until = self._busy_until or now + self._patience_s
        if now + seconds > self._busy_until:
            self._busy_until = None
            return False
        if self._pause is None:
            self._pause = asyncio.create_task(self._send_later(seconds), name="pause")
        return True

    async def _send_later(self, seconds: float) -> None:
        await asyncio.sleep(seconds * JITTER.uniform(1, 1.5))
        self._pause = None
        for request in self._requests:
            if request.is_chat and self._may_send(request):
                await self._send(request)

    def _begin(self, reply: Reply, run: dict[str, Any]) -> None:
        self._replies[run["run_id"]] = reply
        reply.begin(self.session_id, run["run_id"], run["message_id"])
        if self._model is not None and self._model.state != "ready":
            reply.tell(self._model)

    async def _pass_on(self, frame: Frame) -> None:
        reply = self._replies.get(_run_of(frame))
        if reply is None:
            return
        try:
            if reply.take(frame):
                del self._replies[reply.run_id]
        except GapError:
            if not self._requests.is_resuming(reply.run_id):
                await self._resume(reply)


def _run_of(frame: Frame) -> str:
    return str(frame["metadata"].get("run_id", ""))


def _is_stop(frame: Frame) -> bool:
    """Return whether a frame answers a `cancel`, or says that the run has ended."""
    told = frame["metadata"].get("event") in ("run.cancelling", "run.head")
    return told or frame["type"] == "complete" or bool(frame["metadata"].get("terminal"))
