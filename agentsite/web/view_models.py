"""Prepares messages, sessions and agents for templates, and holds the texts of the page."""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from django.conf import settings
from django.http import HttpRequest
from django.templatetags.static import static
from django.urls import reverse
from django.utils import timezone
from django.utils.formats import date_format
from django.utils.functional import Promise
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from agentsite.tour import NAME as TOUR
from conversations.errors import ERRORS, ErrorCode
from conversations.models import ACTIVE, ChatSession, EndReason, RunStatus
from conversations.runs.usage import RunUsage, read_run_usage
from conversations.sessions.rendering import read_html, show_parts
from conversations.shapes import History, MessageView
from realtime.process import model_status
from realtime.registry import AgentEntry, get_entry, list_entries

Text = str | Promise

ENDINGS: dict[str, Text] = {
    RunStatus.CANCELLED: _("This reply was stopped."),
    RunStatus.INTERRUPTED: _("This reply was cut short. What you see is saved."),
    RunStatus.FAILED: ERRORS[ErrorCode.INTERNAL].text,
    EndReason.USER: _("You stopped this reply."),
    EndReason.REDIRECT: _("Stopped for your newer message."),
    EndReason.DISCONNECT: _("Stopped because nobody was reading along. What you see is saved."),
    EndReason.LIMIT: _("Stopped at a limit. What you see is saved."),
    EndReason.APPROVAL_EXPIRED: _("Nobody answered in time. What you see is saved."),
    EndReason.WORKER_LOST: _(
        "The server stopped while this was being written. What you see is saved."
    ),
}
ERROR_TEXTS: dict[str, Text] = {code.value: info.text for code, info in ERRORS.items()}
STATES: dict[str, Text] = {
    "sending": _("sending…"),
    "offline": _("waiting for the connection…"),
    "model": _("waiting: {detail}"),
    "waiting": _("waiting, number {position} in line"),
    "thinking": _("thinking…"),
    "writing": _("writing…"),
    "stopping": _("stopping…"),
    "awaiting": _("waiting for your decision"),
    "restarting": _("starting again…"),
    "retrying": _("waiting for the model, trying again in {seconds} s…"),
}
STEPS: dict[str, Text] = {
    "started": _("Using {name}…"),
    "progress": _("Using {name}…"),
    "finished": _("Used {name}"),
    "failed": _("{name} did not finish"),
}
APPROVALS: dict[str, Text] = {
    "title": _("Allow {tool}?"),
    "approve_you": _("You approved this."),
    "approve": _("{by} approved this."),
    "reject_you": _("You rejected this."),
    "reject": _("{by} rejected this."),
    "expired": _("Nobody answered in time."),
    "cancelled": _("Not answered: the reply was stopped."),
    "before": _("That was answered already."),
}
GROUPS: dict[str, Text] = {
    "pinned": _("Pinned"),
    "today": _("Today"),
    "yesterday": _("Yesterday"),
    "week": _("Previous 7 days"),
}
MANAGE: dict[str, Text] = {
    "actions": _("Actions for {title}"),
    "archived": _("“{title}” is archived."),
    "unarchived": _("“{title}” is back in the list."),
    "deleted": _("“{title}” is deleted."),
    "failed": _("That did not work. Nothing was changed: try again."),
    "search_failed": _("The search did not work. Try again."),
    "found_one": _("1 conversation found."),
    "found": _("{count} conversations found."),
    "found_more": _("The newest {count} are shown."),
    "nothing_found": _("Nothing found."),
    "nothing_archived": _("Nothing is archived."),
}
FEEDBACK: dict[str, Text] = {
    "up": _("What was good?"),
    "down": _("What was wrong?"),
    "given": _("Your verdict is kept. You can add a comment."),
    "taken_back": _("Your verdict is taken back."),
    "thanks": _("Thank you."),
}
SHARE: dict[str, Text] = {
    "made": _("Made {date}"),
    "revoked": _("That link does not work any more."),
    "failed": _(
        "That did not work. Try again; there is nothing to share before the first message."
    ),
}
VERSION = _("Version {index} of {count}")
TOOK = _("{step}, {seconds} s")
YES, NO = _("yes"), _("no")
SAFE_INTEGER = 2**53 - 1
# Shorter durations are not shown.
NOTABLE_MS = 50
CODE = {"show": _("Show all {count} lines"), "hide": _("Show less")}
TAKES_OVER = _("{agent} takes over")
UNKNOWN_PART = _("This part cannot be shown here. Reload the page later.")
USAGE = _("{input} tokens in, {output} out")
USAGE_COST = _("{usage} · {cost} {currency}")
SCRIPT: dict[str, Any] = {
    "states": STATES,
    "endings": ENDINGS,
    "errors": ERROR_TEXTS,
    "steps": STEPS,
    "approvals": APPROVALS,
    "groups": GROUPS,
    "manage": MANAGE,
    "feedback": FEEDBACK,
    "share": SHARE,
    "version": VERSION,
    "took": TOOK,
    "yes": YES,
    "no": NO,
    "takes_over": TAKES_OVER,
    "unknown_part": UNKNOWN_PART,
    "code": CODE,
    "continue": _("Continue"),
    "untitled": _("New conversation"),
    "replying": _("replying"),
    "queued": _("waiting"),
    "awaiting": _("needs you"),
    "archived": _("archived"),
    "unread": _("new"),
    "usage": USAGE,
    "usage_cost": USAGE_COST,
    "announce": {
        "started": _("{agent} is replying."),
        "completed": _("{agent} has replied."),
        "asked": _("{agent} needs your approval."),
    },
    "connection": {
        "connecting": _("Connecting…"),
        "waiting": _("Connection lost. Reconnecting in {seconds} s."),
        "offline": _("You are offline."),
        "signed_out": _("You are signed out."),
        "refused": _("This address may not connect to the chat. Open the site by its own name."),
        "unsent_one": _("1 message is waiting to be sent."),
        "unsent": _("{count} messages are waiting to be sent."),
        "unstored": _("Leave this page open until then: your browser could not store everything."),
        "retry": _("Retry now"),
    },
    "composer": {
        "too_long": _("This message is too long to send: shorten it to {limit} KB or less."),
        "queued_one": _("1 message is waiting for its turn."),
        "queued": _("{count} messages are waiting for their turn."),
        "unplaced": _("This was not sent yet: messages before it were still loading."),
        "unfollowed": _("This was not sent yet: the message before it was refused."),
        "edited_late": _("That message was sent before your change, which is kept here."),
        "guest_failed": _("The message could not be sent. It is kept here: try again."),
    },
    "titles": {
        "plain": "{title} · {site}",
        "busy": _("Replying · {title} · {site}"),
        "replied": _("New reply · {title} · {site}"),
    },
    "copy": {"done": _("Copied"), "failed": _("Not copied")},
    "loading": _("Opening the conversation…"),
    "missing": _("This conversation does not exist any more."),
}


