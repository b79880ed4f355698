"""The admin of sessions, for staff who review them."""

from conversations.admin import approvals, audit, labels, runs, sessions

__all__ = ["approvals", "audit", "labels", "runs", "sessions"]
