import os

from django.apps import AppConfig
from django.conf import settings


class RealtimeConfig(AppConfig):
    """Agents over WebSockets."""

    name = "realtime"

    def ready(self) -> None:
        from conversations import changes
        from realtime import conf  # noqa: F401  (registers them)
        from realtime.conf import is_deferring
        from realtime.sockets.announcer import on_change

        changes.register(on_change)
        if is_deferring():
            from realtime.work.procrastinate_executor import defer

            changes.register_enqueuer(defer)
        # An agent without a model of its own is made with the settings that suit this one.
        if model := getattr(settings, "AGENT_MODEL", ""):
            os.environ.setdefault("OPENAI_DEFAULT_MODEL", model)
