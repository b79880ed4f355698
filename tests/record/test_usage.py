"""Tokens and their price, on every way a run can end."""

import random
from datetime import timedelta
from decimal import Decimal
from importlib import import_module
from types import SimpleNamespace
from typing import Any

import pytest
from agents.usage import Usage
from django.apps import apps
from django.db import connection, transaction
from openai.types.responses import ResponseUsage

from conversations import queries
from conversations.changes import write_events
from conversations.models import (
    Approval,
    ChatSession,
    EndReason,
    Run,
    RunStatus,
    SessionUsage,
    SideCall,
    UsageSource,
    UserUsage,
)
from conversations.runs import lifecycle
from conversations.runs.lifecycle import Request, Suspension, decide, suspend_run
from conversations.runs.states import Claim, Claimed
from conversations.runs.usage import NO_USAGE, TokenUsage, add_usage, price
from conversations.sessions import lists
from conversations.sessions.posting import stop_run
from realtime.work.metering import UsageMeter
from tests.support.chats import ask, begin, finish, make_user, session_of
from tests.support.usage import added_up

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
    meter.begin_call(counted_before or counted(), "scripted", "x" * 72, [])
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
    meter.note(delta("abcdefg"))
    assert meter.total(counted(10, 5)) == TokenUsage(30, 7, 0, 0, UsageSource.ESTIMATED)


def test_a_call_that_the_sdk_has_counted_is_not_estimated_too() -> None:
    """A stop may come between the count and the event."""
    meter = started(counted(10, 5))
    meter.note(delta("abcdefg"))
    assert meter.total(counted(40, 9)).source == UsageSource.MEASURED


def test_a_reply_cut_by_the_model_says_itself_what_it_took() -> None:
    meter = started()
    meter.note(delta("hello"))
    meter.note(end("incomplete", said(10, 5)))
    assert meter.total(counted()) == TokenUsage(10, 5, 1, 2, UsageSource.MEASURED)


@pytest.mark.parametrize("usage", [None, said(0, 0)])
def test_servers_that_say_nothing_are_estimated(usage: ResponseUsage | None) -> None:
    meter = started()
    meter.note(delta("abcdefg"))
    meter.note(end("completed", usage))
    assert meter.total(counted()) == TokenUsage(20, 2, 0, 0, UsageSource.ESTIMATED)


def test_what_was_refused_is_unknown_and_never_zero() -> None:
    meter = started()
    meter.note_refusal()
    assert meter.total(counted()) == TokenUsage()
    # The end of a run is built once more if the database refuses it.
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
    meter.note(delta("x" * 35))
    assert not meter.is_over
    meter.note(delta("xx"))
    assert meter.is_over


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
        lifecycle.release_run(claimed.run.pk, worker="test")
        run = Run._default_manager.get(pk=claimed.run.pk)
        assert (run.status, run.usage_source) == ("interrupted", "estimated")
        assert (run.input_tokens, run.output_tokens) == (16, 3)
        assert run.cost == price(TokenUsage(16, 3), "scripted")
        assert run.first_token_at is not None
        assert run.last_token_at is not None

    def test_a_lost_worker_that_showed_nothing_leaves_it_unknown(self) -> None:
        claimed = begin(ask(make_user("ann"), "hi"))
        Run._default_manager.update(lease_until=claimed.run.created_at)
        lifecycle.recover_run(claimed.run.pk, max_attempts=1)
        run = Run._default_manager.get(pk=claimed.run.pk)
        assert (run.usage_source, run.input_tokens, run.cost) == ("unknown", None, None)

    def test_a_reply_that_nobody_began_took_nothing(self) -> None:
        posted = ask(make_user("ann"), "hi")
        stop_run(posted.run_id, EndReason.USER)
        run = Run._default_manager.get(pk=posted.run_id)
        assert (run.usage_source, run.input_tokens, run.cost) == ("measured", 0, Decimal(0))


