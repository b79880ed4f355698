"""The WebSocket's address."""

import re
from typing import Any

from django.urls import re_path

from realtime.conf import socket_path
from realtime.consumer import ChatConsumer


async def refuse(scope: Any, receive: Any, send: Any) -> None:
    """Any other address: a refused handshake instead of a traceback in the log."""
    await receive()
    await send({"type": "websocket.close"})


websocket_urlpatterns = [
    re_path(rf"^{re.escape(socket_path().strip('/'))}/?$", ChatConsumer.as_asgi()),
    re_path(r"", refuse),  # type: ignore[arg-type]
]
