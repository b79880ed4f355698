"""The WebSocket's address."""

from django.urls import re_path

from realtime.consumer import ChatConsumer

websocket_urlpatterns = [re_path(r"^ws/agent/?$", ChatConsumer.as_asgi())]