@pytest.mark.django_db
class TestTotals:
    """The running totals of a session are what its rows add up to."""

    @pytest.fixture(autouse=True)
    def prices(self, settings: Any) -> None:
        settings.MODEL_PRICES = PRICES

    @pytest.mark.parametrize("seed", range(8))
    def test_after_any_sequence_of_endings(self, seed: int) -> None:
        chance = random.Random(seed)
        user = make_user("ann")
        session = session_of(ask(user, "first"))
        for _ in range(25):
            move = chance.choice(
                [self.ask, self.end, self.stop, self.lose, self.call, self.suspend]
            )
            move(chance, user, session)
            assert queries.session_usage(session) == added_up(session)
        assert spent_by(user) == tokens_of(Run._default_manager.all())

    def ask(self, chance: random.Random, user: Any, session: ChatSession) -> None:
        if len(queries.list_unfinished(session.pk)) < 4:
            ask(user, "more", session)

    def end(self, chance: random.Random, user: Any, session: ChatSession) -> None:
        if (claimed := claim_head(session)) is None:
            return
        status = chance.choice([RunStatus.COMPLETED, RunStatus.FAILED, RunStatus.CANCELLED])
        ending = lifecycle.Ending(status=status, parts=[], usage=some_usage(chance, claimed.run))
        lifecycle.finish_run(claimed, last_seq=claimed.last_seq, events=[], ending=ending)

    def stop(self, chance: random.Random, user: Any, session: ChatSession) -> None:
        if unfinished := queries.list_unfinished(session.pk):
            stop_run(chance.choice(unfinished).pk, EndReason.USER)

    def lose(self, chance: random.Random, user: Any, session: ChatSession) -> None:
        if (claimed := claim_head(session)) is None:
            return
        seq = claimed.last_seq + 1
        write_events(claimed.run, [(seq, "token", {"delta": "x" * chance.randrange(90)})])
        Run._default_manager.filter(pk=claimed.run.pk).update(last_seq=seq)
        lifecycle.release_run(claimed.run.pk, worker="test")

    def suspend(self, chance: random.Random, user: Any, session: ChatSession) -> None:
        if (claimed := claim_head(session)) is None:
            return
        suspension = Suspension(
            requests=[Request("call", "erase", "{}")],
            state={},
            items=[],
            expires_in=timedelta(days=1),
            usage=some_usage(chance, claimed.run),
        )
        suspend_run(claimed, last_seq=claimed.last_seq, events=[], suspension=suspension)
        if chance.random() < 0.7:
            [asked] = Approval._default_manager.filter(run=claimed.run, decision="")
            decide(user=user, request_id=str(asked.pk), verdict="approve", viewed_for=None)

    def call(self, chance: random.Random, user: Any, session: ChatSession) -> None:
        usage = some_usage(chance, None)
        model = chance.choice(["scripted", "another"])
        lists.add_side_call(session.pk, SideCall.Purpose.TITLE, model, usage)

    def test_a_session_without_a_run_has_taken_nothing(self) -> None:
        session = ChatSession._default_manager.create(owner=make_user("ann"))
        assert queries.session_usage(session) == added_up(session)

    def test_what_is_refused_counts_nothing(self) -> None:
        """The totals are written in the transaction that ends the run."""
        posted = ask(make_user("ann"), "hi")
        with transaction.atomic():
            finish(posted, "Hello", usage=TokenUsage(10, 2, source=UsageSource.MEASURED))
            transaction.set_rollback(True)
        assert queries.session_usage(session_of(posted)).runs == 0
        assert spent_by(Run._default_manager.get().owner) == 0

    def test_a_migration_counts_what_is_there(self) -> None:
        chance = random.Random(1)
        user = make_user("ann")
        sessions = [session_of(ask(user, "first")) for _ in range(3)]
        for session in sessions:
            for move in (self.end, self.call, self.ask, self.suspend, self.ask, self.end):
                move(chance, user, session)
        kept = [queries.session_usage(session) for session in sessions]
        spent = spent_by(user)
        SessionUsage._default_manager.all().delete()
        UserUsage._default_manager.all().delete()
        fill = import_module("conversations.migrations.0017_fill_usage_totals")
        for _ in range(2):
            for session in sessions:
                fill.fill_batch(apps, SimpleNamespace(connection=connection), [session.pk])
            fill.fill_sessions(apps, SimpleNamespace(connection=connection))
            fill.fill_users(apps, SimpleNamespace(connection=connection))
            assert [queries.session_usage(session) for session in sessions] == kept
            assert spent_by(user) == spent


def spent_by(user: Any) -> int:
    return sum(UserUsage._default_manager.filter(user=user).values_list("tokens", flat=True))


def tokens_of(runs: Any) -> int:
    return sum((run.input_tokens or 0) + (run.output_tokens or 0) for run in runs)


def claim_head(session: ChatSession) -> Claimed | None:
    claim = Claim("test", timedelta(minutes=1), "assistant", "scripted")
    unfinished = queries.list_unfinished(session.pk)
    return lifecycle.claim_run(unfinished[0].pk, claim) if unfinished else None


def some_usage(chance: random.Random, run: Run | None) -> TokenUsage:
    """Not less than what the run has taken before."""
    if chance.random() < 0.2:
        return TokenUsage()
    before = (run.input_tokens or 0, run.output_tokens or 0) if run else (0, 0)
    given, made = (known + chance.randrange(5_000) for known in before)
    source = chance.choice([UsageSource.MEASURED, UsageSource.ESTIMATED])
    return TokenUsage(given, made, chance.choice([None, 7]), chance.choice([None, 3]), source)
