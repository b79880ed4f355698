from django.apps import AppConfig


class RealtimeConfig(AppConfig):
    """Agents over WebSockets."""

    name = "realtime"

    def ready(self) -> None:
        from conversations import notify
        from realtime.announcer import on_change

        notify.register(on_change)
