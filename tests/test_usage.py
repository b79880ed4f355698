"""Tokens and their price, on every way a run can end."""

from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import pytest
from agents.usage import Usage
from openai.types.responses import ResponseUsage

from conversations import lifecycle, queries
from conversations.actions import stop_run
from conversations.models import EndReason, Run, UsageSource
from conversations.tokens import estimate_tokens
from conversations.usage import NO_USAGE, TokenUsage, add_usage, price
from realtime.usage import UsageMeter
from tests.support.chats import ask, begin, finish, make_user, session_of

PRICES = {
    "scripted": {"input": "2", "cached_input": "0.5", "output": "8"},
    "plain": {"input": "1", "cached_input": None, "output": "1"},
}


def said(input_tokens: int, output_tokens: int) -> ResponseUsage:
    return ResponseUsage.model_validate(
        {
            "input_tokens": input_tokens,
            "output_tokens": output_tokens,
            "total_tokens": input_tokens + output_tokens,
            "input_tokens_details": {"cached_tokens": 1, "cache_write_tokens": 0},
            "output_tokens_details": {"reasoning_tokens": 2},
        }
    )


def counted(input_tokens: int = 0, output_tokens: int = 0) -> Usage:
    usage = Usage(input_tokens=input_tokens, output_tokens=output_tokens)
    usage.total_tokens = input_tokens + output_tokens
    return usage


def delta(text: str) -> Any:
    return SimpleNamespace(type="response.output_text.delta", delta=text)


def end(kind: str, usage: ResponseUsage | None) -> Any:
    return SimpleNamespace(type=f"response.{kind}", response=SimpleNamespace(usage=usage))


def started(counted_before: Usage | None = None) -> UsageMeter:
    """A meter of a run whose call has been given some 20 tokens."""
    meter = UsageMeter()
    meter.begin_call(counted_before or counted(), "scripted", "x" * 78, [])
    return meter


def test_completed_calls_are_what_they_say() -> None:
    meter = started()
    meter.note(delta("hello"))
    meter.note(end("completed", said(10, 5)))
    total = meter.total(counted(10, 5))
    assert (total.input_tokens, total.output_tokens) == (10, 5)
    assert total.source == UsageSource.MEASURED


def test_an_open_call_is_estimated_on_top_of_the_finished_ones() -> None:
    meter = started(counted(10, 5))
    meter.note(delta("abcdefgh"))
    assert meter.total(counted(10, 5)) == TokenUsage(30, 7, 0, 0, UsageSource.ESTIMATED)


def test_a_call_that_the_sdk_has_counted_is_not_estimated_too() -> None:
    """A stop may come between the count and the event."""
    meter = started(counted(10, 5))
    meter.note(delta("abcdefgh"))
    assert meter.total(counted(40, 9)).source == UsageSource.MEASURED


def test_a_reply_cut_by_the_model_says_itself_what_it_took() -> None:
    meter = started()
    meter.note(delta("hello"))
    meter.note(end("incomplete", said(10, 5)))
    assert meter.total(counted()) == TokenUsage(10, 5, 1, 2, UsageSource.MEASURED)


@pytest.mark.parametrize("usage", [None, said(0, 0)])
def test_servers_that_say_nothing_are_estimated(usage: ResponseUsage | None) -> None:
    meter = started()
    meter.note(delta("abcdefgh"))
    meter.note(end("completed", usage))
    assert meter.total(counted()) == TokenUsage(20, 2, 0, 0, UsageSource.ESTIMATED)


def test_what_was_refused_is_unknown_and_never_zero() -> None:
    meter = started()
    meter.note_refusal()
    assert meter.total(counted()) == TokenUsage()


def test_a_call_that_is_answered_at_the_second_try_counts() -> None:
    meter = started()
    meter.note_refusal()
    meter.note(delta("abcd"))
    assert meter.total(counted()).source == UsageSource.ESTIMATED


def test_no_call_is_a_true_zero() -> None:
    assert UsageMeter().total(None) == NO_USAGE


