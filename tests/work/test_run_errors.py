"""What people are told of an exception that ended a run."""

import time
from email.utils import formatdate
from typing import Any

import agents
import httpx2
import openai
import pytest

from conversations.errors import ErrorCode
from realtime.work.run_errors import is_refusal, parse_retry_after, run_error

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


TOO_LONG = [
    # OpenAI, and who has copied its words
    "This model's maximum context length is 8192 tokens. However, your messages resulted in 9000.",
    "Your input exceeds the context window of this model. Please adjust your input and try again.",
    "Input tokens exceed the configured limit of 272000 tokens. Your messages resulted in 300000.",
    "Invalid 'messages[1].content': string too long. Expected a string with maximum length 99.",
    # Anthropic
    "prompt is too long: 218152 tokens > 200000 maximum",
    "input length and `max_tokens` exceed context limit: 188240 + 21333 > 200000",
    # Google
    "The input token count (218152) exceeds the maximum number of tokens allowed (65536).",
    "Unable to submit, because the input token count is 99 but model only supports up to 9 tokens",
    # xAI, Bedrock, Alibaba, Zhipu, Cohere, Moonshot, MiniMax, ByteDance
    "This model's maximum prompt length is 131072 but the request contains 537812 tokens.",
    "Input is too long for requested model.",
    "Range of input length should be [1, 30720]",
    "Prompt exceeds max length",
    "Prompt 超长",
    "输入内容过长，请缩短后重试",
    "too many tokens: total number of tokens in the prompt cannot exceed 4081 - received 4292.",
    "Invalid request: Your request exceeded model token limit: 8192",
    "invalid params, context window exceeds limit",
    "Total tokens of image and text exceed max message tokens",
    # Groq, Cerebras, GitHub, Copilot, Together, Cloudflare, LiteLLM
    "Please reduce the length of the messages or completion.",
    "Request body too large for gpt-4o model. Max size: 8000 tokens.",
    "prompt token count of 13000 exceeds the limit of 12288",
    "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 8193",
    "Input validation error: `inputs` must have less than 4096 tokens. Given: 5000",
    "The estimated number of tokens (9) exceeded this model context window limit (8).",
    "litellm.ContextWindowExceededError: GroqException",
    # Mistral, vLLM, SGLang, llama.cpp, LM Studio, Ollama
    "Prompt contains 40000 tokens, too large for model with 32768 maximum context",
    "The decoder prompt (length 5000) is longer than the maximum model length of 4096.",
    "The input (5000 tokens) is longer than the model's context length (4096 tokens).",
    "the request exceeds the available context size, try increasing it",
    "Trying to keep the first 5000 tokens when context the overflows.",
    "the input length exceeds the context length",
]
NOT_TOO_LONG = [
    "max_tokens is too large: 100000. This model supports at most 16384 completion tokens.",
    "Invalid value for 'temperature'",
    "The tool name is too long",
    "Conversation roles must alternate user/assistant/user/assistant/...",
    "Your input was flagged",
    "thinking is enabled but reasoning_content is missing in assistant tool call message",
]


@pytest.mark.parametrize("status", [400, 413, 422, 500])
@pytest.mark.parametrize("message", TOO_LONG)
def test_every_server_has_its_own_words_for_too_long(message: str, status: int) -> None:
    exc = refused(status, {"message": message})
    assert run_error(exc, has_text=False).code == ErrorCode.CONTEXT_TOO_LONG


@pytest.mark.parametrize("message", NOT_TOO_LONG)
def test_other_refusals_are_not_too_long(message: str) -> None:
    exc = refused(400, {"message": message})
    assert run_error(exc, has_text=False).code == ErrorCode.PROVIDER_REFUSED


def test_a_limit_over_time_is_not_too_long() -> None:
    words = "Rate limit reached: too many tokens per minute. Input tokens exceed 30000."
    exc = refused(429, {"message": words})
    assert run_error(exc, has_text=False).code == ErrorCode.PROVIDER_RATE_LIMITED


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


def test_retry_after_is_a_day_at_most() -> None:
    assert parse_retry_after({"retry-after": "1e300"}) == 86_400
    assert (
        parse_retry_after({"retry-after": formatdate(time.time() + 10**7, usegmt=True)}) == 86_400
    )


def test_retry_after_as_a_date() -> None:
    headers = {"retry-after": formatdate(time.time() + 60, usegmt=True)}
    assert parse_retry_after(headers) == pytest.approx(60, abs=2)
    assert parse_retry_after({"retry-after": formatdate(0, usegmt=True)}) == 0
