"""The admin of sessions, for staff who review them."""

from conversations.admin import lists, sessions

__all__ = ["lists", "sessions"]
