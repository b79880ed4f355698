"""The admin of sessions, for staff who review them."""

from conversations.admin import approvals, audit, keys, labels, runs, sessions

__all__ = ["approvals", "audit", "keys", "labels", "runs", "sessions"]
