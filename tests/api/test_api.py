from typing import Any
from uuid import uuid4

import pytest
from django.http import Http404
from django.test import AsyncClient, Client, RequestFactory
from rest_framework import exceptions
from rest_framework.response import Response
from rest_framework.views import APIView

from conversations.api.base import exception_handler
from conversations.errors import ERRORS, AgentSiteError, ErrorCode
from conversations.models import ChatSession
from tests.support.chats import PASSWORD, ask, begin, make_user, session_of, talk
from tests.support.threads import in_thread

pytestmark = pytest.mark.django_db

ADDRESSES = ("/api/sessions/{}/", "/api/sessions/{}/messages/")


@pytest.fixture
def ann() -> Any:
    return make_user("ann")


@pytest.fixture
def api(ann: Any) -> Client:
    client = Client()
    client.force_login(ann)
    return client


def test_sessions_are_listed_newest_first(api: Client, ann: Any) -> None:
    older, newer = talk(ann, ("older", "1")), talk(ann, ("newer", "2"))
    talk(make_user("ben"), ("foreign", "3"))
    body = api.get("/api/sessions/").json()
    assert [entry["id"] for entry in body["results"]] == [str(newer.pk), str(older.pk)]
    assert body["results"][0] == {
        "id": str(newer.pk),
        "title": "newer",
        "agent": newer.agent,
        "rev": newer.rev,
        "message_count": 2,
        "run_status": None,
        "pinned": False,
        "created_at": newer.created_at.isoformat().replace("+00:00", "Z"),
        "active_at": newer.active_at.isoformat().replace("+00:00", "Z"),
        "archived_at": None,
        "deleted_at": None,
        "match": None,
    }


def test_pages_follow_each_other_without_gap_or_repeat(api: Client, ann: Any) -> None:
    made = {str(talk(ann, (f"{number}", "x")).pk) for number in range(5)}
    seen, address = [], "/api/sessions/?page_size=2"
    while address:
        body = api.get(address).json()
        seen += [entry["id"] for entry in body["results"]]
        address = body["next"]
    assert len(seen) == 5
    assert set(seen) == made


def test_a_session_begun_meanwhile_repeats_nothing(api: Client, ann: Any) -> None:
    for number in range(4):
        talk(ann, (f"{number}", "x"))
    first = api.get("/api/sessions/?page_size=2").json()
    talk(ann, ("new", "x"))
    second = api.get(first["next"]).json()
    titles = [entry["title"] for entry in first["results"] + second["results"]]
    assert titles == ["3", "2", "1", "0"]


def test_listing_costs_the_same_for_many(
    api: Client, ann: Any, django_assert_num_queries: Any
) -> None:
    for number in range(12):
        talk(ann, (f"{number}", "x"))
    with django_assert_num_queries(3):  # the session, its user, the list
        api.get("/api/sessions/")


def test_deleted_sessions_are_not_there(api: Client, ann: Any) -> None:
    session = talk(ann, ("one", "1"))
    ChatSession.objects.update(deleted_at=session.created_at)
    assert api.get("/api/sessions/").json()["results"] == []
    assert api.get(f"/api/sessions/{session.pk}/").status_code == 404


def test_a_session_with_its_history(api: Client, ann: Any) -> None:
    posted = ask(ann, "one", client_message_id="c1")
    begin(posted, "so ", "far")
    session = session_of(posted)
    ask(ann, "two", session)
    body = api.get(f"/api/sessions/{session.pk}/").json()
    assert body["run_status"] == "running"
    assert [(m["role"], m["text"]) for m in body["messages"]] == [
        ("user", "one"),
        ("assistant", "so far"),
        ("user", "two"),
        ("assistant", ""),
    ]
    assert body["messages"][0]["client_message_id"] == "c1"
    assert body["messages"][1]["run_id"] == body["run"]["run_id"] == str(posted.run_id)
    assert (body["run"]["epoch"], body["run"]["seq"]) == (1, 3)
    assert [entry["content"] for entry in body["queue"]] == ["two"]


