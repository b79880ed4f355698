"""The terminal client: chats with any such site, lists conversations and exports them.

Like the client library that it uses, it needs only aiohttp: `python -m agentsite.terminal`.
"""

import asyncio
import contextlib
import getpass
import io
import json
import os
import re
import sys
import threading
from argparse import ArgumentParser
from collections.abc import AsyncIterator, Coroutine, Iterator, Mapping
from contextlib import AbstractAsyncContextManager
from math import ceil
from pathlib import Path
from typing import Any, TextIO, TypeVar

from agentsite.client import FORMATS, Chat, Client, ClientError, RefusedError, Reply
from agentsite.client.events import (
    AgentChanged,
    ApprovalDecided,
    ApprovalNeeded,
    Disconnected,
    Ended,
    Event,
    ModelStatus,
    Reconnected,
    Retrying,
    Rewritten,
    Started,
    Text,
    ToolEnded,
    ToolProgress,
    ToolStarted,
    Waiting,
)

T = TypeVar("T")

DESCRIPTION = (
    "Chat with an agentsite in the terminal, list your conversations, or export them. The password "
    "is read from AGENTSITE_PASSWORD or prompted for; AGENTSITE_KEY may hold an API key instead, "
    "which needs the scopes for what is asked. Piped input is sent as one message."
)

FAILED = 1
INTERRUPTED = 130
CLOSED_PIPE = 141
"""The exit status of a program that SIGPIPE has ended."""


