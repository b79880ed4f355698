"""What one user may have at work at once and use in a day, and who begins first."""

import asyncio
from datetime import timedelta

import pytest
from django.contrib.auth.models import User

from conversations import actions
from conversations.actions import NewChat, Posted
from conversations.errors import AgentSiteError, ErrorCode
from conversations.limits import ChatLimits
from conversations.models import ChatSession, EndReason, Run, UsageSource
from conversations.usage import TokenUsage
from realtime.limits import StartGate, chat_limits
from tests.support.chats import ask, finish, make_user, session_of
from tests.support.waiting import time_limit

pytestmark = pytest.mark.django_db


@pytest.fixture
def user() -> User:
    return make_user("ann")


def post(user: User, limits: ChatLimits, session: ChatSession | None = None) -> Posted:
    chat = NewChat(content="hi", session_id=str(session.pk) if session else "")
    return actions.post_chat(user=user, chat=chat, limits=limits, viewed_for=None, claim=None)


def spend(user: User, tokens: int) -> Posted:
    posted = ask(user, "hi")
    usage = TokenUsage(tokens - 1, 1, source=UsageSource.MEASURED)
    finish(posted, "Hello", usage=usage)
    return posted


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
    actions.stop_run(Run.objects.get(session=first.session_id, status="queued").pk, EndReason.USER)
    post(user, limits)


def test_tokens_of_a_day(user: User) -> None:
    limits = ChatLimits(tokens_a_day=100)
    spend(user, 60)
    session = session_of(post(user, limits))
    oldest = spend(user, 40)
    refused = refusal(user, limits)
    assert refused.code == ErrorCode.LIMIT_TOKENS
    assert refused.retry_after == pytest.approx(86_400, abs=60)
    assert refusal(user, limits, session).code == ErrorCode.LIMIT_TOKENS  # In the queue as well.
    runs = Run.objects.filter(pk=oldest.run_id)
    runs.update(created_at=runs.get().created_at - timedelta(days=1))
    post(user, limits)


def test_settings_name_no_limit_by_zero(settings) -> None:
    settings.REALTIME = {**settings.REALTIME, "tokens_per_day": 0, "runs_per_user": 3}
    assert chat_limits() == ChatLimits(queue_max=10, runs=3, tokens_a_day=None)


async def test_replies_begin_in_turn() -> None:
    gate, order = StartGate(2), []

    async def begin(name: int) -> None:
        place = await gate.enter()
        order.append(name)
        await asyncio.sleep(0)
        place.leave()
        place.leave()

    await asyncio.gather(*map(begin, range(6)))
    assert order == list(range(6))


async def test_a_place_is_not_kept_for_a_slow_model() -> None:
    gate = StartGate(1)
    await gate.enter()
    async with time_limit("a place"):
        place = await gate.enter()
    place.leave()
