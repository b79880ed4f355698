"""What the database holds, beside what a client was told."""

from agentsite.client import Client
from agentsite.client.events import Event, Rewritten, Text


async def texts_of(client: Client, session_id: str) -> list[str]:
    """The text of every message, in order."""
    session = await client.get_session(session_id)
    return [message["text"] for message in session["messages"]]


def shown(events: list[Event]) -> str:
    """What a reader sees who does what the events say."""
    text = ""
    for event in events:
        if isinstance(event, Text):
            text += event.delta
        elif isinstance(event, Rewritten):
            text = event.text
    return text
