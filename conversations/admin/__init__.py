"""The admin of sessions, replies, approvals, keys and the audit log, for staff."""

from conversations.admin import lists, sessions

__all__ = ["lists", "sessions"]