def describe_decision(decision: str, by: str, username: str) -> str:
    """Return the outcome of an approval, decided by the user `by`, as told to `username`.

    Returns "" while the approval is open: `decision` is "" then. A decision that a newer server has
    written is returned as it is.
    """
    if by and by == username and f"{decision}_you" in APPROVALS:
        decision += "_you"
    return str(APPROVALS.get(decision, decision)).format(by=by)


def describe_ending(status: str | None, reason: str | None, error_code: str | None) -> Text:
    """Return why a reply ended early; "" for one that is active, is complete or has no run.

    The arguments are those of the reply's run: its status, the `EndReason`, if any, and the code of
    the error with which it failed.
    """
    if status in ACTIVE:
        return ""
    if error_code in ERROR_TEXTS and status == RunStatus.FAILED:
        return ERROR_TEXTS[error_code]
    return ENDINGS.get(reason or "") or ENDINGS.get(status or "", "")


def describe_usage(spent: RunUsage | None) -> str:
    """Return the tokens and the cost of a reply; "" if the tokens are not known, or none.

    A cost that is not known, or 0, is left out.
    """
    if spent is None or not (spent.input_tokens or spent.output_tokens):
        return ""
    usage = str(USAGE).format(input=spent.input_tokens, output=spent.output_tokens)
    if not spent.cost:
        return usage
    cost = f"{spent.cost:f}".rstrip("0").rstrip(".")
    return str(USAGE_COST).format(usage=usage, cost=cost, currency=spent.currency)


