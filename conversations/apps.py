from django.apps import AppConfig
from django.db.models.signals import post_migrate, pre_migrate

from conversations import search_index


class ConversationsConfig(AppConfig):
    """What is kept of every conversation."""

    name = "conversations"
    # As the migrations have it, whatever a project chooses for its own.
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from conversations import checks, notify, snapshots  # noqa: F401  (checks registers them)

        notify.register(snapshots.on_change)
        pre_migrate.connect(search_index.lift, sender=self)
        post_migrate.connect(search_index.install, sender=self)
