"""The log as JSON: what an entry is about, and nothing that people wrote."""

import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
from agents import Agent
from django.contrib.auth.models import User

from agentsite.apps import JsonFormatter, RouteFilter
from agentsite.asgi import RequestIds
from realtime.process import Process
from tests.support.agent_site import AgentSite
from tests.support.inprocess import open_chat_here
from tests.support.provider import Reply, words

MARK = "heron-canary-47"
logger = logging.getLogger(__name__)


class Log(io.StringIO):
    @property
    def entries(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.getvalue().splitlines()]


@pytest.fixture
def log() -> Iterator[Log]:
    """What the site would write at its lowest level."""
    root, log = logging.getLogger(), Log()
    handler = logging.StreamHandler(log)
    handler.setFormatter(JsonFormatter())
    handler.addFilter(RouteFilter())
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    yield log
    root.removeHandler(handler)
    root.setLevel(level)


async def test_a_failure_names_its_run_and_quotes_nobody(
    process: Process, agent_site: AgentSite, ada: User, log: Log
) -> None:
    agent_site.serve(Agent(name="desk", instructions=MARK))
    agent_site.provider.queue(Reply(words(3), error_status=400, error_code=MARK))
    async with open_chat_here(ada) as client:
        accepted = await client.chat(f"What of the {MARK}?")
        await client.wait_end(accepted["run_id"])
    [failed] = [entry for entry in log.entries if entry["logger"] == "realtime.work.run"]
    assert failed["level"] == "ERROR"
    assert failed["run_id"] == accepted["run_id"]
    assert failed["session_id"] == accepted["session_id"]
    assert MARK not in log.getvalue()


def test_an_exception_is_one_line_without_what_it_may_quote(log: Log) -> None:
    for exc in (OSError("the disk is full"), UnicodeError("a\x1b[2Jb\nsecond")):
        try:
            raise exc
        except Exception:
            logger.exception("a share link /shared/%s/", MARK)
    assert MARK not in log.getvalue()
    first, second = log.entries
    assert first["message"] == "a share link /shared/…/"
    assert first["exception"].startswith("OSError: the disk is full\n")
    assert "\x1b" not in second["exception"]


def test_attributes_of_a_record_are_left_out(log: Log) -> None:
    logger.warning("once", extra={"request": MARK, "prompt": MARK})
    assert log.entries[0].keys() == {"time", "level", "logger", "message"}


@pytest.mark.parametrize(
    ("proxies", "given", "is_kept"),
    [(1, b"abc-1", True), (0, b"abc-1", False), (1, b"a b", False), (1, b"", False)],
)
async def test_a_request_has_an_id(
    settings: Any, log: Log, proxies: int, given: bytes, is_kept: bool
) -> None:
    async def answer(scope: Any, receive: Any, send: Any) -> None:
        logger.warning("here")

    settings.PROXIES = proxies
    headers = [(b"x-request-id", given)] if given else []
    await RequestIds(answer)({"type": "http", "headers": headers}, None, None)
    [entry] = [entry for entry in log.entries if entry["logger"] == __name__]
    assert (entry["request_id"] == given.decode()) is is_kept
    assert len(entry["request_id"]) in (5, 32)
