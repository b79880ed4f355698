"""A session's queue: show, edit, move and withdraw the messages that wait behind the active run."""

from collections.abc import Iterable, Sequence
from uuid import UUID

from django.db import transaction

from conversations.changes import ChangeBuilder, MessageChanged, lock_session
from conversations.errors import AgentSiteError, ErrorCode
from conversations.models import EndReason, Message, Run, RunStatus
from conversations.queries import User, get_session, list_queue, parse_id, reply_run
from conversations.runs import states
from conversations.sessions.history import find_end
from conversations.shapes import QueueView, message_view, queue_view
from conversations.text import clean_text, is_blank


def get_queue(user: User, session_id: str) -> list[QueueView]:
    """Return a session's runs behind its first unfinished one, in order; [] if there are none.

    Raises `AgentSiteError(not_found)`.
    """
    return list_queue(get_session(user, session_id).pk)


@transaction.atomic
def edit_queued(*, user: User, session_id: str, run_id: str, content: str) -> list[QueueView]:
    """Replace the text of the message of a queued run; return the queue.

    The run may also be the first unfinished one, which the queue does not show. Raises
    `AgentSiteError`: bad_frame (blank text), not_found, not_queued (also for a run that was begun
    and is queued again), forbidden (another run, not withdrawn, replies to the same message).
    """
    if is_blank(content):
        raise AgentSiteError(ErrorCode.BAD_FRAME)
    queue = _Queue(user, session_id)
    run = queue.find(run_id, [run for run in queue.change.unfinished if not run.epoch])
    if _asked_elsewhere(run):
        raise AgentSiteError(ErrorCode.FORBIDDEN)
    run.prompt.parts = [{"type": "text", "text": clean_text(content)}]
    queue.save(run.prompt, "parts")
    return queue.close()


@transaction.atomic
def remove_queued(*, user: User, session_id: str, run_id: str) -> list[QueueView]:
    """Withdraw the message of a run behind the first unfinished one; return the queue.

    The run is cancelled, and its reply withdrawn too. A message to which another run replies, which
    is not withdrawn, stays. Messages that follow are linked to what precedes.
    Raises `AgentSiteError`: not_found, not_queued (also for the first unfinished run).
    """
    queue = _Queue(user, session_id)
    queue.remove(queue.find(run_id))
    return queue.close()


@transaction.atomic
def clear_queue(*, user: User, session_id: str) -> list[QueueView]:
    """Remove all runs behind the first unfinished one, as `remove_queued` does; return [].

    The first unfinished run stays, even if it has not started. Raises `AgentSiteError(not_found)`.
    """
    queue = _Queue(user, session_id)
    for run in reversed(queue.change.waiting):
        queue.remove(run)
    return queue.close()


@transaction.atomic
def move_queued(*, user: User, session_id: str, run_id: str, position: int) -> list[QueueView]:
    """Move a run of the queue to `position`, counted from 1, with its messages; return the queue.

    Position 1 is behind the first unfinished run, which cannot be moved, and a position beyond the
    end is the end. Raises `AgentSiteError`: bad_frame (a position below 1), not_found, not_queued,
    forbidden (from the earlier of the old and the new position to the later one, each message must
    continue from the reply of the run before it).
    """
    if position < 1:
        raise AgentSiteError(ErrorCode.BAD_FRAME)
    queue = _Queue(user, session_id)
    queue.move(queue.find(run_id), position)
    return queue.close()


