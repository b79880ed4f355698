"""What the database stores of a conversation, read by the REST API."""

import asyncio
from collections.abc import Iterable
from typing import Any

from tests.support.client import ChatClient
from tests.support.site import Site, User
from tests.support.transcript import RunView, Transcript, text_of
from tests.support.waiting import TIMEOUT_S, poll

UNFINISHED = ("queued", "running", "awaiting_input")


class Kept:
    """The messages of one session, on all branches."""

    def __init__(self, messages: list[dict[str, Any]]) -> None:
        self.messages = messages

    @property
    def texts(self) -> dict[str, str]:
        """The text of every message by its id."""
        return {message["message_id"]: message["text"] for message in self.messages}

    @property
    def prompts(self) -> list[str]:
        """The texts of the user's messages."""
        return [message["text"] for message in self.messages if message["role"] == "user"]

    @property
    def replies(self) -> list[dict[str, Any]]:
        return [message for message in self.messages if message["role"] == "assistant"]

    def reply(self, run_id: str) -> dict[str, Any]:
        """Return the reply of a run."""
        return next(message for message in self.replies if message["run_id"] == run_id)

    @property
    def has_ended(self) -> bool:
        """Whether no run is unfinished."""
        return all(reply["run_status"] not in UNFINISHED for reply in self.replies)


def read_kept(site: Site, user: User, session_id: str) -> Kept:
    """Read the session as it is now."""
    return Kept(site.get_json(f"/api/sessions/{session_id}/transcript/", user)["messages"])


def read_history(site: Site, user: User, session_id: str) -> Transcript:
    """Read what a client starts from that loads the history by REST."""
    data = site.get_json(f"/api/sessions/{session_id}/", user)
    transcript = Transcript()
    for message in data["messages"]:
        transcript.messages[message["message_id"]] = message | {"session_id": session_id}
    if run := data["run"]:
        parts = transcript.messages[run["message_id"]]["parts"]
        transcript.seed(run_view(session_id, run, parts), rev=data["rev"])
    return transcript


def run_view(session_id: str, run: dict[str, Any], parts: list[dict[str, Any]]) -> RunView:
    """Return the view of an active run as the REST API describes it, with `parts` of its reply."""
    return RunView(
        session_id,
        run["run_id"],
        run["run_number"],
        epoch=run["epoch"],
        seq=run["seq"],
        text=text_of(parts),
        message_id=run["message_id"],
    )


async def read_ended(site: Site, user: User, session_id: str, *, within: float = TIMEOUT_S) -> Kept:
    """Wait until all runs of the session have ended, and read it."""

    def read() -> Kept:
        found = [read_kept(site, user, session_id)]

        def ended() -> bool:
            found[0] = read_kept(site, user, session_id)
            return found[0].has_ended

        # Requests of a user are counted: on a slow machine the wait may take most of a minute.
        poll(ended, "the end of all runs", within=within, every=0.2)
        return found[0]

    return await asyncio.to_thread(read)


async def converge(
    site: Site, user: User, session_id: str, *followers: ChatClient, within: float = TIMEOUT_S
) -> Kept:
    """Wait until all runs have ended and every follower shows exactly what is stored."""
    kept = await read_ended(site, user, session_id, within=within)
    for follower in followers:
        await _shows(follower, session_id, kept, within)
    return kept


async def _shows(follower: ChatClient, session_id: str, kept: Kept, within: float) -> None:
    def find() -> list[str]:
        return differences(follower, session_id, kept)

    try:
        await follower.wait_until(lambda: not find(), within=within)
    except TimeoutError:
        raise AssertionError("\n".join(["not what is kept:", *find()])) from None


def differences(follower: ChatClient, session_id: str, kept: Kept) -> list[str]:
    """List messages that are shown differently than stored, and runs whose end was not received."""
    shown, texts = follower.transcript.shown(session_id), kept.texts
    wrong = [
        f"{message_id}: kept {texts.get(message_id)!r}, shown {shown.get(message_id)!r}"
        for message_id in texts.keys() | shown.keys()
        if texts.get(message_id) != shown.get(message_id)
    ]
    return [*wrong, *_open_runs(follower, session_id)]


def _open_runs(follower: ChatClient, session_id: str) -> Iterable[str]:
    for run in follower.transcript.runs.values():
        if run.session_id == session_id and run.is_working:
            yield f"run {run.number} has no end"
