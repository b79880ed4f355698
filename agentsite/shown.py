"""Messages and sessions as the templates of the chat page take them."""

from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from django.urls import reverse
from django.utils.translation import gettext as _

from agentsite import words
from agentsite.cards import AgentCard, get_label, is_scripted
from conversations.models import ACTIVE, ChatSession, RunStatus
from conversations.reply_html import read_html, show_parts
from conversations.shapes import History, MessageView
from realtime.process import model_status


@dataclass(frozen=True)
class Place:
    """Which of the messages at one place is shown, from 1, and those beside it."""

    index: int
    count: int
    label: str
    previous: str
    next: str


@dataclass(frozen=True)
class ShownMessage:
    """What `chat/message.html` shows; `blocks` are the parts with their words."""

    message_id: str = ""
    role: str = "assistant"
    text: str = ""
    blocks: list[dict[str, Any]] = field(default_factory=list)
    status: str = ""
    label: str = ""
    scripted: bool = False
    state: str = ""
    ending: str = ""
    live: bool = False
    waiting: bool = False
    limited: bool = False
    created_at: datetime | None = None
    summary: str | None = None
    place: Place | None = None


def messages(
    history: History, siblings: dict[str, list[str]], card: AgentCard, username: str
) -> list[ShownMessage]:
    """The history as the page shows it to `username`; `siblings` are ids by their parents."""
    queue = [entry.run_id for entry in history.queue]
    html = read_html(history.messages)
    return [
        replace(
            _message(message, show_parts(message, html), queue, card, username),
            place=_place(message, siblings),
        )
        for message in history.messages
    ]


def _place(message: MessageView, siblings: dict[str, list[str]]) -> Place | None:
    ids = siblings.get(message.parent_message_id or "", [])
    if message.message_id not in ids:
        return None
    index = ids.index(message.message_id)
    before, after = ids[:index], ids[index + 1 :]
    label = str(words.VERSION).format(index=index + 1, count=len(ids))
    return Place(index + 1, len(ids), label, "".join(before[-1:]), "".join(after[:1]))


def _message(
    message: MessageView,
    parts: list[dict[str, Any]],
    queue: list[str],
    card: AgentCard,
    username: str,
) -> ShownMessage:
    created_at = datetime.fromisoformat(message.created_at)
    if message.role == "user":
        return ShownMessage(message.message_id, "user", message.text, created_at=created_at)
    working = message.run_status in ACTIVE
    return ShownMessage(
        message_id=message.message_id,
        blocks=[_block(part, username) for part in parts],
        status=message.run_status or RunStatus.COMPLETED,
        label=get_label(message.agent) or card.label,
        scripted=is_scripted(message.agent) or (not message.agent and card.scripted),
        state=_state(message, queue) if working else "",
        ending=str(words.describe_ending(message.run_status, message.reason, message.error_code)),
        live=message.run_status == RunStatus.RUNNING,
        waiting=message.run_id in queue,
        limited=(message.error_code or "").startswith("limit_"),
        created_at=created_at,
        summary=message.summary,
    )


def _state(message: MessageView, queue: list[str]) -> str:
    if message.run_id in queue:
        place = queue.index(message.run_id) + 1
        return str(words.STATES["waiting"]).format(position=place)
    model = model_status()
    if message.run_status == RunStatus.QUEUED and model and model.state not in ("ready", "failed"):
        return str(words.STATES["model"]).format(detail=model.detail)
    if message.run_status == RunStatus.AWAITING_INPUT:
        return str(words.STATES["awaiting"])
    return str(words.STATES["writing" if message.text else "thinking"])


def _block(part: dict[str, Any], username: str) -> dict[str, Any]:
    """A part with what `chat/block.html` needs beside it."""
    if part["type"] in ("text", "reasoning"):
        return part
    if part["type"] == "approval":
        return part | _approval(part, username)
    if part["type"] == "agent":
        label = str(words.TAKES_OVER).format(agent=get_label(part["name"]))
        return {"type": "agent", "label": label}
    return {
        "type": "tool",
        "status": part["status"],
        "label": words.describe_step(part),
        "fraction": part.get("fraction") if part["status"] == "progress" else None,
        "note": part.get("progress", "") if part["status"] == "progress" else "",
        "arguments": part.get("arguments") or "",
        "output": part.get("output") or "",
    }


def _approval(part: dict[str, Any], username: str) -> dict[str, Any]:
    decided_at = part.get("decided_at")
    return {
        "title": str(words.APPROVALS["title"]).format(tool=part["tool"].replace("_", " ")),
        "outcome": words.describe_decision(
            part.get("decision", ""), part.get("by") or "", username
        ),
        "decided_at": datetime.fromisoformat(decided_at) if decided_at else None,
    }


def blank(card: AgentCard) -> dict[str, Any]:
    """Empty ones of everything the page's own code adds."""
    return {
        "user": ShownMessage(role="user"),
        "assistant": ShownMessage(label=card.label, scripted=card.scripted),
        "step": {"status": "started", "fraction": None},
        "reasoning": {},
        "approval": {},
        "agent": {},
        "line": {},
    }


def session_line(session: Any, current: ChatSession | None) -> dict[str, Any]:
    """One of `list_sessions` as a line of the list."""
    states = {
        RunStatus.RUNNING: "replying",
        RunStatus.QUEUED: "queued",
        RunStatus.AWAITING_INPUT: "awaiting",
    }
    title = session.title or _("New conversation")
    return {
        "id": session.pk,
        "url": reverse("session", args=[session.pk]),
        "active_at": session.active_at.isoformat(),
        "title": title,
        "actions": str(words.MANAGE["actions"]).format(title=title),
        "current": current is not None and session.pk == current.pk,
        "state": words.SCRIPT.get(states.get(session.run_status, ""), ""),
    }
