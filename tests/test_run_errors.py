"""What people are told of an exception that ended a run."""

import time
from email.utils import formatdate
from typing import Any

import agents
import httpx2
import openai
import pytest

from conversations.errors import ErrorCode
from realtime.run_errors import is_refusal, parse_retry_after, run_error

REQUEST = httpx2.Request("POST", "http://model.test/v1/responses")


def refused(status: int, body: dict[str, Any] | None = None, **headers: str) -> openai.APIError:
    response = httpx2.Response(status, json={"error": body or {}}, headers=headers, request=REQUEST)
    client = openai.OpenAI(api_key="none", base_url="http://model.test/v1")
    error = client._make_status_error_from_response(response)
    client.close()
    return error


@pytest.mark.parametrize(
    ("status", "body", "code"),
    [
        (400, {"message": "no"}, "provider_refused"),
        (400, {"code": "context_length_exceeded"}, "context_too_long"),
        (400, {"message": "exceeds the context window of 4096"}, "context_too_long"),
        (400, {"message": "no such context"}, "provider_refused"),
        (400, {"code": "content_filter"}, "content_filtered"),
        (401, {}, "provider_key"),
        (403, {}, "provider_key"),
        (404, {}, "provider_refused"),
        (408, {}, "provider_timeout"),
        (413, {}, "context_too_long"),
        (429, {}, "provider_rate_limited"),
        (429, {"code": "insufficient_quota"}, "provider_quota"),
        (500, {}, "provider_unavailable"),
        (503, {}, "provider_unavailable"),
        (504, {}, "provider_timeout"),
    ],
)
def test_refusals(status: int, body: dict[str, Any], code: str) -> None:
    exc = refused(status, body)
    assert run_error(exc, has_text=False).code == code
    assert run_error(exc, has_text=True).code == code
    assert is_refusal(exc)


def test_connections() -> None:
    slow = openai.APITimeoutError(request=REQUEST)
    assert run_error(slow, has_text=False).code == ErrorCode.PROVIDER_TIMEOUT
    assert run_error(slow, has_text=True).code == ErrorCode.PROVIDER_CUT
    assert not is_refusal(slow)
    nobody = openai.APITimeoutError(request=REQUEST)
    nobody.__cause__ = httpx2.ConnectTimeout("refused")
    assert run_error(nobody, has_text=False).code == ErrorCode.PROVIDER_UNAVAILABLE
    assert is_refusal(nobody)
    cut = openai.APIConnectionError(request=REQUEST)
    assert run_error(cut, has_text=False).code == ErrorCode.PROVIDER_UNAVAILABLE
    assert run_error(cut, has_text=True).code == ErrorCode.PROVIDER_CUT


def test_others() -> None:
    assert run_error(agents.MaxTurnsExceeded("10"), has_text=True).code == ErrorCode.LIMIT_TURNS
    assert run_error(agents.ToolTimeoutError("t", 1), has_text=True).code == ErrorCode.LIMIT_TIME
    assert run_error(ValueError("secret"), has_text=True).code == ErrorCode.INTERNAL


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "-7"}, 0.0),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after-ms": "250", "retry-after": "1"}, 0.25),
        ({"retry-after-ms": "?", "retry-after": "2"}, 2.0),
    ],
)
def test_retry_after(headers: dict[str, str], seconds: float | None) -> None:
    assert parse_retry_after(headers) == seconds


def test_retry_after_as_a_date() -> None:
    headers = {"retry-after": formatdate(time.time() + 60, usegmt=True)}
    assert parse_retry_after(headers) == pytest.approx(60, abs=2)
    assert parse_retry_after({"retry-after": formatdate(0, usegmt=True)}) == 0
