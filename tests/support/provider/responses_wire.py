"""Encodes replies as a Responses API stream of server-sent events."""

import time
from typing import Any

from tests.support.provider.encoding import encode
from tests.support.provider.script import Call, ToolCall

Fields = dict[str, Any]

# Finish reasons of Chat Completions as statuses of this API.
INCOMPLETE = {"length": "max_output_tokens", "content_filter": "content_filter"}


class ResponsesWire:
    """The bytes of one streamed reply, piece by piece."""

    def __init__(self, call: Call) -> None:
        self._call = call
        self._output: list[Fields] = []
        self._sequence = 0
        self._message_is_open = False
        self._text: list[str] = []
        self._text_head = b""

    def opening(self) -> bytes:
        response = self._response("in_progress")
        return self._event("response.created", response=response) + self._event(
            "response.in_progress", response=response
        )

    def reasoning(self, delta: str) -> bytes:
        """Encode reasoning: all of it is one summary, whose item the first piece opens."""
        opened = b""
        if not self._output:
            item: Fields = {"id": self._id("rs"), "type": "reasoning", "summary": []}
            opened = self._open_item(item) + self._event(
                "response.reasoning_summary_part.added",
                **self._place(summary_index=0),
                part={"type": "summary_text", "text": ""},
            )
            item["summary"] = [{"type": "summary_text", "text": ""}]
        self._output[-1]["summary"][0]["text"] += delta
        return opened + self._event(
            "response.reasoning_summary_text.delta", **self._place(summary_index=0), delta=delta
        )

    def text(self, delta: str) -> bytes:
        opened = b"" if self._message_is_open else self._close_reasoning() + self._open_message()
        self._text.append(delta)
        tail = b'%d,"delta":%b}\n\n' % (self._sequence, encode(delta))
        self._sequence += 1
        return opened + self._text_head + tail

    def closing(self) -> bytes:
        reply = self._call.reply
        chunks = [self._close_message() if self._message_is_open else self._close_reasoning()]
        chunks += [self._tool_call(*entry) for entry in enumerate(reply.tool_calls)]
        status = "incomplete" if reply.finish_reason in INCOMPLETE else "completed"
        chunks.append(self._event(f"response.{status}", response=self._response(status)))
        return b"".join(chunks)

    def error(self, message: str) -> bytes:
        failed = self._response("failed")
        failed["error"] = {"code": "server_error", "message": message}
        return self._event("response.failed", response=failed)

    def _open_message(self) -> bytes:
        self._message_is_open = True
        item = {
            "id": self._id("msg"),
            "type": "message",
            "status": "in_progress",
            "role": "assistant",
            "content": [],
        }
        opened = self._open_item(item) + self._event(
            "response.content_part.added", **self._place(content_index=0), part=_text_part("")
        )
        # Tokens are the hot path of benchmarks: everything around them is encoded once.
        fields = {
            "type": "response.output_text.delta",
            **self._place(content_index=0),
            "logprobs": [],
            "sequence_number": 0,
        }
        encoded = encode(fields).removesuffix(b"0}")
        self._text_head = b"event: response.output_text.delta\ndata: " + encoded
        return opened

    def _close_message(self) -> bytes:
        text, place = "".join(self._text), self._place(content_index=0)
        part = _text_part(text)
        done = self._event("response.output_text.done", **place, text=text, logprobs=[])
        done += self._event("response.content_part.done", **place, part=part)
        return done + self._close_item(content=[part], status="completed")

    def _close_reasoning(self) -> bytes:
        if not self._output:
            return b""
        place, part = self._place(summary_index=0), self._output[-1]["summary"][0]
        done = self._event(
            "response.reasoning_summary_text.done", **place, text=part["text"]
        ) + self._event("response.reasoning_summary_part.done", **place, part=part)
        return done + self._close_item()

    def _tool_call(self, index: int, call: ToolCall) -> bytes:
        item = {
            "id": self._id("fc"),
            "type": "function_call",
            "status": "in_progress",
            "call_id": f"call_{self._call.number}_{index}",
            "name": call.name,
            "arguments": "",
        }
        opened, half = self._open_item(item), len(call.arguments) // 2
        deltas = [
            self._event("response.function_call_arguments.delta", **self._place(), delta=delta)
            for delta in (call.arguments[:half], call.arguments[half:])
        ]
        whole = {"name": call.name, "arguments": call.arguments}
        done = self._event("response.function_call_arguments.done", **self._place(), **whole)
        closed = self._close_item(arguments=call.arguments, status="completed")
        return b"".join([opened, *deltas, done, closed])

    def _open_item(self, item: Fields) -> bytes:
        self._output.append(item)
        return self._event(
            "response.output_item.added", output_index=len(self._output) - 1, item=item
        )

    def _close_item(self, **final: Any) -> bytes:
        self._output[-1].update(final)
        return self._event(
            "response.output_item.done",
            output_index=len(self._output) - 1,
            item=self._output[-1],
        )

    def _id(self, prefix: str) -> str:
        return f"{prefix}_{self._call.number}_{len(self._output)}"

    def _place(self, **index: int) -> Fields:
        return {
            "item_id": self._output[-1]["id"],
            "output_index": len(self._output) - 1,
            **index,
        }

    def _event(self, kind: str, **fields: Any) -> bytes:
        data = encode({"type": kind, "sequence_number": self._sequence, **fields})
        self._sequence += 1
        return b"event: %b\ndata: %b\n\n" % (kind.encode(), data)

    def _response(self, status: str) -> Fields:
        reply, body = self._call.reply, self._call.body
        incomplete = {"reason": INCOMPLETE[reply.finish_reason]} if status == "incomplete" else None
        return {
            "id": f"resp_{self._call.number}",
            "object": "response",
            "created_at": int(time.time()),
            "status": status,
            "background": False,
            "error": None,
            "incomplete_details": incomplete,
            "instructions": body.get("instructions"),
            "max_output_tokens": body.get("max_output_tokens"),
            "model": body.get("model", ""),
            "output": [] if status == "in_progress" else self._output,
            "parallel_tool_calls": True,
            "previous_response_id": None,
            "reasoning": {"effort": None, "summary": None},
            "store": body.get("store", True),
            "temperature": 1.0,
            "text": {"format": {"type": "text"}},
            "tool_choice": "auto",
            "tools": body.get("tools") or [],
            "top_p": 1.0,
            "truncation": "disabled",
            "usage": None if status == "in_progress" else self._usage(),
            "user": None,
            "metadata": {},
        }

    def _usage(self) -> Fields:
        reply = self._call.reply
        return {
            "input_tokens": reply.input_tokens,
            "input_tokens_details": {
                "cached_tokens": reply.cached_tokens,
                "cache_write_tokens": 0,
            },
            "output_tokens": reply.output_tokens,
            "output_tokens_details": {"reasoning_tokens": len(reply.reasoning)},
            "total_tokens": reply.input_tokens + reply.output_tokens,
        }


def _text_part(text: str) -> Fields:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
