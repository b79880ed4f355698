"""Mails, which are sent behind the answers to requests."""

from typing import Any

from django.core import mail

from agentsite.web.accounts import MAILS


def mails_sent() -> list[Any]:
    """Wait until no mail is waiting to be sent; return all of this test."""
    MAILS.submit(int).result()
    return mail.outbox
