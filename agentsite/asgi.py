"""The ASGI application: Django serves HTTP, `realtime` serves WebSockets."""

import os

from channels.routing import ProtocolTypeRouter, URLRouter
from django.core.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "agentsite.settings")
pages = get_asgi_application()

# These import models, so they must come after `get_asgi_application`, which sets up Django.
from realtime.routing import HandshakeAuth, websocket_urlpatterns  # noqa: E402

application = ProtocolTypeRouter(
    {"http": pages, "websocket": HandshakeAuth(URLRouter(websocket_urlpatterns))}
)
