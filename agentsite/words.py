"""The words of the chat page that both the server and the page's own code say."""

from typing import Any

from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

from conversations.errors import ERRORS, ErrorCode
from conversations.models import ACTIVE, EndReason, RunStatus

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
# Shorter steps took no time worth telling.
NOTABLE_MS = 50
TAKES_OVER = _("{agent} takes over")
SCRIPT: dict[str, Any] = {
    "states": STATES,
    "endings": ENDINGS,
    "errors": ERROR_TEXTS,
    "steps": STEPS,
    "approvals": APPROVALS,
    "manage": MANAGE,
    "feedback": FEEDBACK,
    "share": SHARE,
    "version": VERSION,
    "took": TOOK,
    "takes_over": TAKES_OVER,
    "continue": _("Continue"),
    "untitled": _("New conversation"),
    "replying": _("replying"),
    "queued": _("waiting"),
    "awaiting": _("needs you"),
    "archived": _("archived"),
    "usage": _("{input} tokens in, {output} out"),
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
        "retry": _("Retry now"),
    },
    "composer": {
        "too_long": _("This message is too long to send: shorten it to {limit} KB or less."),
        "queued_one": _("1 message is waiting for its turn."),
        "queued": _("{count} messages are waiting for their turn."),
        "edited_late": _("That message was sent before your change, which is kept here."),
        "guest_failed": _("The message could not be sent. It is kept here: try again."),
    },
    "titles": {
        "plain": "{title} · agentsite",
        "busy": _("Replying · {title} · agentsite"),
        "replied": _("New reply · {title} · agentsite"),
    },
    "copy": {"done": _("Copied"), "failed": _("Not copied")},
    "missing": _("This conversation does not exist any more."),
}


def describe_decision(decision: str, by: str, username: str) -> str:
    """What became of a request, to the reader `username`; empty while it is open."""
    if not decision:
        return ""
    known = f"{decision}_you" if by and by == username else decision
    return str(APPROVALS[known]).format(by=by)


def describe_ending(status: str | None, reason: str | None, error_code: str | None) -> Text:
    """Why a reply ended as it did; empty while it works and when it is complete."""
    if status in ACTIVE:
        return ""
    if error_code in ERROR_TEXTS and status == RunStatus.FAILED:
        return ERROR_TEXTS[error_code]
    return ENDINGS.get(reason or "") or ENDINGS.get(status or "", "")


def describe_step(part: dict[str, Any]) -> str:
    """What a tool does or has done and, when it has ended, how long that took."""
    status, summary = part["status"], part.get("summary")
    label = str(STEPS[status]).format(name=part["name"].replace("_", " "))
    said = summary if status == "finished" and summary else label
    if part.get("duration_ms", 0) < NOTABLE_MS:
        return said
    # Half a tenth is rounded up, as the page does.
    tenths = (part["duration_ms"] + 50) // 100
    return str(TOOK).format(step=said, seconds=f"{tenths / 10:.1f}")
