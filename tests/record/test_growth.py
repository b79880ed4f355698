"""What costs the same however much there is: by statements, rows and folds, never by seconds."""

import asyncio
import json
import random
import threading
from collections.abc import Callable, Iterable
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from agents.usage import Usage
from django.contrib.auth.models import User
from django.db import connection, transaction
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import crypto, timezone
from rest_framework_simplejwt.tokens import AccessToken

from conversations import queries
from conversations.changes import write_events
from conversations.models import (
    ChatSession,
    Message,
    ReplyHtml,
    Role,
    Run,
    RunStatus,
    Summary,
    UsageSource,
    UserUsage,
)
from conversations.people.accounts import create_key
from conversations.people.sign_ins import (
    SignIn,
    issue_ticket,
    list_ended_sign_ins,
    redeem_ticket,
)
from conversations.queries import read_events, session_usage
from conversations.runs import catch_up, lifecycle
from conversations.runs.catch_up import Snapshots, read_snapshot
from conversations.runs.events import Batch, commit_batches
from conversations.runs.inputs import read_path
from conversations.runs.lifecycle import Ending
from conversations.runs.usage import ChatLimits, TokenUsage, check_user, find_slot
from conversations.sessions import history
from conversations.sessions.parts import PartsFolder, fold
from conversations.sessions.posting import NewChat, post_chat
from conversations.sessions.rendering import render_texts
from conversations.text import estimate_items
from realtime import routing
from realtime.channel_layer import MAX_WAITING, Publisher
from realtime.sockets.reader import read_missed, read_state
from realtime.work.metering import InputEstimates, UsageMeter
from tests.support.chats import CLAIM, ask, begin, finish, make_user, session_of
from tests.support.machine import scaled
from tests.support.site import ROOT
from tests.support.waiting import TIMEOUT_S, time_limit

LEASE = timedelta(seconds=15)


def queries_of(act: Callable[[], object]) -> list[str]:
    with CaptureQueriesContext(connection) as captured:
        act()
    return [query["sql"] for query in captured.captured_queries]


def plan_of(sql: str) -> str:
    with connection.cursor() as cursor:
        cursor.execute(f"EXPLAIN QUERY PLAN {sql}")
        return "\n".join(row[-1] for row in cursor.fetchall())


def add_ended_runs(user: User, count: int) -> ChatSession:
    session = ChatSession._default_manager.create(owner=user)
    messages = Message._default_manager.bulk_create(
        Message(session=session, number=n, role="user", rev=1) for n in range(2 * count)
    )
    Run._default_manager.bulk_create(
        Run(
            session=session,
            owner=user,
            number=n,
            status="completed",
            prompt=messages[2 * n],
            reply=messages[2 * n + 1],
            input_tokens=10,
            output_tokens=2,
            ended_at=timezone.now(),
        )
        for n in range(count)
    )
    return session


@pytest.mark.django_db
class TestLimits:
    """A chat's limits."""

    def check(self, user: User) -> list[str]:
        with transaction.atomic():
            limits = ChatLimits(runs=10, tokens_a_day=10**12)
            return queries_of(lambda: check_user(user.pk, limits, starts=True))

    @pytest.mark.in_process("plans of SQLite")
    def test_no_ended_run_is_read(self) -> None:
        user = make_user("ann")
        before = len(self.check(user))
        add_ended_runs(user, 300)
        asked = self.check(user)
        assert len(asked) == before == 2
        plan = plan_of(asked[1])
        assert "COVERING INDEX runs_at_work (owner_id=?)" in plan
        assert "sqlite_autoindex_conversations_userusage_1 (user_id=? AND slot>?)" in plan

    def test_a_day_is_a_bounded_number_of_rows(self) -> None:
        user = make_user("ann")
        session = None
        for _ in range(5):
            posted = ask(user, "hi", session)
            finish(posted, "Hello", usage=TokenUsage(10, 2, source=UsageSource.MEASURED))
            session = session_of(posted)
        [row] = UserUsage._default_manager.all()[:2]
        assert (row.tokens, row.slot) == (60, find_slot(timezone.now()))


@pytest.mark.django_db
class TestSessionUsage:
    """A session's totals."""

    def test_no_run_is_read(self) -> None:
        posted = ask(make_user("ann"), "hi")
        finish(posted, "Hello")
        asked = queries_of(lambda: session_usage(session_of(posted)))[1:]
        assert len(asked) == 1
        assert "conversations_run" not in asked[0]


