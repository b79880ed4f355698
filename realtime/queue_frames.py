"""From a client's frame to a change of its queue."""

from typing import Any, assert_never

from conversations import queue
from conversations.queries import User
from conversations.shapes import QueueView
from realtime.protocol import Queue


def change_queue(user: User, frame: Queue) -> list[QueueView]:
    """Do what the frame says; what waits then. Raises `AgentSiteError`."""
    asked = frame.metadata
    session: dict[str, Any] = {"user": user, "session_id": frame.session_id}
    match asked.op:
        case "edit":
            return queue.edit_queued(**session, run_id=asked.run_id, content=frame.content)
        case "remove":
            return queue.remove_queued(**session, run_id=asked.run_id)
        case "move":
            return queue.move_queued(**session, run_id=asked.run_id, position=asked.position)
        case "clear":
            return queue.clear_queue(**session)
        case _:
            assert_never(asked.op)
