from django.apps import AppConfig


class ConversationsConfig(AppConfig):
    """What is kept of every conversation."""

    name = "conversations"
