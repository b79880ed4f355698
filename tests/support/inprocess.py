"""Sockets without a network: the consumer in this process, used by the same strict client."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

from channels.routing import URLRouter
from channels.testing import WebsocketCommunicator
from django.contrib.auth import get_user_model
from django.contrib.auth.base_user import AbstractBaseUser
from django.contrib.auth.models import User

from conversations.people.sign_ins import SignIn
from realtime.routing import websocket_urlpatterns
from tests.support.client import ChatClient
from tests.support.transcript import Transcript


class InProcessConnection:
    """The connection that `ChatClient` needs, implemented by a communicator."""

    def __init__(self, communicator: WebsocketCommunicator) -> None:
        self._communicator = communicator
        self.close_code: int | None = None

    async def send(self, text: str) -> None:
        await self._communicator.send_input({"type": "websocket.receive", "text": text})

    async def close(self) -> None:
        """Disconnect as a client does, and wait for the application's end."""
        if self.close_code is None:
            self.close_code = 1000
            self._communicator.output_queue.put_nowait({"type": "websocket.close", "code": 1000})
        await self._communicator.disconnect()

    def __aiter__(self) -> "InProcessConnection":
        return self

    async def __anext__(self) -> str:
        message: dict[str, Any] = await self._communicator.output_queue.get()
        if message["type"] == "websocket.close":
            self.close_code = self.close_code or message["code"]
            raise StopAsyncIteration
        text: str = message["text"]
        return text


def make_user(name: str) -> User:
    """Create an account in the test's own thread."""
    user: User = get_user_model().objects.create_user(name)
    return user


@contextlib.asynccontextmanager
async def open_chat_here(
    user: AbstractBaseUser, *, transcript: Transcript | None = None
) -> AsyncIterator[ChatClient]:
    """Open a client of `user`, admitted without a handshake."""
    communicator = WebsocketCommunicator(URLRouter(websocket_urlpatterns), "/ws/agent/")
    communicator.scope |= {
        "user": user,
        "refused": None,
        "sign_in": SignIn(user.pk, user.get_session_auth_hash(), None, None),
    }
    connected, _ = await communicator.connect()
    assert connected
    transcript = transcript or Transcript()
    transcript.reconnect()
    client = ChatClient(InProcessConnection(communicator), transcript)  # type: ignore[arg-type]
    try:
        yield client
    finally:
        await asyncio.shield(client.close())
