"""What rows of usage add up to, beside the totals that are kept of them."""

from conversations.models import ChatSession, Run, SideCall
from conversations.usage import UsageTotals, total_usage


def added_up(session: ChatSession) -> UsageTotals:
    """The totals of a session, from its rows alone."""
    runs = Run._default_manager.filter(session=session)
    return total_usage(runs, SideCall._default_manager.filter(session=session))