@pytest.mark.django_db(transaction=True)
class TestStated:
    """Statements and commits, as docs/architecture.md states them."""

    def count(self, act: Callable[[], Any]) -> tuple[int, int]:
        """Return the numbers of statements and of commits."""
        told = queries_of(act)
        commits = sum(sql == "COMMIT" for sql in told)
        return len(told) - commits - sum(sql.startswith("BEGIN") for sql in told), commits

    def test_of_a_reply(self) -> None:
        user = make_user("ann")
        claims: list[Any] = []
        limits = ChatLimits(runs=9, tokens_a_day=9**9, guest_tokens_a_day=9, site_tokens_a_day=9**9)

        def post(session_id: str) -> None:
            chat = NewChat("hi", session_id=session_id, client_message_id=f"m{len(claims)}")
            posted = post_chat(user=user, chat=chat, limits=limits, viewed_for=None, claim=CLAIM)
            claims.append(posted.claimed)

        def end() -> None:
            parts = [{"type": "text", "text": "Hello"}]
            ending = Ending(
                RunStatus.COMPLETED,
                parts,
                items=[{"role": "assistant", "content": "Hello"}],
                usage=TokenUsage(10, 2, source=UsageSource.MEASURED),
                html=render_texts(parts),
            )
            rest = [(3, "token", {"delta": "lo"})]
            lifecycle.finish_run(claims[-1], last_seq=2, events=rest, ending=ending)

        counted = {"post a first message": self.count(lambda: post(""))}
        run = claims[-1].run
        batch = Batch(run.pk, run.claim, run.epoch, 1, [(2, "token", {"delta": "Hel"})])
        counted["each commit of text"] = self.count(lambda: commit_batches([batch], LEASE))
        counted["end the reply"] = self.count(end)
        counted["post a further message"] = self.count(lambda: post(str(run.session_id)))
        run = claims[-1].run
        counted["read the model's input"] = self.count(lambda: read_path(run, run.prompt_id, 60))
        assert counted == stated_costs("reply")

    def test_of_a_client_that_returns(self) -> None:
        user = make_user("ann")
        first = ask(user, "hi")
        finish(first, "Hello", html=render_texts([{"type": "text", "text": "Hello"}]))
        session = session_of(first)
        running = ask(user, "and now?", session)
        begin(running, "Well")
        token = AccessToken.for_user(user)
        browser = Client()
        browser.force_login(user)
        cookie = f"sessionid={browser.cookies['sessionid'].value}"
        _, key = create_key(user=user, name="one", scopes=["read"])
        ticket, _ = issue_ticket(user=user, sign_in=sign_in_of(user))
        asked: dict[str, Any] = {"rev": 0, "limit": 9, "max_chars": 999}
        acts: dict[str, Callable[[], object]] = {
            "sign-in by access token": lambda: routing._from_header(f"Bearer {token}"),
            "sign-in by cookie": lambda: routing._from_cookie(cookie),
            "sign-in by API key": lambda: routing._from_header(f"Bearer {key}"),
            "sign-in by ticket": lambda: redeem_ticket(ticket),
            "find the session": lambda: queries.get_session(user, str(session.pk)),
            "read what has changed": lambda: read_state(session.pk, runs=frozenset(), **asked),
            "read a running reply": lambda: read_missed(running.run_id, epoch=0, seq=0, limit=9),
        }
        assert {name: self.count(act) for name, act in acts.items()} == stated_costs("return")


def stated_costs(what: str) -> dict[str, tuple[int, int]]:
    text = (ROOT / "docs/architecture.md").read_text()
    rows = text.partition(f"<!-- counted: {what} -->")[2].partition("<!-- end -->")[0]
    cells = [[cell.strip() for cell in row.split("|")[1:-1]] for row in rows.splitlines()]
    return {
        row[0]: (int(row[1]), int(row[2])) for row in cells if len(row) == 3 and row[1].isdigit()
    }


