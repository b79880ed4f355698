"""A chat without a socket: a reader of its own, from the chat to the end of its reply."""

import asyncio
import json
import logging
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

from channels.layers import get_channel_layer
from django.contrib.auth.base_user import AbstractBaseUser

from conversations.actions import NewChat
from conversations.sign_ins import SignIn
from realtime import commands
from realtime.conf import get_conf
from realtime.outbox import Outbox
from realtime.poller import Socket
from realtime.process import Process, get_process
from realtime.protocol import CLOSE_RESTART
from realtime.supervisor import Supervisor
from realtime.tracebacks import describe
from realtime.viewer import Viewer

logger = logging.getLogger(__name__)

Frame = dict[str, Any]

RECEIVED_MAX = 100
"""Messages of the layer that wait for a reader which catches up; the next ones are dropped."""


async def stream_turn(
    user: AbstractBaseUser, new: NewChat, *, watches: bool, sign_in: SignIn | None = None
) -> AsyncGenerator[Frame, None]:
    """`accepted`, then the frames of the reply up to its last; raises `AgentSiteError` at first.

    It ends early when the server stops, and the same `client_message_id` goes on; and when
    `sign_in` has ended, or without one the account or its password. A reader that does
    not `watch` keeps no reply alive by reading it, and ends none by going away.
    """
    async with _open(user, sign_in, watches=watches) as reader:
        posted = await commands.chat(reader.process, reader.viewer, new)
        async for frame in reader.frames():
            yield frame
            if _is_last(frame, posted.run.run_id):
                return


def _is_last(frame: Frame, run_id: str) -> bool:
    metadata = frame["metadata"]
    ended = frame["type"] == "complete" or (frame["type"] == "error" and metadata.get("terminal"))
    return bool(ended and metadata["run_id"] == run_id)


class _Reader:
    """What a socket's consumer is to a socket, with a place for one frame instead."""

    def __init__(self, process: Process, viewer: Viewer, outbox: Outbox) -> None:
        self.process = process
        self.viewer = viewer
        self.outbox = outbox
        self._ready: asyncio.Queue[str | None] = asyncio.Queue(maxsize=1)
        self._received: asyncio.Queue[Any] = asyncio.Queue(maxsize=RECEIVED_MAX)

    async def send_all(self) -> None:
        """Until the reader is to be let go; nobody waits for ever for what cannot be sent."""
        try:
            await self.outbox.run(self._ready.put, self._close, self.viewer.on_drained)
        except Exception as exc:
            logger.error("sending failed: %s", describe(exc))
            await self._close(CLOSE_RESTART)

    async def _close(self, code: int) -> None:
        await self._ready.put(None)

    async def receive_all(self, layer: Any, channel: str) -> None:
        """Queue what comes through the layer, until cancelled.

        Nothing else may be awaited here: the Redis layer unsubscribes from a channel only when
        its `receive` is cancelled.
        """
        while True:
            message = await layer.receive(channel)
            with suppress(asyncio.QueueFull):  # what is dropped is read from the database
                self._received.put_nowait(message)

    async def follow_all(self) -> None:
        """Hand on what was received, until cancelled."""
        while True:
            message = await self._received.get()
            if message["type"] == "run.frames":
                await self.viewer.on_run_frames(message)
            elif message["type"] == "run.notice":
                await self.viewer.on_notice(message)

    async def frames(self) -> AsyncIterator[Frame]:
        """Until the server stops, or the sign-in has ended."""
        while (text := await self._ready.get()) is not None:
            yield json.loads(text)


@asynccontextmanager
async def _open(
    user: AbstractBaseUser, sign_in: SignIn | None, *, watches: bool
) -> AsyncIterator[_Reader]:
    conf, process, layer = get_conf(), get_process(), get_channel_layer()
    channel = await layer.new_channel()
    outbox = Outbox(max_frames=conf.outbox_frames, max_bytes=conf.outbox_bytes)
    viewer = Viewer(user, layer, channel, outbox, watches=watches)
    reader, tasks = _Reader(process, viewer, outbox), Supervisor()
    sign_in = sign_in or SignIn(user.pk, user.get_session_auth_hash(), None, None)
    with process.poller.watch(Socket(viewer, outbox, sign_in)):
        try:
            tasks.start(reader.receive_all(layer, channel), f"receive {channel}")
            tasks.start(reader.follow_all(), f"follow {channel}")
            tasks.start(reader.send_all(), f"send {channel}")
            yield reader
        finally:
            await tasks.stop()
            await viewer.close()
