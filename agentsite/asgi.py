"""What the server calls: pages and REST by Django, WebSockets by `realtime`."""

import os

from channels.routing import ProtocolTypeRouter, URLRouter
from django.core.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "agentsite.settings")
pages = get_asgi_application()

# Only now are Django's models there to be imported.
from realtime.routing import HandshakeAuth, websocket_urlpatterns  # noqa: E402

application = ProtocolTypeRouter(
    {"http": pages, "websocket": HandshakeAuth(URLRouter(websocket_urlpatterns))}
)
