"""Figures of a period, on both databases, and the plots that are made of them."""

from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.contrib.auth.models import Permission
from django.test import Client
from pytest_django import DjangoDbBlocker

from conversations.models import ChatSession, Run, RunStatus, SideCall
from conversations.review.drawing import Series, plot_bars, plot_lines
from conversations.review.figures import percentile, read_figures
from tests.support.chats import ask, finish, make_user
from tests.support.databases import migrated, orm_on
from tests.support.servers import Postgres

NOW = datetime(2026, 5, 10, 18, tzinfo=UTC)


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest) -> Iterator[None]:
    if request.param == "sqlite":
        request.getfixturevalue("db")
        yield
        return
    postgres: Postgres = request.getfixturevalue("postgres")
    blocker: DjangoDbBlocker = request.getfixturevalue("django_db_blocker")
    with blocker.unblock(), migrated(postgres) as url, orm_on(url):
        yield


def reply(user: Any, asked: datetime, wait: float, **fields: Any) -> None:
    """A reply whose first token came after `wait` seconds."""
    status = fields.pop("status", RunStatus.COMPLETED)
    posted = ask(user, "question")
    finish(posted, "answer", status=status, error_code=fields.pop("error_code", ""))
    ChatSession.objects.filter(pk=posted.session_id).update(created_at=asked)
    Run.objects.filter(pk=posted.run_id).update(
        created_at=asked, first_token_at=asked + timedelta(seconds=wait), **fields
    )


def test_what_happened_on_which_day(database: None) -> None:
    ann = make_user("ann")
    today, before = NOW, NOW - timedelta(days=2)
    for wait in (0.105, 0.205, 5.55):
        reply(ann, today, wait, input_tokens=10, output_tokens=5, cost="0.5")
    asked = before + timedelta(seconds=3)
    stops = {"cancel_requested_at": asked, "stopped_at": asked + timedelta(seconds=0.255)}
    reply(ann, before, 30.5, status=RunStatus.CANCELLED, **stops)
    reply(ann, before, 1.05, status=RunStatus.FAILED, error_code="provider_cut")
    reply(ann, NOW - timedelta(days=3), 1)
    figures = read_figures(3, NOW)
    assert list(figures.days) == ["2026-05-08", "2026-05-09", "2026-05-10"]
    assert figures.column("sessions") == figures.column("replies") == [2, 0, 3]
    assert figures.column("failed") == [1, 0, 0]
    assert figures.column("tokens") == [0, 0, 45]
    assert [float(cost or 0) for cost in figures.column("cost")] == [0, 0, 1.5]
    first, _, last = figures.column("first_token")
    assert (first, last) == (Counter([1100.0, 31000.0]), Counter([110.0, 210.0, 5600.0]))
    assert figures.column("stop")[0] == Counter([260.0])
    assert figures.errors == [("provider_cut", 1)]
    assert [(s.agent, s.replies, s.failed) for s in figures.shares] == [("assistant", 5, 1)]


@pytest.mark.parametrize(
    ("counts", "share", "value"),
    [
        (Counter(), 0.5, None),
        (Counter({10.0: 1}), 0.95, 10),
        (Counter({10.0: 5, 20.0: 5}), 0.5, 10),
        (Counter({10.0: 19, 900.0: 1}), 0.95, 10),
        (Counter({10.0: 18, 900.0: 2}), 0.95, 900),
    ],
)
def test_percentiles(counts: Counter[float], share: float, value: float | None) -> None:
    assert percentile(counts, share) == value


def test_plots_begin_at_zero_and_have_their_numbers_in_a_table() -> None:
    days = ["2026-05-08", "2026-05-09"]
    series = [Series("calm", "fine", [3, 0]), Series("bad", "failed", [1, None])]
    plot = plot_bars("Replies", "replies a day", days, series)
    assert plot.y_ticks[0].label == "0"
    assert plot.y_ticks[0].at == plot.baseline
    below, above = plot.boxes
    assert below.y + below.height == plot.baseline
    assert above.y + above.height == below.y
    assert plot.rows == [("2026-05-08", ["3", "1"]), ("2026-05-09", ["0", "–"])]


def test_lines_break_where_there_is_nothing() -> None:
    plot = plot_lines("t", "ms", ["d"] * 4, [Series("calm", "p50", [1, None, 2, 3])])
    assert [point[0] for point in plot.curves[0].path.split(" ")[::2]] == ["M", "M", "L"]


@pytest.mark.django_db
def test_the_page_needs_its_permission() -> None:
    staff = make_user("staff", is_staff=True)
    staff.user_permissions.add(Permission.objects.get(codename="view_chatsession"))
    client = Client()
    client.force_login(staff)
    address = "/admin/conversations/chatsession/figures/"
    assert client.get(address).status_code == 403
    staff.user_permissions.add(Permission.objects.get(codename="see_figures"))
    reply(staff, datetime.now(UTC), 1)
    for query in ("", "?days=7", "?days=90", "?days=x"):
        html = client.get(address + query).content.decode()
        assert "Wait for the first token" in html
        assert "style=" not in html


def test_titles_and_summaries_cost_too(database: None) -> None:
    ann = make_user("ann")
    reply(ann, NOW, 0.1, input_tokens=10, output_tokens=5, cost="0.5", model="m")
    call = SideCall.objects.create(
        session=ChatSession.objects.get(),
        purpose=SideCall.Purpose.TITLE,
        model="small",
        input_tokens=100,
        output_tokens=1,
        cost="5.00",
    )
    SideCall.objects.filter(pk=call.pk).update(created_at=NOW)
    figures = read_figures(1, NOW)
    assert figures.column("cost") == [Decimal("5.5")]
    assert figures.column("tokens") == [116]
    assert figures.column("replies") == [1]
    assert [(share.agent, share.model, share.cost) for share in figures.shares][1:] == [
        ("title", "small", Decimal(5))
    ]
