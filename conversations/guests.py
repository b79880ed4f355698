"""Visitors without an account: rows of their own, and the way into an account."""

import secrets
from typing import Any

from django.contrib.auth import get_user_model
from django.contrib.auth.base_user import AbstractBaseUser
from django.db import transaction

from conversations.changes import ChangeBuilder, lock_runs, lock_session
from conversations.models import Approval, ChatSession, Feedback, Guest, Run
from conversations.queries import User
from conversations.usage import move_user_totals

NAME_BYTES = 8


@transaction.atomic
def create_guest() -> Any:
    """A new user without a password, marked as a guest."""
    model = get_user_model()
    name = f"guest-{secrets.token_hex(NAME_BYTES)}"
    user = model._default_manager.create(**{model.USERNAME_FIELD: name})
    user.set_unusable_password()
    user.save(update_fields=["password"])
    Guest.objects.create(user=user)
    return user


def is_guest(user: User) -> bool:
    """Whether `user` is one that `create_guest` made."""
    return user.is_authenticated and Guest.objects.filter(user_id=user.pk).exists()


@transaction.atomic
def adopt_guest(guest_user: AbstractBaseUser, user: AbstractBaseUser) -> None:
    """Move the guest's sessions and runs to `user`, and delete the guest, if it is still there."""
    _move_sessions(guest_user, user)
    Approval.objects.filter(decided_by_id=guest_user.pk).update(decided_by_id=user.pk)
    # From here on no session can be begun as the guest; one begun meanwhile moves too.
    guests = get_user_model()._default_manager.select_for_update().filter(pk=guest_user.pk)
    if (guest_row := guests.first()) is not None:
        _move_sessions(guest_user, user)
        move_user_totals(guest_user.pk, user.pk)
        guest_row.delete()


def _move_sessions(guest_user: AbstractBaseUser, user: AbstractBaseUser) -> None:
    theirs = ChatSession.objects.filter(owner_id=guest_user.pk)
    ids = list(theirs.order_by("pk").values_list("pk", flat=True))
    sessions = [lock_session(theirs, session_id, is_activity=False) for session_id in ids]
    lock_runs(ids)
    for session in sessions:
        _move_session(session, user)


def _move_session(session: ChatSession, user: AbstractBaseUser) -> None:
    runs = session.runs.order_by("pk")
    taken = Run.objects.filter(owner_id=user.pk, client_message_id__isnull=False)
    runs.filter(client_message_id__in=taken.values("client_message_id")).update(
        client_message_id=None
    )
    runs.update(owner_id=user.pk)
    Feedback.objects.filter(message__session=session).update(user_id=user.pk)
    session.owner_id = user.pk
    session.save(update_fields=["owner"])
    if session.deleted_at is None:
        ChangeBuilder(session).announce("created")
