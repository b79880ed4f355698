"""What people write goes to the model that is configured, to nobody else, and not to logs."""

import json
import re
from collections.abc import Iterator

import pytest

from tests.drills.conftest import SETTINGS
from tests.support.provider import Provider, Reply, ToolCall
from tests.support.site import Site, run_site

SECRET = "heron-canary-47"
ANSWER = "answer-canary-48"


@pytest.fixture(params=["chat", "responses"])
def guarded_site(request: pytest.FixtureRequest, provider: Provider) -> Iterator[Site]:
    """With a key, which is all that the SDK needs to export its traces."""
    settings = SETTINGS | {
        "DJANGO_SETTINGS_MODULE": "tests.support.guarded_settings",
        "OPENAI_BASE_URL": provider.base_url,
        "OPENAI_API_KEY": "sk-for-tests-only",
        "AGENT_API": request.param,
        "LOG_LEVEL": "DEBUG",
    }
    with run_site(**settings) as site:
        yield site


async def test_nothing_leaves_but_to_the_model(guarded_site: Site, provider: Provider) -> None:
    ann = guarded_site.users["ann"]
    call = ToolCall("look_up", json.dumps({"word": SECRET}))
    provider.queue(
        Reply(tool_calls=[call]),
        Reply([f"{ANSWER} ", "found."], reasoning=[f"{ANSWER}?"]),
        Reply(error_status=401, error_code=SECRET),
        Reply([ANSWER], cut_after=1),
    )
    async with guarded_site.chat(ann) as client:
        accepted = await client.chat(f"Tell me of {SECRET}")
        assert (await client.wait_end(accepted["run_id"]))["content"] == f"{ANSWER} found."
        for _ in range(2):
            failing = await client.chat(f"And of {SECRET}", accepted["session_id"])
            assert (await client.wait_end(failing["run_id"]))["type"] == "error"
    assert guarded_site.terminate() == 0
    reached = set(re.findall(r"^outbound (.*)$", guarded_site.log, re.MULTILINE))
    assert {place for place in reached if is_foreign(place, provider.port)} == set()
    assert any(f"'127.0.0.1', {provider.port}" in place for place in reached)
    for text in (SECRET, ANSWER):
        assert text not in guarded_site.log


def is_foreign(place: str, port: int) -> bool:
    """Other than the model's server, the socket that is listened on, and files."""
    event, _, address = place.partition(" ")
    if event == "socket.connect":
        return address != f"('127.0.0.1', {port})" and not address.startswith(("'", "b'"))
    return address not in ("'127.0.0.1'", "None")
