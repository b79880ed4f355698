"""The WebSocket's address."""

from typing import Any

from django.urls import re_path

from realtime.consumer import ChatConsumer


async def refuse(scope: Any, receive: Any, send: Any) -> None:
    """Any other address: a refused handshake instead of a traceback in the log."""
    await receive()
    await send({"type": "websocket.close"})


websocket_urlpatterns = [
    re_path(r"^ws/agent/?$", ChatConsumer.as_asgi()),
    re_path(r"", refuse),  # type: ignore[arg-type]
]