def read_pairs(text: str) -> list[tuple[str, str]]:
    """Return the names and values of a JSON object as people read them; [] for any other text.

    Also [] if it has a value that is not exact in JavaScript, or cannot be shown on a line.
    """
    try:
        given = json.loads(text)
    except (ValueError, RecursionError):
        return []
    if not isinstance(given, dict):
        return []
    pairs = [(name, _read_value(value)) for name, value in given.items()]
    # JavaScript reorders names that are numbers.
    if any((name.isascii() and name.isdecimal()) or value is None for name, value in pairs):
        return []
    return [(name, value or "") for name, value in pairs]


def _read_value(value: Any) -> str | None:
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return str(YES if value else NO)
    is_whole = isinstance(value, int) or (isinstance(value, float) and value.is_integer())
    return str(int(value)) if is_whole and abs(value) <= SAFE_INTEGER else None


def describe_step(part: dict[str, Any]) -> str:
    """Return what the tool of `part` does or did, in words.

    That is its own summary if it has finished and gave one, else a text with its name. A duration
    of `NOTABLE_MS` or more is added, in seconds to a tenth.
    """
    status, summary = part["status"], part.get("summary")
    label = str(STEPS.get(status, "{name}")).format(name=part["name"].replace("_", " "))
    said = summary if status == "finished" and summary else label
    if part.get("duration_ms", 0) < NOTABLE_MS:
        return said
    # Round halves up, as the page's script does.
    tenths = (part["duration_ms"] + 50) // 100
    return str(TOOK).format(step=said, seconds=f"{tenths / 10:.1f}")


@dataclass(frozen=True)
class Brand:
    """The site on its pages: its name, and the address of its logo.

    `accent` is its colour as `#rrggbb`, or "" for the usual one.
    """

    name: str
    logo: str
    accent: str


def brand_context(request: HttpRequest | None = None) -> dict[str, Brand]:
    """Return the context of every page, as `brand`; also for pages without a request."""
    logo = settings.SITE_LOGO
    address = logo if logo.startswith("/") else static(logo)
    return {"brand": Brand(settings.SITE_NAME, address, settings.SITE_ACCENT)}


READABLE = 4.5
"""The least contrast of text, by the formula of WCAG 2."""
WHITE, BLACK = (255, 255, 255), (16, 24, 24)
# The ground of text that is nearest to it in lightness, in the light and in the dark scheme.
SURFACES = ((234, 240, 239), (44, 50, 55))
Colour = tuple[int, int, int]


def accent_style(accent: str) -> str:
    """Return the style sheet that gives the pages the colour `accent`, as in `#0b6b69`.

    In either scheme it is mixed with black or white until it can be read on the page's surfaces;
    text on it is black or white, whichever has more contrast.
    """
    given = (int(accent[1:3], 16), int(accent[3:5], 16), int(accent[5:7], 16))
    light, dark = _readable(given, SURFACES[0], BLACK), _readable(given, SURFACES[1], WHITE)
    pairs = [("accent", light, dark), ("accent-text", _text_on(light), _text_on(dark))]
    both = "".join(f"--{name}:light-dark({_hex(one)},{_hex(two)});" for name, one, two in pairs)
    plain = "".join(f"--{name}:{_hex(one)};" for name, one, _two in pairs)
    condition = "@supports not (color:light-dark(#000,#fff))"
    rule = f"{condition}{{:root:root:root:root{{{plain}}}}}"
    return f"@media (forced-colors:none){{:root:root{{{both}}}{rule}}}\n"


def _readable(colour: Colour, surface: Colour, towards: Colour) -> Colour:
    for part in range(101):
        red, green, blue = (
            round(own + (other - own) * part / 100)
            for own, other in zip(colour, towards, strict=True)
        )
        if contrast((red, green, blue), surface) >= READABLE:
            break
    return red, green, blue


def _text_on(colour: Colour) -> Colour:
    return max(WHITE, BLACK, key=lambda text: contrast(text, colour))