@pytest.mark.parametrize("address", ADDRESSES)
def test_foreign_missing_and_malformed_are_the_same(api: Client, address: str) -> None:
    foreign = talk(make_user("ben"), ("secret", "1"))
    answers = [api.get(address.format(pk)) for pk in (foreign.pk, uuid4(), "nonsense", "a" * 300)]
    assert {answer.status_code for answer in answers} == {404}
    assert len({answer.content for answer in answers}) == 1
    assert answers[0].json() == error_shape(ErrorCode.NOT_FOUND)


@pytest.mark.parametrize("address", ["/api/sessions/", *ADDRESSES])
def test_strangers_are_told_to_sign_in(client: Client, ann: Any, address: str) -> None:
    session = talk(ann, ("one", "1"))
    answer = client.get(address.format(session.pk))
    assert answer.status_code == 401
    assert answer.json() == error_shape(ErrorCode.NOT_AUTHENTICATED)


def test_a_bearer_token_signs_in(client: Client, ann: Any) -> None:
    session = talk(ann, ("one", "1"))
    token = client.post(
        "/api/token/", {"username": "ann", "password": PASSWORD}, "application/json"
    )
    headers = {"Authorization": f"Bearer {token.json()['access']}"}
    body = client.get("/api/sessions/", headers=headers).json()
    assert [entry["id"] for entry in body["results"]] == [str(session.pk)]


def test_a_wrong_token_is_refused(client: Client) -> None:
    answer = client.get("/api/sessions/", headers={"Authorization": "Bearer nonsense"})
    assert answer.status_code == 401
    assert answer.json() == error_shape(ErrorCode.NOT_AUTHENTICATED)


@pytest.mark.parametrize("method", ["post", "put", "patch", "delete"])
def test_nothing_is_written_here(api: Client, ann: Any, method: str) -> None:
    session = talk(ann, ("one", "1"))
    answer = getattr(api, method)(f"/api/sessions/{session.pk}/messages/")
    assert answer.status_code == 405
    assert answer.json() == error_shape(ErrorCode.UNSUPPORTED_TYPE)
    assert ChatSession.objects.get() == session


def test_a_wrong_cursor_is_an_error_of_the_same_shape(api: Client) -> None:
    answer = api.get("/api/sessions/?cursor=nonsense")
    assert answer.status_code == 404
    assert set(answer.json()) == {"error"}


TOKEN, RUN_ID = "token-of-a-link", str(uuid4())


def error_shape(code: ErrorCode) -> dict[str, Any]:
    info = ERRORS[code]
    return {"error": {"code": code.value, "text": str(info.text), "retryable": info.retryable}}


@pytest.mark.parametrize(
    ("exc", "status", "code"),
    [
        (Http404(), 404, ErrorCode.NOT_FOUND),
        (exceptions.ParseError("details"), 400, ErrorCode.BAD_FRAME),
        (exceptions.ValidationError("details"), 400, ErrorCode.BAD_FRAME),
        (exceptions.PermissionDenied("details"), 403, ErrorCode.FORBIDDEN),
        (exceptions.UnsupportedMediaType("text/plain"), 415, ErrorCode.UNSUPPORTED_TYPE),
        (exceptions.Throttled(7), 429, ErrorCode.RATE_LIMITED),
        (AgentSiteError(ErrorCode.QUEUE_FULL), 409, ErrorCode.QUEUE_FULL),
        (RuntimeError("secret"), 500, ErrorCode.INTERNAL),
    ],
)
def test_every_exception_has_the_same_shape(exc: Exception, status: int, code: ErrorCode) -> None:
    answer = handle(exc)
    assert answer.status_code == status
    assert answer.data == error_shape(code)


