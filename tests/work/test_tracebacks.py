"""What the log says of exceptions: enough to find the fault, nothing that people wrote."""

from typing import Any

import httpx2
import pytest
from agents import ModelBehaviorError, UserError, function_tool
from agents.tool_context import ToolContext
from django.db import DataError, IntegrityError, OperationalError
from pydantic import BaseModel, ValidationError

from realtime.tasks import describe

SECRET = "heron-canary-47"


def caught(raising: Any) -> BaseException:
    try:
        raising()
    except BaseException as exc:
        return exc
    raise AssertionError("nothing was raised")


def throw(exc: BaseException, cause: BaseException | None = None) -> BaseException:
    def raising() -> None:
        raise exc from cause

    return caught(raising)


def test_a_message_is_told_with_its_place_and_its_cause() -> None:
    told = describe(throw(RuntimeError("no frame"), throw(OSError("the disk is full"))))
    assert told.startswith("RuntimeError: no frame\n  File")
    assert "caused by OSError: the disk is full\n  File" in told
    assert __file__ in told


def test_only_the_first_line_and_not_without_end() -> None:
    told = describe(RuntimeError("x" * 1_000 + "\nsecond line"))
    assert len(told) < 400
    assert "second" not in told
    assert describe(RuntimeError()) == "RuntimeError\n"


def test_a_caller_may_know_that_it_is_private() -> None:
    told = describe(throw(ValueError(SECRET), throw(OSError(SECRET))), is_private=True)
    assert SECRET not in told
    assert "caused by OSError\n" in told


class Model(BaseModel):
    number: int


def invalid() -> None:
    Model.model_validate({"number": SECRET})


def through_a_client() -> None:
    """A fault of somebody's own code that comes through a library which carries prompts."""

    def fail(request: httpx2.Request) -> httpx2.Response:
        raise ValueError(SECRET)

    httpx2.Client(transport=httpx2.MockTransport(fail)).get("http://127.0.0.1/")


@pytest.mark.parametrize(
    "exc",
    [
        throw(ModelBehaviorError(SECRET)),
        throw(UserError(SECRET), throw(ValueError(SECRET))),
        throw(RuntimeError(SECRET), throw(UserError("a tool failed"))),
        caught(invalid),
        throw(RuntimeError(SECRET), caught(invalid)),
        caught(through_a_client),
        throw(DataError(f'invalid input syntax for type integer: "{SECRET}"')),
        throw(IntegrityError(f"duplicate key\nDETAIL: Key (title)=({SECRET})")),
        throw(OperationalError(f"canceling statement due to lock timeout\nCONTEXT: {SECRET}")),
    ],
    ids=lambda exc: type(exc).__name__,
)
def test_what_may_quote_people_is_not_told(exc: BaseException) -> None:
    told = describe(exc)
    assert SECRET not in told
    assert type(exc).__name__ in told


async def test_a_tool_that_quotes_its_arguments() -> None:
    @function_tool(failure_error_function=None)
    def look_up(word: str) -> str:
        raise KeyError(word)

    context = ToolContext(None, tool_name="look_up", tool_call_id="1", tool_arguments="")
    try:
        await look_up.on_invoke_tool(context, f'{{"word": "{SECRET}"}}')
    except Exception as exc:
        told = describe(exc)
    assert SECRET not in told


def test_a_validation_error_says_what_it_says_elsewhere() -> None:
    """Or the test above would prove nothing."""
    with pytest.raises(ValidationError, match=SECRET):
        invalid()


def test_what_is_about_the_connection_is_told() -> None:
    told = describe(throw(OperationalError("database is locked")))
    assert told.startswith("OperationalError: database is locked\n")
