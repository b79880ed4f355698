"""The terminal client: chats with any such site, lists conversations and exports them.

Like the client library that it uses, it needs only aiohttp: `python -m agentsite.terminal`.
"""

import asyncio
import getpass
import os
import sys
from argparse import ArgumentParser
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from agentsite.client import FORMATS, Client, ClientError
from agentsite.terminal.conversation import Background, Screen, TerminalChat, visible

DESCRIPTION = (
    "Chat with an agentsite in the terminal, list your conversations, or export them. The password "
    "is read from AGENTSITE_PASSWORD or prompted for; AGENTSITE_KEY may hold an API key instead, "
    "except for chats. Piped input is sent as one message."
)

FAILED = 1
INTERRUPTED = 130
CLOSED_PIPE = 141
"""The exit status of a program that SIGPIPE has ended."""


def add_arguments(parser: ArgumentParser, url: str) -> None:
    """Add all options to `parser`; `url` is the site's address by default."""
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

    Errors of the client are shown on standard error, not raised.
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
