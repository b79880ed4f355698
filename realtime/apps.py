import os

from django.apps import AppConfig
from django.conf import settings


class RealtimeConfig(AppConfig):
    """Agents over WebSockets."""

    name = "realtime"

    def ready(self) -> None:
        from conversations import notify
        from realtime import checks  # noqa: F401  (registers them)
        from realtime.announcer import on_change
        from realtime.conf import is_deferring

        notify.register(on_change)
        if is_deferring():
            from realtime.procrastinate_executor import defer

            notify.register_enqueuer(defer)
        # An agent without a model of its own is made with the settings that suit this one.
        if model := getattr(settings, "AGENT_MODEL", ""):
            os.environ.setdefault("OPENAI_DEFAULT_MODEL", model)