class Background:
    """Runs coroutines in another thread; to be used with `with`, once.

    So Ctrl-C interrupts the main thread while that waits, and never the event loop.
    """

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def __enter__(self) -> "Background":
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run `coroutine` and wait for its result, or raise what it raises.

        If Ctrl-C ends the wait, raises `KeyboardInterrupt` at once and cancels the coroutine. For
        the main thread: the coroutine runs in the other one.
        """
        future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    @contextlib.contextmanager
    def entered(self, resource: AbstractAsyncContextManager[T]) -> Iterator[T]:
        """Enter `resource`, yield what it yields, and exit it after the block, even if that raises.

        `resource` is not told of the exception.
        """
        value = self.run(resource.__aenter__())
        try:
            yield value
        finally:
            self.run(resource.__aexit__(None, None, None))

    def each(self, items: AsyncIterator[T]) -> Iterator[T]:
        """Yield all of `items`; after an interruption, call it again with `items` for the rest.

        The interruption, which is raised here, cancels the pending `__anext__`. `items` must
        survive that: a `Reply` does, an async generator would end.
        """
        while True:
            try:
                yield self.run(_next(items))
            except StopAsyncIteration:
                return


async def _next(items: AsyncIterator[T]) -> T:
    return await anext(items)


_CONTROL = re.compile("\r(?!\n)|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")

DIM, PLAIN = "\x1b[2m", "\x1b[0m"

DECISIONS = {
    "approve": "approved",
    "reject": "rejected",
    "cancelled": "not needed any more",
    "expired": "expired, nobody answered in time",
}
REASONS = {
    "redirect": "stopped for another message",
    "disconnect": "stopped: nobody was reading",
    "limit": "stopped at a limit",
    "worker_lost": "broken off: the server that wrote it was lost",
    "approval_expired": "ended: nobody answered the request in time",
}
ENDINGS = {"cancelled": "stopped", "interrupted": "broken off"}


def visible(text: str) -> str:
    """Return `text` with control characters and changes of text direction replaced by `�` each.

    Tabs, line feeds, and carriage returns before a line feed stay.
    """
    return _CONTROL.sub("�", text)


class Screen:
    """Writes replies to `out` as they stream, and remarks to `err` on lines of their own."""

    def __init__(self, out: TextIO, err: TextIO) -> None:
        self._out = out
        self._err = err
        self._dim = (DIM, PLAIN) if err.isatty() else ("", "")
        self._in_line = False
        self._held = ""
        self._is_lost = False
        self._model = ""

    def write(self, text: str) -> None:
        """Write a piece of a reply to `out` at once, as `visible` text.

        A carriage return at its end waits for the next piece; `end_line` drops it.
        """
        text, self._held = self._held + text, ""
        if text.endswith("\r"):
            # The line feed of a "\r\n" may come with the next piece.
            text, self._held = text[:-1], "\r"
        if text:
            self._out.write(visible(text))
            self._out.flush()
            self._in_line = not text.endswith("\n")

    def end_line(self) -> None:
        """End the line that `out` is in, if any."""
        self._held = ""
        if self._in_line:
            self._out.write("\n")
            self._out.flush()
            self._in_line = False

    def remark(self, text: str) -> None:
        """Write "· " and `text`, as `visible` text, to `err` as a line of its own.

        First ends the line that `out` is in, if any. If `err` is a terminal, the line is dim.
        """
        self.end_line()
        before, after = self._dim
        self._err.write(f"{before}· {visible(text)}{after}\n")
        self._err.flush()

    def show(self, event: Event) -> None:
        """Write an event: the text of a reply to `out`, else a remark if there is news in it.

        Reasoning is not shown, nor a status of the model that reads as the one before.
        """
        match event:
            case Text(delta):
                self.write(delta)
            case Rewritten(text):
                self.remark("the reply begins again")
                self.write(text)
            case Ended():
                self._show_end(event)
            case _:
                if words := self._words(event):
                    self.remark(words)

    def _show_end(self, end: Ended) -> None:
        self.end_line()
        if end.finish_reason != "completed":
            self.remark(REASONS.get(end.reason) or ENDINGS[end.finish_reason])

    def _words(self, event: Event) -> str:
        match event:
            case Waiting(position):
                return f"waiting, number {position} in line" if position else ""
            case ModelStatus():
                return self._tell_model(event)
            case Retrying(wait_s, _):
                return f"the model does not answer, trying again in {wait_s} s"
            case AgentChanged(name):
                return f"{name} takes over"
            case Disconnected():
                return self._tell_lost(event)
            case Reconnected():
                self._is_lost = False
                return "reconnected"
            case ApprovalNeeded(_, tool, description, arguments, _):
                return f"{tool} needs your approval. {description}\n  {_pretty(arguments)}"
            case ApprovalDecided(_, decision, by):
                return DECISIONS[decision] + (f" by {by}" if by else "")
            case _:
                return _of_tool(event)

    def _tell_lost(self, event: Disconnected) -> str:
        """Return the remark on a lost connection; from the second one on, with the pause."""
        was_lost, self._is_lost = self._is_lost, True
        if was_lost:
            return f"no connection yet, trying again in {ceil(event.retry_s)} s"
        return "connection lost, reconnecting"

    def _tell_model(self, status: ModelStatus) -> str:
        """Return the remark on the model's status, or "" if it is the same as before."""
        done = "" if status.fraction is None else f", {status.fraction:.0%}"
        words = f"the model: {status.detail}{done}"
        known, self._model = self._model, words
        return "" if words == known else words


def _of_tool(event: Event) -> str:
    match event:
        case ToolStarted(_, name, arguments):
            return f"using {name} {arguments}".rstrip()
        case ToolProgress(_, _, progress, fraction):
            return progress if fraction is None else f"{progress}, {fraction:.0%}"
        case ToolEnded(_, name, failed, _, summary):
            return f"{name} failed" if failed else summary or f"used {name}"
        case Started() | _:
            return ""


def _pretty(arguments: str) -> str:
    try:
        return json.dumps(json.loads(arguments), indent=2, ensure_ascii=False).replace("\n", "\n  ")
    except ValueError:
        return arguments


LATEST = 4
"""The number of messages shown when a conversation is continued."""


class Leave(Exception):  # noqa: N818  (no error)
    """Ends a chat: the input has ended, Ctrl-C was pressed, or nobody can answer a question."""


