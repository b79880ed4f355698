"""A site of this kind, used from a program; docs/client.md shows how.

Needs aiohttp and nothing else of the site: the folder may be copied to where it is used.
"""

from agentsite.client.chat import Chat
from agentsite.client.client import FORMATS, Client, Session
from agentsite.client.errors import (
    ClientError,
    NotSignedInError,
    RefusedError,
    ReplyError,
    UnreachableError,
)
from agentsite.client.reply import Answer, Reply

__all__ = [
    "FORMATS",
    "Answer",
    "Chat",
    "Client",
    "ClientError",
    "NotSignedInError",
    "RefusedError",
    "Reply",
    "ReplyError",
    "Session",
    "UnreachableError",
]