@pytest.mark.parametrize(
    ("detail", "fields"),
    [
        ({"field": "details"}, [("field", "invalid", "details")]),
        (
            {"outer": {"inner": [exceptions.ErrorDetail("no", "bad"), "yes"]}},
            [("outer.inner", "bad", "no"), ("outer.inner", "invalid", "yes")],
        ),
        ({"list": [{}, {"name": ["no"]}]}, [("list.name", "invalid", "no")]),
    ],
)
def test_a_validation_error_names_its_fields(detail: Any, fields: list[Any]) -> None:
    answer = handle(exceptions.ValidationError(detail))
    assert answer.data is not None
    told = [tuple(fault.values()) for fault in answer.data["error"]["fields"]]
    assert (told, list(answer.data["error"]["fields"][0])) == (fields, ["field", "code", "text"])


def test_a_field_is_named_by_the_api(api: Client) -> None:
    answer = api.post("/api/sessions/", {"title": "x" * 201}, "application/json")
    (fault,) = answer.json()["error"]["fields"]
    assert (answer.status_code, fault["field"], fault["code"]) == (400, "title", "max_length")
    answer = api.get("/api/sessions/?status=exploded")
    assert answer.json()["error"]["fields"][0]["field"] == "status"


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    "address",
    [
        "/api/sessions/?stat=archived",
        "/api/export/?created_afer=2026-01-01",
        "/api/keys/?page=2",
        "/api/sessions/{}/?brnch=x",
        "/api/sessions/{}/runs/?status=failed",
    ],
)
async def test_an_unknown_parameter_is_refused(address: str) -> None:
    """A misspelled filter would find everything."""
    ann = await in_thread(make_user, "ann")
    session = await in_thread(talk, ann, ("one", "1"))
    client = AsyncClient()
    await client.aforce_login(ann)
    answer = await client.get(address.format(session.pk))
    (fault,) = answer.json()["error"]["fields"]
    assert (answer.status_code, fault["code"]) == (400, "unknown_parameter")
    assert f"?{fault['field']}=" in address


@pytest.mark.parametrize(
    "address", ["/api", "/api/sessions", "/api/nothing/", "/api/sessions/x/y/z/", "/api//sessions/"]
)
def test_an_address_that_is_none_is_an_error_of_the_same_shape(api: Client, address: str) -> None:
    """A redirect to the one with a slash would make a POST a GET."""
    for method in (api.get, api.post, api.delete):
        answer = method(address)
        assert (answer.status_code, answer.json()) == (404, error_shape(ErrorCode.NOT_FOUND))


def test_no_cache_keeps_an_answer(api: Client, ann: Any) -> None:
    session = talk(ann, ("one", "1"))
    for address in ("/api/sessions/", f"/api/sessions/{session.pk}/", "/api/sessions/none/"):
        assert api.get(address)["Cache-Control"] == "no-store"


@pytest.mark.parametrize(
    "exc", [exceptions.Throttled(7), AgentSiteError(ErrorCode.RATE_LIMITED, retry_after=7)]
)
def test_a_limit_says_when_to_come_back(exc: Exception) -> None:
    assert handle(exc)["Retry-After"] == "7"


def test_what_fails_is_logged_without_what_was_sent(caplog: pytest.LogCaptureFixture) -> None:
    try:
        raise RuntimeError("a prompt")
    except RuntimeError as exc:
        handle(exc)
    line = caplog.records[-1]
    shown = f"{line.getMessage()} {line.exc_info}"
    assert "RuntimeError" in shown
    assert RUN_ID in shown
    assert "a prompt" not in shown.replace('RuntimeError("a prompt")', "")
    assert TOKEN not in shown


def handle(exc: Exception) -> Response:
    request = RequestFactory().get("/")
    context = {"view": APIView(), "request": request, "kwargs": {"token": TOKEN, "run_id": RUN_ID}}
    answer = exception_handler(exc, context)
    assert answer is not None
    return answer


def test_options_describe_no_wrong_body(api: Client) -> None:
    answer = api.options("/api/sessions/")
    assert answer.status_code == 200
    assert "actions" not in answer.json()