class TerminalChat:
    """Reads messages from standard input, shows the replies, and stops a reply on Ctrl-C.

    Ctrl-C while a message is typed ends the chat.
    """

    def __init__(self, client: Client, background: Background, screen: Screen) -> None:
        self._client = client
        self._background = background
        self._screen = screen
        self._is_piped = not sys.stdin.isatty()

    def hold(self, session_id: str, agent: str) -> int:
        """Run the chat until its input ends; return the exit status.

        Without a `session_id`, begins a new conversation; without an `agent`, asks the default one.
        Piped input is one message. The status is 1 if that gets no completed reply, else 0. Raises
        `ClientError`, and `KeyboardInterrupt` at a second Ctrl-C during a reply.
        """
        with self._background.entered(self._client.chat(session_id, agent=agent)) as chat:
            return self._pipe(chat) if self._is_piped else self._converse(chat)

    def _pipe(self, chat: Chat) -> int:
        """Send standard input as one message; if it is empty, follow the active reply."""
        reply: Reply | None = None
        if isinstance(sys.stdin, io.TextIOWrapper):
            # Keep line endings as they are.
            sys.stdin.reconfigure(newline="")
        if text := sys.stdin.read().strip():
            reply = self._background.run(chat.send(text))
        elif chat.session_id:
            reply = self._background.run(chat.running())
        if reply is None:
            self._screen.remark("there is nothing to say")
            return FAILED
        try:
            return self._show(reply)
        except Leave:
            return FAILED
        finally:
            if chat.session_id:
                self._screen.remark(f"conversation {chat.session_id}")

    def _converse(self, chat: Chat) -> int:
        with contextlib.suppress(ImportError):
            # Importing readline gives `input` line editing.
            import readline  # noqa: F401
        self._screen.remark("Ctrl-C stops a reply, Ctrl-D leaves")
        try:
            if chat.session_id:
                self._catch_up(chat)
            while True:
                self._show(self._background.run(chat.send(self._ask())))
        except Leave:
            if chat.session_id:
                self._screen.remark(f"go on with --session {chat.session_id}")
            return 0

    def _ask(self) -> str:
        """Return the next message. Raises `Leave`."""
        try:
            while not (line := _read("> ")):
                pass
        except KeyboardInterrupt:
            sys.stdout.write("\n")
            raise Leave from None
        return line

    def _catch_up(self, chat: Chat) -> None:
        """Show the latest messages and follow the active reply."""
        session = self._background.run(self._client.get_session(chat.session_id))
        at_work = session["run"]["message_id"] if session["run"] else ""
        for message in session["messages"][-LATEST:]:
            if message["message_id"] != at_work:
                self._screen.write("> " if message["role"] == "user" else "")
                self._screen.write(message["text"])
                self._screen.end_line()
        if reply := self._background.run(chat.running()):
            self._show(reply)

    def _show(self, reply: Reply) -> int:
        """Show a reply until its end, also after an interruption; return 0 if it was completed."""
        is_stopping = False
        while True:
            try:
                if is_stopping:
                    self._background.run(reply.stop())
                self._follow(reply)
            except KeyboardInterrupt:
                if is_stopping:
                    raise
                is_stopping = True
                self._screen.remark("stopping; Ctrl-C again leaves")
            except RefusedError as exc:
                self._screen.remark(str(exc))
                return FAILED
            else:
                return 0 if reply.end and reply.end.finish_reason == "completed" else FAILED

    def _follow(self, reply: Reply) -> None:
        for event in self._background.each(reply):
            self._screen.show(event)
            # A reply that is followed from its beginning repeats approvals that were decided
            # before.
            if isinstance(event, ApprovalNeeded) and event.request_id in reply.open_requests:
                self._decide(reply, event.request_id)

    def _decide(self, reply: Reply, request_id: str) -> None:
        if self._is_piped:
            self._screen.remark("answer it on the page, or at a keyboard with --session")
            raise Leave
        decide = reply.approve if _read("Approve? [y/N] ").lower() in ("y", "yes") else reply.reject
        answer = self._background.run(decide(request_id))
        if answer.duplicate:
            self._screen.remark("somebody had answered before")


