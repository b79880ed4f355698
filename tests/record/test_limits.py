"""What one user may have at work at once and use in a day, and who begins first."""

import asyncio
from datetime import timedelta

import pytest
from django.contrib.auth.models import User

from conversations.errors import AgentSiteError, ErrorCode
from conversations.models import ChatSession, EndReason, Run, UsageSource, UserUsage
from conversations.people.accounts import adopt_guest, create_guest
from conversations.people.privacy import purge
from conversations.runs.lifecycle import Request, Suspension, suspend_run
from conversations.runs.usage import SLOT, ChatLimits, TokenUsage
from conversations.sessions import posting
from conversations.sessions.posting import NewChat, Posted
from realtime.providers.provider import StartGate
from realtime.sockets.viewer import chat_limits
from tests.support.chats import ask, begin, finish, make_user, session_of
from tests.support.waiting import time_limit

pytestmark = pytest.mark.django_db

SLOTS_AN_HOUR = 6
SLOTS_A_DAY = 24 * SLOTS_AN_HOUR


@pytest.fixture
def user() -> User:
    return make_user("ann")


def post(user: User, limits: ChatLimits, session: ChatSession | None = None) -> Posted:
    chat = NewChat(content="hi", session_id=str(session.pk) if session else "")
    return posting.post_chat(user=user, chat=chat, limits=limits, viewed_for=None, claim=None)


def spend(user: User, tokens: int) -> Posted:
    posted = ask(user, "hi")
    usage = TokenUsage(tokens - 1, 1, source=UsageSource.MEASURED)
    finish(posted, "Hello", usage=usage)
    return posted


def spent(user: User) -> int:
    return sum(UserUsage.objects.filter(user=user).values_list("tokens", flat=True))


def age_usage(slots: int) -> None:
    """All of it was spent so much earlier."""
    for row in UserUsage.objects.order_by("slot"):
        UserUsage.objects.filter(user=row.user, slot=row.slot).update(slot=row.slot - slots)


def refusal(user: User, limits: ChatLimits, session: ChatSession | None = None) -> AgentSiteError:
    with pytest.raises(AgentSiteError) as caught:
        post(user, limits, session)
    return caught.value


def test_conversations_at_work(user: User) -> None:
    limits = ChatLimits(runs=2)
    first = ask(user, "one")
    ask(user, "two")
    assert refusal(user, limits).code == ErrorCode.LIMIT_RUNS
    post(user, limits, session_of(first))  # It waits for its own session, and adds nothing.
    post(make_user("ben"), limits)
    finish(first, "Hello")
    assert refusal(user, limits).code == ErrorCode.LIMIT_RUNS
    posting.stop_run(Run.objects.get(session=first.session_id, status="queued").pk, EndReason.USER)
    post(user, limits)


def test_tokens_of_a_day(user: User) -> None:
    limits = ChatLimits(tokens_a_day=100)
    spend(user, 60)
    session = session_of(post(user, limits))
    spend(user, 40)
    assert refusal(user, limits).code == ErrorCode.LIMIT_TOKENS
    assert refusal(user, limits, session).code == ErrorCode.LIMIT_TOKENS  # In the queue as well.
    age_usage(SLOTS_A_DAY)
    assert refusal(user, limits).code == ErrorCode.LIMIT_TOKENS
    age_usage(1)
    post(user, limits)


@pytest.mark.parametrize(("limit", "hours"), [(100, 21), (61, 21), (60, 23), (40, 23), (30, 24)])
def test_one_is_told_when_enough_is_free_again(user: User, limit: int, hours: int) -> None:
    """Of 100 tokens 40 were spent three hours ago, 30 one hour ago and 30 now."""
    spend(user, 40)
    age_usage(2 * SLOTS_AN_HOUR)
    spend(user, 30)
    age_usage(SLOTS_AN_HOUR)
    spend(user, 30)
    refused = refusal(user, ChatLimits(tokens_a_day=limit))
    assert refused.retry_after is not None
    assert 0 <= refused.retry_after - hours * 3_600 <= SLOT.total_seconds()


def test_what_a_run_took_before_it_asked_counts_once(user: User) -> None:
    posted = ask(user, "hi")
    claimed = begin(posted)
    request = Request("call", "erase", "{}")
    suspension = Suspension(
        requests=[request],
        state={},
        items=[],
        expires_in=timedelta(days=1),
        usage=TokenUsage(10, 2, source=UsageSource.MEASURED),
    )
    assert suspend_run(claimed, last_seq=1, events=[], suspension=suspension)
    assert spent(user) == 12
    posting.stop_run(posted.run_id, EndReason.USER)
    assert spent(user) == 12


def test_what_a_guest_has_spent_is_the_accounts(user: User) -> None:
    guest = create_guest()
    spend(guest, 60)
    spend(user, 10)
    adopt_guest(guest, user)
    assert spent(user) == 70
    assert UserUsage.objects.count() == 1


def test_what_was_spent_long_ago_is_purged(user: User) -> None:
    spend(user, 60)
    age_usage(SLOTS_A_DAY)
    spend(user, 30)
    purge()
    assert spent(user) == 90
    age_usage(SLOTS_A_DAY + 1)
    purge()
    assert spent(user) == 30


def test_settings_name_no_limit_by_zero(settings) -> None:
    settings.REALTIME = {
        **settings.REALTIME,
        **dict.fromkeys(("tokens_per_day", "guest_tokens_per_day", "site_tokens_per_day"), 0),
        "runs_per_user": 3,
    }
    assert chat_limits() == ChatLimits(queue_max=10, runs=3, tokens_a_day=None)


async def test_replies_begin_in_turn() -> None:
    gate, order = StartGate(2), []

    async def begin(name: int) -> None:
        place = await gate.enter(name)
        order.append(name)
        await asyncio.sleep(0)
        place.leave()
        place.leave()

    await asyncio.gather(*map(begin, range(6)))
    assert order == list(range(6))


async def test_a_place_is_not_kept_for_a_slow_model() -> None:
    gate = StartGate(1)
    await gate.enter("ada")
    async with time_limit("a place"):
        place = await gate.enter("bob")
    place.leave()


async def test_users_take_turns_at_starting_behind_replies_that_go_on() -> None:
    gate, order = StartGate(1), []
    held = await gate.enter("ada")

    async def begin(name: str, *, is_resumed: bool = False) -> None:
        place = await gate.enter(name[:3], is_resumed=is_resumed)
        order.append(name)
        place.leave()

    new = [asyncio.create_task(begin(name)) for name in ("ada 1", "ada 2", "ada 3", "bob 1")]
    await asyncio.sleep(0)
    goes_on = asyncio.create_task(begin("cid 1", is_resumed=True))
    await asyncio.sleep(0)
    assert gate.waiting == 5
    new.pop(1).cancel()
    await asyncio.sleep(0)
    held.leave()
    await asyncio.gather(*new, goes_on)
    assert order == ["cid 1", "ada 1", "bob 1", "ada 3"]
    # No place is lost with the one that was cancelled.
    (await gate.enter("ada")).leave()


async def test_a_place_is_passed_on_by_a_start_that_is_cancelled_when_called() -> None:
    gate = StartGate(1)
    held = await gate.enter("ada")
    called = asyncio.create_task(gate.enter("ada"))
    await asyncio.sleep(0)
    held.leave()
    called.cancel()
    async with time_limit("a place"):
        await gate.enter("bob")