class _Queue:
    """Changes a session's queue; creating it locks the session, so it needs an open transaction.

    Raises `AgentSiteError(not_found)`.
    """

    def __init__(self, user: User, session_id: str) -> None:
        self.session = lock_session(parse_id(session_id), user=user, is_activity=False)
        self.change = ChangeBuilder(self.session)

    def find(self, run_id: str, among: Sequence[Run] | None = None) -> Run:
        """Return the queued run with this id among `among`, by default those behind the first one.

        Raises `AgentSiteError`: not_queued for another run of the session, else not_found.
        """
        pk = parse_id(run_id)
        for run in self.change.waiting if among is None else among:
            if run.pk == pk and run.status == RunStatus.QUEUED:
                return run
        known = Run.objects.filter(pk=pk, session_id=self.session.pk).exists()
        raise AgentSiteError(ErrorCode.NOT_QUEUED if known else ErrorCode.NOT_FOUND)

    def close(self) -> list[QueueView]:
        """Save the session, announce the changes, and return the queue; call it once, last."""
        self.session.save(update_fields=["active_leaf", "run_count"])
        self.change.announce("updated")
        return [queue_view(run) for run in self.change.waiting]

    def save(self, message: Message, *fields: str) -> None:
        message.rev = self.session.rev
        message.save(update_fields=[*fields, "rev"])
        view = message_view(message, run=reply_run(message))
        self.change.add(MessageChanged(view, created=False))

    def remove(self, run: Run) -> None:
        """Cancel the run, withdraw its messages, and link what follows them to what precedes them.

        A prompt that has another reply, not withdrawn, stays; what follows is linked to that one.
        """
        shared = _asked_elsewhere(run)
        before = _other_reply(run) if shared else run.prompt.parent_id
        self._hang(self._children(run.reply_id), before)
        self._withdraw(run, with_prompt=not shared)
        if self.session.active_leaf_id == run.reply_id:
            self.session.active_leaf_id = self._leaf_below(before)
        states.stop(self.change, run, EndReason.USER)

    def _withdraw(self, run: Run, *, with_prompt: bool) -> None:
        """Mark the messages as withdrawn; `states.stop` announces the reply."""
        run.reply.withdrawn = True
        run.reply.save(update_fields=["withdrawn"])
        if with_prompt:
            run.prompt.withdrawn = True
            self.save(run.prompt, "withdrawn")

    def move(self, run: Run, position: int) -> None:
        waiting = self.change.waiting
        old, new = waiting.index(run), min(position, len(waiting)) - 1
        low, high = min(old, new), max(old, new) + 1
        span = waiting[low:high]
        if not all(map(_continues, self.change.unfinished[low:high], span)):
            raise AgentSiteError(ErrorCode.FORBIDDEN)
        waiting.insert(new, waiting.pop(old))
        self._relink(span, waiting[low:high])
        self._renumber(waiting)

    def _relink(self, before: list[Run], after: list[Run]) -> None:
        """Link the messages of these adjacent runs in their new order."""
        if before == after:
            return
        behind = self._children(before[-1].reply_id)
        parent = before[0].prompt.parent_id
        for run in after:
            run.prompt.parent_id = parent
            self.save(run.prompt, "parent")
            parent = run.reply_id
        self._hang(behind, parent)
        if self.session.active_leaf_id == before[-1].reply_id:
            self.session.active_leaf_id = parent

    def _renumber(self, waiting: list[Run]) -> None:
        """Number the runs in their new order.

        Numbers only rise, so that an older, late frame about a run does not move it back.
        """
        numbers, last = [], 0
        for run in waiting:
            last = max(run.number, last + 1)
            numbers.append(last)
        # From the last one: no two runs of a session may have the same number at any time.
        for run, number in reversed(list(zip(waiting, numbers, strict=True))):
            if run.number != number:
                run.number = number
                run.save(update_fields=["number"])
        self.session.run_count = max(self.session.run_count, last)
        self.change.unfinished[1:] = waiting

    def _children(self, reply_id: UUID) -> list[Message]:
        """Return the prompts below a reply; for those in the queue the objects that it holds.

        Other objects of the same rows would not see changes that are made here.
        """
        held = {run.prompt_id: run.prompt for run in self.change.waiting}
        found = Message.objects.filter(parent_id=reply_id).order_by("number")
        return [held.get(message.pk, message) for message in found]

    def _hang(self, messages: Iterable[Message], parent: UUID | None) -> None:
        for message in messages:
            message.parent_id = parent
            self.save(message, "parent")

    def _leaf_below(self, message_id: UUID | None) -> UUID | None:
        """Return the end of the branch below a message, or below the newest first message."""
        if message_id is None:
            beginnings = Message.objects.filter(session=self.session, parent=None, withdrawn=False)
            message_id = beginnings.order_by("-number").values_list("pk", flat=True).first()
        return None if message_id is None else find_end(message_id)


def _asked_elsewhere(run: Run) -> bool:
    """Return whether another run, not withdrawn, has the same prompt."""
    return run.prompt.runs.exclude(pk=run.pk).filter(reply__withdrawn=False).exists()


def _other_reply(run: Run) -> UUID:
    others = Message.objects.filter(parent_id=run.prompt_id, withdrawn=False)
    newest: UUID = (
        others.exclude(pk=run.reply_id).order_by("-number").values_list("pk", flat=True)[0]
    )
    return newest


def _continues(before: Run, run: Run) -> bool:
    """Return whether the prompt of `run` follows the reply of `before`."""
    return run.prompt.parent_id == before.reply_id