def test_a_reply_may_not_be_longer_than_the_limit(settings: Any) -> None:
    settings.REALTIME = {**settings.REALTIME, "output_tokens": 10}
    meter = started()
    meter.note(delta("x" * 40))
    assert not meter.is_over
    meter.note(delta("x"))
    assert meter.is_over


def test_estimates() -> None:
    assert [estimate_tokens(text) for text in ("", "a", "word", "words", "\ud800")] == [
        0,
        1,
        1,
        2,
        1,
    ]


def test_sums() -> None:
    measured = TokenUsage(1, 2, 3, 4, UsageSource.MEASURED)
    estimated = TokenUsage(10, 20, source=UsageSource.ESTIMATED)
    assert add_usage(measured, estimated) == TokenUsage(11, 22, 3, 4, UsageSource.ESTIMATED)


def test_prices(settings: Any) -> None:
    settings.MODEL_PRICES = PRICES
    usage = TokenUsage(1_000_000, 500_000, 400_000, 0, UsageSource.MEASURED)
    assert price(usage, "scripted") == Decimal("5.400000")
    assert price(usage, "plain") == Decimal("1.500000")
    assert price(usage, "another") is None
    assert price(TokenUsage(), "scripted") is None
    assert price(NO_USAGE, "another") == 0


@pytest.mark.django_db
class TestKept:
    """Usage in the database, and its totals."""

    @pytest.fixture(autouse=True)
    def prices(self, settings: Any) -> None:
        settings.MODEL_PRICES = PRICES

    def test_totals_of_a_session_and_of_a_user(self) -> None:
        user = make_user("ann")
        first = ask(user, "hi")
        finish(first, "Hello", usage=TokenUsage(100, 50, 0, 10, UsageSource.MEASURED))
        session = session_of(first)
        second = ask(user, "more", session)
        finish(second, "Well", usage=TokenUsage(10, 5, source=UsageSource.ESTIMATED))
        other = ask(user, "elsewhere")
        finish(other, "", usage=TokenUsage())
        totals = queries.session_usage(session)
        assert (totals.runs, totals.input_tokens, totals.output_tokens) == (2, 110, 55)
        assert (totals.estimated, totals.unknown, totals.unpriced) == (1, 0, 0)
        assert (totals.cost, totals.currency) == (Decimal("0.000660"), "USD")
        everything = queries.user_usage(user)
        assert (everything.runs, everything.unknown, everything.unpriced) == (3, 1, 1)
        assert everything.cost == totals.cost

    def test_nothing_known_is_no_cost(self) -> None:
        user = make_user("ann")
        finish(ask(user, "hi"), "Hello")
        assert queries.user_usage(user).cost is None

    def test_the_reply_of_a_lost_worker_is_estimated(self) -> None:
        user = make_user("ann")
        posted = ask(user, "x" * 38)
        claimed = begin(posted, "abcd", "efgh")
        lifecycle.recover_run(claimed.run.pk, max_attempts=2, worker="test")
        run = Run._default_manager.get(pk=claimed.run.pk)
        assert (run.status, run.usage_source) == ("interrupted", "estimated")
        assert (run.input_tokens, run.output_tokens) == (10, 2)
        assert run.cost == price(TokenUsage(10, 2), "scripted")
        assert run.first_token_at is not None
        assert run.last_token_at is not None

    def test_a_lost_worker_that_showed_nothing_leaves_it_unknown(self) -> None:
        claimed = begin(ask(make_user("ann"), "hi"))
        lifecycle.recover_run(claimed.run.pk, max_attempts=1, worker="test")
        run = Run._default_manager.get(pk=claimed.run.pk)
        assert (run.usage_source, run.input_tokens, run.cost) == ("unknown", None, None)

    def test_a_reply_that_nobody_began_took_nothing(self) -> None:
        posted = ask(make_user("ann"), "hi")
        stop_run(posted.run_id, EndReason.USER)
        run = Run._default_manager.get(pk=posted.run_id)
        assert (run.usage_source, run.input_tokens, run.cost) == ("measured", 0, Decimal(0))
