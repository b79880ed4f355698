"""The ASGI application: Django serves HTTP, `realtime` serves WebSockets."""

import os
import re
from typing import Any
from uuid import uuid4

from channels.routing import ProtocolTypeRouter, URLRouter
from django.core.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "agentsite.settings")
pages = get_asgi_application()

# These import models, so they must come after `get_asgi_application`, which sets up Django.
from django.conf import settings  # noqa: E402

from realtime.routing import HandshakeAuth, websocket_urlpatterns  # noqa: E402
from realtime.tasks import note_ids  # noqa: E402

REQUEST_ID = re.compile(rb"[\w.-]{1,64}", re.ASCII)


class RequestIds:
    """Gives each request and socket an id in the log.

    It is that of the header X-Request-ID behind our own proxies (`PROXIES`), else a new one.
    """

    def __init__(self, application: Any) -> None:
        self._application = application

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if "headers" in scope:
            note_ids(request_id=_request_id(dict(scope["headers"]).get(b"x-request-id", b"")))
        await self._application(scope, receive, send)


def _request_id(given: bytes) -> str:
    is_trusted = settings.PROXIES and REQUEST_ID.fullmatch(given)
    return given.decode() if is_trusted else uuid4().hex


application = RequestIds(
    ProtocolTypeRouter(
        {"http": pages, "websocket": HandshakeAuth(URLRouter(websocket_urlpatterns))}
    )
)