@pytest.mark.django_db
class TestSignIns:
    """Sign-in checks of all sockets."""

    def open(self, count: int) -> list[SignIn]:
        users = User.objects.bulk_create(
            User(username=f"u{n}", password=f"hash {n}") for n in range(count)
        )
        return [sign_in_of(user) for user in users]

    def test_a_hash_is_made_once(self, monkeypatch: pytest.MonkeyPatch) -> None:
        made: list[object] = []
        salted_hmac = crypto.salted_hmac

        def count(*args: Any, **options: Any) -> Any:
            made.append(args)
            return salted_hmac(*args, **options)

        sign_ins = self.open(50)
        assert list_ended_sign_ins(sign_ins) == set()
        monkeypatch.setattr("django.contrib.auth.base_user.salted_hmac", count)
        assert list_ended_sign_ins(sign_ins) == set()
        assert made == []

    def test_statements_have_a_bounded_number_of_parameters(self) -> None:
        sign_ins = self.open(1_200)
        asked = queries_of(lambda: list_ended_sign_ins(sign_ins))
        assert len(asked) == 3
        assert all(sql.count(",") < 600 for sql in asked)

    def test_a_new_password_ends_a_sign_in(self) -> None:
        [one, other] = self.open(2)
        assert list_ended_sign_ins([one, other]) == set()
        User.objects.filter(username="u0").update(password="another")
        assert list_ended_sign_ins([one, other]) == {one}

    def test_a_disabled_account_ends_a_sign_in(self) -> None:
        [one] = self.open(1)
        User.objects.update(is_active=False)
        assert list_ended_sign_ins([one]) == {one}

    def test_a_new_secret_key_ends_a_sign_in(self, settings: Any) -> None:
        [one] = self.open(1)
        assert list_ended_sign_ins([one]) == set()
        settings.SECRET_KEY_FALLBACKS = [settings.SECRET_KEY]
        settings.SECRET_KEY = "another"
        assert list_ended_sign_ins([one]) == {one}
        assert list_ended_sign_ins([sign_in_of(User.objects.get())]) == set()

    def test_a_hash_of_a_projects_own_is_asked_for(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """It may depend on any column, as here on the address."""
        monkeypatch.setattr(User, "get_session_auth_hash", lambda user: f"of {user.email}")
        [one] = self.open(1)
        assert list_ended_sign_ins([one]) == set()
        User.objects.update(email="new@example.org")
        assert list_ended_sign_ins([one]) == {one}


@pytest.mark.django_db
def test_heads_of_all_sockets_have_a_bounded_number_of_parameters() -> None:
    user = make_user("ann")
    first, last = (session_of(ask(user, text)) for text in ("one", "two"))
    runs = [queries.list_unfinished(session.pk)[0].pk for session in (first, last)]
    others = [uuid4() for _ in range(1_200)]
    heads: list[catch_up.Heads] = []

    def read() -> None:
        heads.append(catch_up.read_heads([first.pk, *others, last.pk], [runs[0], *others, runs[1]]))

    asked = queries_of(read)
    assert len(asked) == 6
    assert all(sql.count(",") < 600 for sql in asked)
    assert heads[0].revs == {first.pk: first.rev, last.pk: last.rev}
    assert heads[0].runs == dict.fromkeys(runs, (0, 0))


def sign_in_of(user: User) -> SignIn:
    return SignIn(user.pk, user.get_session_auth_hash(), None, None)


@pytest.fixture
def folds(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The kind of each event that is folded."""
    done: list[str] = []
    apply = PartsFolder.apply

    def count(folder: PartsFolder, kind: str, payload: Any) -> None:
        done.append(kind)
        apply(folder, kind, payload)

    monkeypatch.setattr(PartsFolder, "apply", count)
    return done


def say(run_id: Any, *deltas: str) -> None:
    """Commit more text of a run."""
    with transaction.atomic():
        run = load(run_id)
        first = run.last_seq + 1
        write_events(run, [(seq, "token", {"delta": d}) for seq, d in enumerate(deltas, first)])
        Run._default_manager.filter(pk=run_id).update(last_seq=run.last_seq + len(deltas))


def load(run_id: Any) -> Run:
    return Run._default_manager.get(pk=run_id)


def text_of(run_id: Any) -> str:
    got = catch_up.read_catch_up(run_id, epoch=0, seq=0, limit=0)
    assert got.parts is not None
    assert got.seq == got.run.last_seq
    return "".join(part["text"] for part in got.parts)


@pytest.mark.django_db(transaction=True)
class TestSnapshots:
    """A catch-up in the middle of a reply."""

    @pytest.fixture
    def posted(self, transactional_db: None) -> Any:
        return ask(make_user("ann"), "hi")

    @pytest.fixture
    def run_id(self, posted: Any) -> Any:
        return begin(posted, *(f"{n} " for n in range(60))).run.pk

    def test_a_second_reader_folds_nothing(self, run_id: Any, folds: list[str]) -> None:
        text = text_of(run_id)
        assert len(folds) == 61
        asked = queries_of(lambda: text_of(run_id))
        assert len(asked) == 1, "the row of the run alone"
        assert text_of(run_id) == text
        assert len(folds) == 61

    def test_only_what_is_new_is_read_and_folded(self, run_id: Any, folds: list[str]) -> None:
        before = text_of(run_id)
        say(run_id, "one ", "two ")
        assert text_of(run_id) == f"{before}one two "
        assert len(folds) == 63

    def test_every_way_to_read_shares_it(self, posted: Any, run_id: Any, folds: list[str]) -> None:
        text = text_of(run_id)
        session = session_of(posted)
        page = history.get_history(session)
        assert page.run is not None
        assert page.run.seq == 61
        assert page.messages[-1].text == text
        view = history.get_reply_view(session, load(run_id))
        assert view.text == text
        assert len(folds) == 61

    def test_a_reader_may_change_what_it_was_given(self, run_id: Any) -> None:
        shown = read_snapshot(load(run_id))
        shown.parts[0]["text"] = "spoilt"
        assert text_of(run_id).startswith("0 1 ")

    def test_an_older_row_gets_parts_and_row_of_one_moment(self, run_id: Any) -> None:
        row = load(run_id)
        say(run_id, "more")
        newest = text_of(run_id)
        shown = read_snapshot(row)
        assert shown.parts[0]["text"] == newest
        assert shown.run.last_seq == row.last_seq + 1

    def test_what_is_not_committed_is_not_kept(self, run_id: Any) -> None:
        text = text_of(run_id)
        with transaction.atomic():
            say(run_id, "never")
            assert text_of(run_id) == f"{text}never"
            transaction.set_rollback(True)
        say(run_id, "really")
        assert text_of(run_id) == f"{text}really"

    def test_a_new_epoch_begins_anew(self, posted: Any, run_id: Any) -> None:
        old = load(run_id)
        first = text_of(run_id)
        Run._default_manager.filter(pk=run_id).update(status="queued")
        begin(posted, "again")
        assert text_of(run_id) == "again"
        assert read_snapshot(old).parts[0]["text"] == first
        assert text_of(run_id) == "again"

    def test_it_is_dropped_when_the_run_ends(self, run_id: Any) -> None:
        text_of(run_id)
        assert run_id in catch_up._snapshots._entries
        lifecycle.release_run(run_id, worker="test")
        assert run_id not in catch_up._snapshots._entries

    def test_what_is_held_is_bounded(self, monkeypatch: pytest.MonkeyPatch) -> None:
        user = make_user("ann")
        runs = [load(begin(ask(user, "hi"), "x" * 100).run.pk) for _ in range(4)]
        few, small = Snapshots(max_runs=2), Snapshots(max_chars=250)
        for run in runs:
            few.read(run)
            small.read(run)
        assert len(few) == len(small) == 2
        monkeypatch.setattr(catch_up, "IDLE_S", -1)
        few.read(runs[0])
        assert len(few) == 0

    def test_a_fold_that_fails_is_not_gone_on_from(
        self, run_id: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        say(run_id, "bad")
        with monkeypatch.context() as patch:

            def fail(folder: PartsFolder, kind: str, payload: dict[str, Any]) -> None:
                if payload.get("delta") == "30 ":
                    raise RuntimeError
                folder._grow("text", payload.get("delta", ""))

            patch.setattr(PartsFolder, "apply", fail)
            with pytest.raises(RuntimeError):
                text_of(run_id)
        assert text_of(run_id) == "".join(f"{n} " for n in range(60)) + "bad"

    def test_readers_at_once_fold_once(
        self, run_id: Any, folds: list[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The first is held where it has read the events, until the others have asked."""
        reading, go_on = threading.Event(), threading.Event()

        def read_slowly(run: Run, *, after: int = 0) -> Any:
            events = read_events(run, after=after)
            reading.set()
            assert go_on.wait(scaled(TIMEOUT_S))
            return events

        monkeypatch.setattr(catch_up, "read_events", read_slowly)
        texts: list[str] = []

        def read() -> None:
            try:
                texts.append(text_of(run_id))
            finally:
                connection.close()

        threads = [threading.Thread(target=read) for _ in range(4)]
        threads[0].start()
        assert reading.wait(scaled(TIMEOUT_S))
        for thread in threads[1:]:
            thread.start()
        go_on.set()
        for thread in threads:
            thread.join(scaled(TIMEOUT_S))
        assert len(set(texts)) == 1
        assert len(texts) == 4
        assert len(folds) == 61

    @pytest.mark.parametrize("seed", range(5))
    def test_it_is_what_a_fold_of_all_events_gives(self, posted: Any, seed: int) -> None:
        chance = random.Random(seed)
        claimed = begin(posted)
        rows = [load(claimed.run.pk)]
        for step in range(60):
            if chance.random() < 0.6:
                self.add_event(claimed.run.pk, chance, step)
                rows.append(load(claimed.run.pk))
                continue
            shown = read_snapshot(chance.choice(rows[-3:]))
            events = read_events(shown.run)
            assert shown.parts == fold((kind, payload) for _, kind, payload in events).parts

    def add_event(self, run_id: Any, chance: random.Random, step: int) -> None:
        call = {"tool_call_id": f"c{chance.randrange(3)}", "name": "x"}
        kinds: list[tuple[str, dict[str, Any]]] = [
            ("token", {"delta": f"{step} "}),
            ("reasoning.delta", {"delta": f"{step}? "}),
            ("tool.started", call),
            ("tool.finished", {**call, "output": str(step)}),
            ("agent.changed", {"name": str(step)}),
        ]
        kind, payload = chance.choice(kinds)
        run = load(run_id)
        write_events(run, [(run.last_seq + 1, kind, payload)])
        Run._default_manager.filter(pk=run_id).update(last_seq=run.last_seq + 1)


@pytest.mark.django_db
@pytest.mark.parametrize(
    "read",
    [
        lambda session: catch_up.read_session_state(
            session.pk, rev=0, runs=[], limit=9, max_chars=999
        ),
        history.get_history,
    ],
)
def test_what_is_unfinished_is_read_once(read: Callable[[ChatSession], Any]) -> None:
    user = make_user("ann")
    posted = ask(user, "one")
    session = session_of(posted)
    ask(user, "two", session)
    shown: list[Any] = []
    asked = queries_of(lambda: shown.append(read(session)))
    assert sum("JOIN conversations_message prompt" in sql for sql in asked) == 1
    assert [line.content for line in shown[0].queue] == ["two"]


@pytest.mark.django_db
def test_what_is_read_without_the_orm_is_the_same() -> None:
    """Messages with and without a run and a summary; those that changed first come first."""
    user = make_user("ann")
    session = session_of(posted := ask(user, "one"))
    finish(posted, "Hello", html=["<p>Hello</p>"])
    reply = Message.objects.get(role=Role.ASSISTANT)
    Summary.objects.create(message=reply, text="greetings", model="m")
    ask(user, "two", session)
    Message.objects.filter(number=1).update(rev=99)

    def values(rows: Iterable[Any]) -> list[Any]:
        """Return the values of each row's fields."""
        return [
            row and [getattr(row, field.attname) for field in row._meta.concrete_fields]
            for row in rows
        ]

    def parts(message: Message) -> list[Any]:
        return [message, getattr(message, "run", None), getattr(message, "summary", None)]

    changed = queries.list_changed(session.pk, rev=1, limit=3)
    assert [row.number for row in changed] == [2, 3, 4]
    with CaptureQueriesContext(connection) as captured:
        found = [values(parts(row)) for row in changed]
    assert not captured.captured_queries
    by_orm = session.messages.select_related("run", "summary").order_by("rev", "number")[:3]
    assert found == [values(parts(row)) for row in by_orm]
    assert [row[2] is None for row in found] == [False, True, True]
    newest = queries.list_changed(session.pk, rev=changed[-1].rev, limit=3)
    assert [row.number for row in newest] == [1]
    same = ReplyHtml.objects.all(), queries.select(ReplyHtml, message=[reply.pk, uuid4()])
    assert values(same[0]) == values(same[1])
    assert queries.select(ReplyHtml, message=[]) == []
    assert values([queries.find(ChatSession, id=session.pk, deleted_at=None)]) == values(
        ChatSession.objects.all()
    )
    assert queries.find(ChatSession, id=session.pk, archived_at=timezone.now()) is None


class SlowLayer:
    """Sends what it is let through, group by group."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, int]] = []
        self.in_flight: list[str] = []
        self.moved = asyncio.Condition()
        self._stuck: set[str] = set()

    def hold(self, *groups: str) -> None:
        self._stuck = set(groups)

    async def release(self) -> None:
        async with self.moved:
            self._stuck.clear()
            self.moved.notify_all()

    async def until(self, met: Callable[[], bool]) -> None:
        async with time_limit("the layer"), self.moved:
            await self.moved.wait_for(met)

    async def group_send(self, group: str, message: dict[str, Any]) -> None:
        assert group not in self.in_flight, "two of one group at once"
        self.in_flight.append(group)
        try:
            async with self.moved:
                self.moved.notify_all()
                await self.moved.wait_for(lambda: group not in self._stuck)
                self.sent.append((group, message["n"]))
                self.moved.notify_all()
        finally:
            self.in_flight.remove(group)

    def of(self, group: str) -> list[int]:
        return [n for name, n in self.sent if name == group]


@pytest.fixture
def layer() -> SlowLayer:
    return SlowLayer()


@pytest.fixture
async def publisher(layer: SlowLayer) -> Any:
    made = Publisher()
    made._layer = layer
    running = asyncio.create_task(made.run())
    yield made
    running.cancel()
    await asyncio.wait([running])


def numbered(group: str, count: int, first: int = 0) -> list[tuple[str, dict[str, Any]]]:
    return [(group, {"type": "x", "n": n}) for n in range(first, first + count)]


async def test_groups_are_sent_to_at_once_and_each_in_order(
    publisher: Publisher, layer: SlowLayer
) -> None:
    layer.hold("a")
    publisher.put([*numbered("a", 3), *numbered("b", 3), *numbered("c", 3)])
    await layer.until(lambda: len(layer.sent) == 6)
    assert layer.in_flight == ["a"]
    assert layer.of("b") == layer.of("c") == [0, 1, 2]
    await layer.release()
    await publisher.flush()
    assert layer.of("a") == [0, 1, 2]


async def test_what_waits_longest_is_dropped_and_told_of_once(
    publisher: Publisher, layer: SlowLayer, caplog: pytest.LogCaptureFixture
) -> None:
    def told() -> list[str]:
        return [record.message for record in caplog.records if "behind" in record.message]

    publisher.put(numbered("b", 1))
    publisher.put([*numbered("a", MAX_WAITING), *numbered("b", 5, 1)])
    assert publisher.dropped == 6
    await publisher.flush()
    assert layer.of("b") == [1, 2, 3, 4, 5]
    assert layer.of("a") == list(range(5, MAX_WAITING))
    text = f"{MAX_WAITING} messages wait, the oldest are dropped (1 so far)"
    assert told() == [f"channel layer is behind: {text}"]
    publisher.put(numbered("a", MAX_WAITING + 5))
    assert publisher.dropped == 11
    assert len(told()) == 2


async def test_it_goes_on_after_it_was_started_again(layer: SlowLayer) -> None:
    publisher = Publisher()
    publisher._layer = layer
    layer.hold("a")
    publisher.put(numbered("a", 3))
    running = asyncio.create_task(publisher.run())
    await layer.until(lambda: layer.in_flight == ["a"])
    running.cancel()
    await asyncio.wait([running])
    await layer.release()
    running = asyncio.create_task(publisher.run())
    await publisher.flush()
    running.cancel()
    await asyncio.wait([running])
    assert layer.of("a") == [1, 2]


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """What is encoded to learn its size."""
    done: list[object] = []
    dumps = json.dumps

    def count(value: object, **options: Any) -> str:
        done.append(value)
        return dumps(value, **options)

    monkeypatch.setattr(json, "dumps", count)
    return done


def test_a_model_call_does_not_encode_its_context(encoded: list[object]) -> None:
    meter = UsageMeter()
    meter.begin_call(Usage(), "any", "x", [{"content": "y"}] * 100)
    assert encoded == []


def test_an_estimate_encodes_what_is_new(encoded: list[object]) -> None:
    inputs = InputEstimates()
    items = [{"content": [f"né {n}"]} for n in range(100)]
    for count in (0, 1, 98, 100):
        inputs.estimate([dict(item) for item in items[:count]])
        assert len(encoded) == count
    other = [{"content": ["shorter"]}, *items[50:]]
    for given in (items, other):
        assert inputs.estimate(given) == pytest.approx(estimate_items(given))
