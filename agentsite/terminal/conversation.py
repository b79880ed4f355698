"""A chat by the keyboard, or of one message that is piped in."""

import contextlib
import io
import sys

from agentsite.client import Chat, Client, RefusedError, Reply
from agentsite.client.events import ApprovalNeeded
from agentsite.terminal.background import Background
from agentsite.terminal.screen import Screen

FAILED = 1
LATEST = 4
"""Messages that are shown where a conversation is gone on with."""


class Leave(Exception):  # noqa: N818  (no error)
    """There is nobody to ask any more."""


class Conversation:
    """Asks, shows what is answered, and stops it when the person says so."""

    def __init__(self, client: Client, background: Background, screen: Screen) -> None:
        self._client = client
        self._background = background
        self._screen = screen
        self._is_piped = not sys.stdin.isatty()

    def hold(self, session_id: str, agent: str) -> int:
        """The exit status: 0, unless the reply to what was piped in was not completed."""
        with self._background.entered(self._client.chat(session_id, agent=agent)) as chat:
            return self._pipe(chat) if self._is_piped else self._converse(chat)

    def _pipe(self, chat: Chat) -> int:
        """One message, or without any the rest of what is being said."""
        reply: Reply | None = None
        if isinstance(sys.stdin, io.TextIOWrapper):
            # Lines as they are, however they end.
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
            # With it, `input` knows how to edit a line.
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
        """The next message; raises `Leave`."""
        try:
            while not (line := _read("> ")):
                pass
        except KeyboardInterrupt:
            sys.stdout.write("\n")
            raise Leave from None
        return line

    def _catch_up(self, chat: Chat) -> None:
        """What was said last, and the rest of what is being said."""
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
        """Every event until the end, also after an interruption; 0 when it was completed."""
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
            # One that was decided before is not asked for again.
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
    """A line that was typed; raises `Leave` at the end of the input."""
    try:
        return input(prompt).strip()
    except EOFError:
        sys.stdout.write("\n")
        raise Leave from None
