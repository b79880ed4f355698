"""Sessions and messages as the REST API shows them."""

from dataclasses import asdict
from typing import Any

from rest_framework import serializers

from conversations.models import ChatSession
from conversations.shapes import History, MessageView


class SessionSerializer(serializers.ModelSerializer[ChatSession]):
    """A session without its messages; `run_status` is that of its unfinished run, or null."""

    run_status = serializers.CharField(read_only=True, allow_null=True)

    class Meta:
        model = ChatSession
        fields = (
            *("id", "title", "agent", "rev", "message_count", "run_status"),
            *("created_at", "active_at"),
        )
        read_only_fields = fields


def message_data(message: MessageView) -> dict[str, Any]:
    """A message, with its answer text beside the parts."""
    return {**asdict(message), "text": message.text}


def history_data(history: History) -> dict[str, Any]:
    """The latest messages of the active branch, the run at work and the queue."""
    return {
        "messages": [message_data(message) for message in history.messages],
        "run": asdict(history.run) if history.run else None,
        "queue": [asdict(entry) for entry in history.queue],
    }