def contrast(one: Colour, two: Colour) -> float:
    """Return the contrast of two colours, from 1 to 21, by the formula of WCAG 2."""
    lighter, darker = sorted((_luminance(one), _luminance(two)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def _luminance(colour: Colour) -> float:
    red, green, blue = (
        value / 3294.6 if value <= 10 else ((value / 255 + 0.055) / 1.055) ** 2.4
        for value in colour
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def _hex(colour: Colour) -> str:
    return "#{:02x}{:02x}{:02x}".format(*colour)


@dataclass(frozen=True)
class AgentCard:
    """An agent as it is introduced to people.

    `label` is the name as shown; `model` the name of its model, "" if the agent has a model object.
    `scripted`: its replies are not an AI's. `starters` are first messages to choose from.
    """

    name: str
    label: str
    scripted: bool
    description: str
    model: str
    starters: tuple[str, ...]


def is_scripted(name: str | None) -> bool:
    """Return whether the agent `name` is the tour, whose replies are scripted; False for None."""
    return name == TOUR


def get_label(name: str | None) -> str:
    """Return an agent's name as shown to people, with a capital; "" for None."""
    return name[:1].upper() + name[1:] if name else ""


def list_cards() -> list[AgentCard]:
    """Return the cards of all agents of `settings.AGENTS`, in order; the first is the default."""
    return [_card(entry) for entry in list_entries()]


def get_card(name: str = "") -> AgentCard:
    """Return the card of the agent called `name`; if there is none, that of the first agent."""
    return _card(get_entry(name))


def _card(entry: AgentEntry) -> AgentCard:
    return AgentCard(
        name=entry.name,
        label=get_label(entry.name),
        scripted=is_scripted(entry.name),
        description=str(entry.description),
        model=_model(entry),
        starters=tuple(map(str, entry.starters)),
    )


def _model(entry: AgentEntry) -> str:
    """Return the name of the agent's model; "" if the agent brings a model object."""
    own = entry.agent.model
    if own is None:
        return str(settings.AGENT_MODEL)
    return own if isinstance(own, str) else ""


@dataclass(frozen=True)
class Place:
    """The position of a message, from 1, among the `count` children of its parent.

    `label` says so to people; `previous` and `next` are the ids of its neighbours, "" at the ends.
    """

    index: int
    count: int
    label: str
    previous: str
    next: str


@dataclass(frozen=True)
class ShownMessage:
    """The data of `chat/message.html`; by default those of an empty reply.

    `text` is that of a user's message; a reply has `blocks`, its parts, each with its texts for
    people. `status` is that of its run, `label` the agent's name; `state` says what an active
    reply does, `ending` why one ended early, `usage` what it used, each "" if there is nothing
    to say. `scripted`: it is not an AI's; `live`: it is being written; `waiting`: it is in the
    queue; `limited`: its error is a limit. `summary` is as in `MessageView`; `place` is None
    for an only child.
    """

    message_id: str = ""
    role: str = "assistant"
    text: str = ""
    blocks: list[dict[str, Any]] = field(default_factory=list)
    status: str = ""
    label: str = ""
    scripted: bool = False
    state: str = ""
    ending: str = ""
    usage: str = ""
    live: bool = False
    waiting: bool = False
    limited: bool = False
    created_at: datetime | None = None
    summary: str | None = None
    place: Place | None = None

    @property
    def has_text(self) -> bool:
        return any(block["type"] == "text" for block in self.blocks)


def messages(
    history: History, siblings: dict[str, list[str]], card: AgentCard, username: str
) -> list[ShownMessage]:
    """Return the messages of `history` as the page shows them to `username`.

    `siblings` is the result of `list_siblings` for them. A reply that names no agent gets the label
    of `card`. Reads the database, and renders and stores HTML that is missing, so call it in a
    thread, not on the event loop.
    """
    queue = [entry.run_id for entry in history.queue]
    html = read_html(history.messages)
    usage = read_run_usage(message.run_id for message in history.messages)
    return [
        replace(
            _message(message, show_parts(message, html), queue, card, username),
            place=_place(message, siblings),
            usage=describe_usage(usage.get(message.run_id or "")),
        )
        for message in history.messages
    ]


def _place(message: MessageView, siblings: dict[str, list[str]]) -> Place | None:
    ids = siblings.get(message.parent_message_id or "", [])
    if message.message_id not in ids:
        return None
    index = ids.index(message.message_id)
    before, after = ids[:index], ids[index + 1 :]
    label = str(VERSION).format(index=index + 1, count=len(ids))
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
        ending=str(describe_ending(message.run_status, message.reason, message.error_code)),
        live=message.run_status == RunStatus.RUNNING,
        waiting=message.run_id in queue,
        limited=(message.error_code or "").startswith("limit_"),
        created_at=created_at,
        summary=message.summary,
    )


def _state(message: MessageView, queue: list[str]) -> str:
    if message.run_id in queue:
        place = queue.index(message.run_id) + 1
        return str(STATES["waiting"]).format(position=place)
    model = model_status()
    if message.run_status == RunStatus.QUEUED and model and model.state not in ("ready", "failed"):
        return str(STATES["model"]).format(detail=model.detail)
    if message.run_status == RunStatus.AWAITING_INPUT:
        return str(STATES["awaiting"])
    return str(STATES["writing" if message.text else "thinking"])


def _block(part: dict[str, Any], username: str) -> dict[str, Any]:
    """Return a part with the data that `chat/block.html` adds to it.

    A part of a type that a newer server has written is a line that says so: the page's parts and
    blocks must be as many.
    """
    if part["type"] in ("text", "reasoning"):
        return part
    if part["type"] == "approval":
        return part | _approval(part, username)
    if part["type"] == "agent":
        label = str(TAKES_OVER).format(agent=get_label(part["name"]))
        return {"type": "agent", "label": label}
    if part["type"] != "tool":
        return {"type": "unknown", "label": str(UNKNOWN_PART)}
    return {
        "type": "tool",
        "status": part["status"],
        "label": describe_step(part),
        "fraction": part.get("fraction") if part["status"] == "progress" else None,
        "note": part.get("progress", "") if part["status"] == "progress" else "",
        "arguments": part.get("arguments") or "",
        "pairs": read_pairs(part.get("arguments") or ""),
        "output": part.get("output") or "",
        "output_pairs": read_pairs(part.get("output") or ""),
    }


def _approval(part: dict[str, Any], username: str) -> dict[str, Any]:
    decided_at = part.get("decided_at")
    return {
        "title": str(APPROVALS["title"]).format(tool=part["tool"].replace("_", " ")),
        "pairs": read_pairs(part.get("arguments") or ""),
        "outcome": describe_decision(part.get("decision", ""), part.get("by") or "", username),
        "decided_at": datetime.fromisoformat(decided_at) if decided_at else None,
    }


def blank(card: AgentCard) -> dict[str, Any]:
    """Return the data of the empty templates that the page's script fills, by template.

    New replies get the label of `card`.
    """
    return {
        "user": ShownMessage(role="user"),
        "assistant": ShownMessage(label=card.label, scripted=card.scripted),
        "step": {"status": "started", "fraction": None},
        "reasoning": {},
        "approval": {},
        "agent": {},
        "line": {},
    }


def describe_group(moment: datetime, now: datetime, pinned: bool = False) -> str:
    """Return the heading below which a session is listed: a part of the last 8 days, or a month.

    `moment` is that of its last activity; days begin at midnight in the zones of the arguments.
    """
    days = (now.date() - moment.date()).days
    if pinned:
        return str(GROUPS["pinned"])
    if days <= 1:
        return str(GROUPS["yesterday" if days == 1 else "today"])
    return str(GROUPS["week"]) if days <= 7 else date_format(moment, "YEAR_MONTH_FORMAT")


def session_lines(
    sessions: Iterable[Any], current: ChatSession | None, now: datetime
) -> list[dict[str, Any]]:
    """Return the data of the page's list; the first line of each group has its heading, `group`.

    The arguments are those of `session_line` and `describe_group`.
    """
    lines, last = [], ""
    for session in sessions:
        moment = timezone.localtime(session.active_at)
        group = describe_group(moment, now, session.is_pinned)
        lines.append(session_line(session, current) | {"group": "" if group == last else group})
        last = group
    return lines


def session_line(session: Any, current: ChatSession | None) -> dict[str, Any]:
    """Return the data of `session` as an entry of the page's list.

    `current` is the session that the page shows, if any. `session` must come from `list_sessions`,
    which adds its `run_status`; `state` is that in words, "" if no run is unfinished.
    """
    states = {
        RunStatus.RUNNING: "replying",
        RunStatus.QUEUED: "queued",
        RunStatus.AWAITING_INPUT: "awaiting",
    }
    title = session.title or gettext("New conversation")
    return {
        "id": session.pk,
        "url": reverse("session", args=[session.pk]),
        "active_at": session.active_at.isoformat(),
        "pinned": session.is_pinned,
        "title": title,
        "actions": str(MANAGE["actions"]).format(title=title),
        "current": current is not None and session.pk == current.pk,
        "state": SCRIPT.get(states.get(session.run_status, ""), ""),
    }
