import os

from django.apps import AppConfig
from django.conf import settings


class RealtimeConfig(AppConfig):
    """The application `realtime`: registers its checks, and its handlers for committed changes."""

    name = "realtime"

    def ready(self) -> None:
        from conversations import changes
        from realtime import conf  # noqa: F401  (registers the checks)
        from realtime.conf import is_deferring
        from realtime.sockets.announcer import on_change
        from realtime.telemetry import metrics

        # Before its frames: whoever sees a run end can read that it was counted.
        changes.register(metrics.on_change)
        changes.register(on_change)
        if is_deferring():
            from realtime.work.procrastinate_executor import defer

            changes.register_enqueuer(defer)
        # The SDK picks default model settings by this variable, for agents that name no model.
        if model := getattr(settings, "AGENT_MODEL", ""):
            os.environ.setdefault("OPENAI_DEFAULT_MODEL", model)
