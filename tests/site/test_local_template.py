"""How a conversation is put to the embedded model, as its own server writes it out."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest

from agentsite.local_model.weights import Job, Weights
from tests.support.site import ROOT
from tests.support.weights_source import small_model

KEY = "a-key"
TOOL = {
    "type": "function",
    "function": {
        "name": "find_books",
        "description": "Search the catalogue.",
        "parameters": {"type": "object", "properties": {"subject": {"type": "string"}}},
    },
}
CALL = {
    "role": "assistant",
    "content": None,
    "tool_calls": [
        {
            "id": "call_1",
            "type": "function",
            "function": {"name": "find_books", "arguments": '{"subject": "herons"}'},
        }
    ],
}
RESULT = {"role": "tool", "tool_call_id": "call_1", "content": "One book."}
FENCED = '```json\n{"name": "find_books", "arguments": {"subject":'


class Server:
    """The child, with our template on a small model."""

    def __init__(self, url: str) -> None:
        self._url = url.removesuffix("/v1") + "/apply-template"

    def prompt(self, *messages: dict[str, Any], tools: bool = False) -> str:
        """What the model is given to read."""
        body = {"messages": messages, **({"tools": [TOOL]} if tools else {})}
        headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}
        with urlopen(Request(self._url, json.dumps(body).encode(), headers)) as answer:
            text: str = json.load(answer)["prompt"]
            return text


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    file = small_model()
    # A hash makes it one of those that our template is for.
    weights = Weights("tiny", "Tiny", file.stat().st_size, 1, path=str(file), sha256="0")
    child = subprocess.Popen(
        [sys.executable, "-m", "agentsite.local_model.child"],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert child.stdin is not None
    assert child.stdout is not None
    child.stdin.write(Job(weights, Path(), mirror=False, key=KEY).encode())
    child.stdin.flush()
    told: dict[str, Any] = {}
    while told.get("state") != "ready":
        told = json.loads(child.stdout.readline())
        assert told["state"] != "failed", told
    yield Server(told["url"])
    child.stdin.close()
    child.wait(10)
    child.stdout.close()


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


SYSTEM = {"role": "system", "content": "Be brief."}


def test_without_tools_it_is_plain(server: Server) -> None:
    assistant = {"role": "assistant", "content": "Hello."}
    assert server.prompt(SYSTEM, user("hi"), assistant, user("who are you?")) == (
        "<|im_start|>system\nBe brief.<|im_end|>\n"
        "<|im_start|>user\nhi<|im_end|>\n"
        "<|im_start|>assistant\nHello.<|im_end|>\n"
        "<|im_start|>user\nwho are you?<|im_end|>\n"
        "<|im_start|>assistant\n"
    )


def test_tools_are_listed_with_how_to_call_them(server: Server) -> None:
    prompt = server.prompt(SYSTEM, user("books on herons?"), tools=True)
    head = prompt.partition("<|im_end|>")[0]
    assert head.startswith("<|im_start|>system\nBe brief.")
    assert '"find_books"' in head
    assert '```json\n{"name": <function name>, "arguments": <object>}\n```' in head


def test_after_a_result_an_answer_is_asked_for(server: Server) -> None:
    prompt = server.prompt(SYSTEM, user("books on herons?"), CALL, RESULT, tools=True)
    assert "find_books" not in prompt
    assert prompt.endswith(
        "<|im_start|>user\nThe function returned: One book.\nAnswer me in plain text from that."
        "<|im_end|>\n<|im_start|>assistant\n"
    )


def test_in_the_next_turn_calls_are_shown_as_they_are_made(server: Server) -> None:
    answer = {"role": "assistant", "content": "There is one."}
    messages = (SYSTEM, user("books on herons?"), CALL, RESULT, answer, user("and on owls?"))
    prompt = server.prompt(*messages, tools=True)
    assert FENCED in prompt
    assert "The function returned: One book.<|im_end|>" in prompt
    assert "Answer me in plain text" not in prompt


def test_results_of_two_calls(server: Server) -> None:
    prompt = server.prompt(user("books?"), CALL, RESULT, CALL, RESULT, tools=True)
    assert prompt.count("One book.") == 2
    assert prompt.count("Answer me in plain text") == 1
