from django.apps import AppConfig
from django.db.models.signals import post_migrate, pre_migrate

from conversations import search_index


class ConversationsConfig(AppConfig):
    """What is kept of every conversation."""

    name = "conversations"

    def ready(self) -> None:
        pre_migrate.connect(search_index.lift, sender=self)
        post_migrate.connect(search_index.install, sender=self)
