import os

from django.apps import AppConfig
from django.conf import settings


class RealtimeConfig(AppConfig):
    """Agents over WebSockets."""

    name = "realtime"

    def ready(self) -> None:
        from conversations import notify
        from realtime.announcer import on_change

        notify.register(on_change)
        # An agent without a model of its own is made with the settings that suit this one.
        os.environ.setdefault("OPENAI_DEFAULT_MODEL", settings.AGENT_MODEL)
