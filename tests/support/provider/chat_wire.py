"""Encodes replies as a Chat Completions stream of server-sent events."""

import time
from typing import Any

from tests.support.provider.encoding import encode
from tests.support.provider.script import Call, ToolCall


class ChatWire:
    """The bytes of one streamed reply, piece by piece."""

    def __init__(self, call: Call) -> None:
        self._call = call
        self._head: dict[str, Any] = {
            "id": f"chatcmpl-{call.number}",
            "object": "chat.completion.chunk",
            "created": int(time.time()),
            "model": call.body.get("model", ""),
            "system_fingerprint": "fp_stand_in",
        }
        # Tokens are the hot path of benchmarks: everything around them is encoded once.
        chunk = _event({**self._head, "choices": [_choice({"content": "TOKEN"})]})
        self._before, self._after = chunk.split(b'"TOKEN"')

    def opening(self) -> bytes:
        return self._chunk({"role": "assistant", "content": "", "refusal": None})

    def reasoning(self, delta: str) -> bytes:
        return self._chunk({"reasoning_content": delta})

    def text(self, delta: str) -> bytes:
        return self._before + encode(delta) + self._after

    def closing(self) -> bytes:
        reply = self._call.reply
        chunks = [self._tool_call(*entry) for entry in enumerate(reply.tool_calls)]
        chunks.append(_event({**self._head, "choices": [_choice({}, reply.finish_reason)]}))
        if (self._call.body.get("stream_options") or {}).get("include_usage"):
            chunks.append(_event({**self._head, "choices": [], "usage": self._usage()}))
        return b"".join([*chunks, b"data: [DONE]\n\n"])

    def error(self, message: str) -> bytes:
        return _event({"error": {"message": message, "type": "server_error", "code": None}})

    def _chunk(self, delta: dict[str, Any]) -> bytes:
        return _event({**self._head, "choices": [_choice(delta)]})

    def _tool_call(self, index: int, call: ToolCall) -> bytes:
        half = len(call.arguments) // 2
        named = {
            "index": index,
            "id": f"call_{self._call.number}_{index}",
            "type": "function",
            "function": {"name": call.name, "arguments": ""},
        }
        pieces = [
            {"index": index, "function": {"arguments": arguments}}
            for arguments in (call.arguments[:half], call.arguments[half:])
        ]
        return b"".join(self._chunk({"tool_calls": [piece]}) for piece in (named, *pieces))

    def _usage(self) -> dict[str, Any]:
        reply = self._call.reply
        return {
            "prompt_tokens": reply.input_tokens,
            "completion_tokens": reply.output_tokens,
            "total_tokens": reply.input_tokens + reply.output_tokens,
            "prompt_tokens_details": {"cached_tokens": reply.cached_tokens},
            "completion_tokens_details": {"reasoning_tokens": len(reply.reasoning)},
        }


def _choice(delta: dict[str, Any], finish_reason: str | None = None) -> dict[str, Any]:
    return {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}


def _event(data: dict[str, Any]) -> bytes:
    return b"data: %b\n\n" % encode(data)
