"""People who write one message each and read the reply, wherever a server is."""

import asyncio
import contextlib
import random
from itertools import cycle
from uuid import uuid4

from websockets.exceptions import WebSocketException

from tests.support.client import ChatClient
from tests.support.kept import Kept, differences, read_ended
from tests.support.site import Site, User
from tests.support.transcript import Transcript
from tests.support.waiting import Noticeboard

PATIENCE_S = 90


class Reader:
    """A page: it writes one message, and goes wherever a server is until the reply has ended.

    Posts to `board` whenever its text has begun.
    """

    def __init__(
        self, user: User, text: str, board: Noticeboard, transcript: Transcript | None = None
    ) -> None:
        self.user = user
        self.text = text
        self.client_message_id = uuid4().hex
        self.transcript = transcript or Transcript()
        self.session_id = self.run_id = ""
        self.client: ChatClient | None = None
        self._board = board

    @property
    def has_begun(self) -> bool:
        run = self.transcript.runs.get(self.run_id)
        return run is not None and bool(run.text)

    @property
    def has_ended(self) -> bool:
        run = self.transcript.runs.get(self.run_id)
        return run is not None and run.terminal is not None

    async def read(self, sites: list[Site], sending: asyncio.Semaphore) -> None:
        """To the end. Told of a drain, it opens its next socket before it leaves this one."""
        async with contextlib.AsyncExitStack() as sockets:
            for site in cycle(sites):
                try:
                    await self._move(await self._open(site, sockets), sending)
                except (OSError, WebSocketException):
                    continue
                if self.has_ended:
                    return

    async def _open(self, site: Site, sockets: contextlib.AsyncExitStack) -> ChatClient:
        return await sockets.enter_async_context(site.chat(self.user, self.transcript))

    async def _move(self, client: ChatClient, sending: asyncio.Semaphore) -> None:
        """Read on a new socket, until the reply has ended or it is time to look for another."""
        if self.client is not None:
            self.client.leave()
        self.client = client
        await self._send(client, sending)
        await client.wait_until(lambda: self.has_ended or client.draining, within=PATIENCE_S)
        if client.draining and not self.has_ended:
            pause_s = client.draining["metadata"]["reconnect_after_ms"] / 1_000
            with contextlib.suppress(TimeoutError):
                await client.wait_until(
                    lambda: self.has_ended, within=pause_s * random.uniform(1, 2)
                )

    async def _send(self, client: ChatClient, sending: asyncio.Semaphore) -> None:
        if not self.session_id:
            async with sending:
                accepted = await client.chat(self.text, client_message_id=self.client_message_id)
            self.session_id, self.run_id = accepted["session_id"], accepted["run_id"]
        await client.resume(self.session_id)
        await client.wait_until(lambda: self.has_begun or self.has_ended, within=PATIENCE_S)
        self._board.post()


async def read_status(site: Site, reader: Reader, words: list[str]) -> str:
    """Return how the one reply of a session ended, of which `words` are the whole text.

    Asserts that the reader was shown what is kept.
    """
    kept: Kept = await read_ended(site, reader.user, reader.session_id)
    assert kept.prompts == [reader.text]
    assert reader.client
    assert differences(reader.client, reader.session_id, kept) == []
    [reply] = kept.replies
    whole = "".join(words)
    is_whole = reply["run_status"] == "completed"
    assert reply["text"] == whole if is_whole else whole.startswith(reply["text"]), reply
    return str(reply["run_status"])