def _read(prompt: str) -> str:
    """Read a line. Raises `Leave` at the end of the input."""
    try:
        return input(prompt).strip()
    except EOFError:
        sys.stdout.write("\n")
        raise Leave from None


def add_arguments(parser: ArgumentParser, url: str) -> None:
    """Add all options of `run` to `parser`; `url` is the site's address by default."""
    parser.add_argument("--url", default=url, help="the site's address, by default %(default)s")
    parser.add_argument("--user", default="", help="the name to sign in with; else as a guest")
    parser.add_argument("--session", default="", help="the conversation to go on with, by its id")
    parser.add_argument("--agent", default="", help="the agent to talk to, by its name")
    other = parser.add_mutually_exclusive_group()
    other.add_argument("--list", action="store_true", help="list your conversations")
    other.add_argument(
        "--export", choices=FORMATS, help="export --session, or all conversations, in this format"
    )
    parser.add_argument("--output", type=Path, help="file to write the export to")


def run(options: Mapping[str, Any]) -> int:
    """Run the command of `options`, the parsed arguments by name; return the exit status.

    It is 0 for success, else `FAILED`, `INTERRUPTED` or `CLOSED_PIPE`. Errors of the client, and of
    files, are shown on standard error, not raised.
    """
    screen = Screen(sys.stdout, sys.stderr)
    try:
        client = Client(options["url"], key=os.environ.get("AGENTSITE_KEY", ""))
        with Background() as background, background.entered(client):
            return _do(client, background, screen, options)
    except (ClientError, ValueError) as exc:
        screen.remark(str(exc))
        return FAILED
    except BrokenPipeError:
        _give_up_output()
        return CLOSED_PIPE
    except OSError as exc:
        screen.remark(f"{exc.filename or 'the output'}: {exc.strerror}")
        return FAILED
    except KeyboardInterrupt:
        screen.end_line()
        return INTERRUPTED


def _give_up_output() -> None:
    """Discard further output after the reader closed the pipe, as in `| head`.

    Otherwise the interpreter would fail to flush it at exit.
    """
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _do(client: Client, background: Background, screen: Screen, options: Mapping[str, Any]) -> int:
    if not os.environ.get("AGENTSITE_KEY"):
        background.run(_sign_in(client, options["user"]))
    if options["list"]:
        return background.run(_list(client))
    if options["export"]:
        return background.run(_export(client, screen, options))
    return TerminalChat(client, background, screen).hold(options["session"], options["agent"])


async def _sign_in(client: Client, user: str) -> None:
    if user:
        await client.sign_in(user, _password(user))
    else:
        await client.sign_in_as_guest()


def _password(user: str) -> str:
    given = os.environ.get("AGENTSITE_PASSWORD")
    return getpass.getpass(f"Password of {user}: ") if given is None else given


async def _list(client: Client) -> int:
    async for session in client.list_sessions():
        at_work = f" ({session['run_status']})" if session["run_status"] else ""
        title = visible(session["title"])
        sys.stdout.write(f"{session['id']}  {session['active_at'][:16]}  {title}{at_work}\n")
    return 0


async def _export(client: Client, screen: Screen, options: Mapping[str, Any]) -> int:
    kind, session_id, file = options["export"], options["session"], options["output"]
    if file:
        size = await client.export(file, kind, session_id)
        screen.remark(f"{size:,} bytes in {file}")
        return 0
    async for piece in client.download(kind, session_id):
        await asyncio.to_thread(sys.stdout.buffer.write, piece)
    sys.stdout.buffer.flush()
    return 0


def main() -> int:
    """Run the terminal client on the arguments of the command line; return the exit status.

    It needs no Django. Exits at once for wrong arguments.
    """
    parser = ArgumentParser(prog="python -m agentsite.terminal", description=DESCRIPTION)
    add_arguments(parser, "http://127.0.0.1:8000")
    return run(vars(parser.parse_args()))


if __name__ == "__main__":
    sys.exit(main())
