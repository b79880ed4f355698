"""The code of docs/client.md, run as it stands."""

import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from agentsite.client import Client, events, http
from tests.client.kept import texts_of
from tests.support import provider as stand_in
from tests.support.approvals import erase, times_run
from tests.support.provider import Provider
from tests.support.site import ROOT, Site, User

PAGE = (ROOT / "docs" / "client.md").read_text()


@pytest.fixture
def page() -> dict[str, Any]:
    """All its Python, as one module."""
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    module = ModuleType("client_of_the_page")
    exec(compile("\n".join(blocks), "docs/client.md", "exec"), module.__dict__)
    return module.__dict__


async def test_talk(page: dict[str, Any], site: Site, ann: User, client: Client) -> None:
    session_id = await page["talk"](site.origin, ann.username, ann.password)
    assert await texts_of(client, session_id) == [
        *("Tell me of herons.", "You said: Tell me of herons."),
        *("And of cranes?", "You said: And of cranes?"),
    ]


async def test_approvals(
    page: dict[str, Any], client: Client, provider: Provider, tmp_path: Path
) -> None:
    provider.queue(stand_in.Reply(tool_calls=[erase(tmp_path / "file")]))
    assert await page["erase"](client, "erase it") == ["erase is done"]
    assert times_run(tmp_path / "file") == 1


async def test_lists_and_transcripts(
    page: dict[str, Any], client: Client, site: Site, ann: User, tmp_path: Path
) -> None:
    async with client.chat() as chat:
        await (await chat.send("of herons")).wait()
    asked = {"name": "backup", "scopes": ["read", "export"]}
    key = site.request("POST", "/api/keys/", user=ann, data=asked).json()["key"]
    assert "of herons" in await page["back_up"](site.origin, key, tmp_path)
    assert "of herons" in (tmp_path / "herons.html").read_text()
    assert chat.session_id in (tmp_path / "everything.jsonl").read_text()


async def test_what_goes_wrong(page: dict[str, Any], client: Client) -> None:
    assert await page["ask"](client, "hello") == "unknown_agent: That agent does not exist."


def test_every_exception_and_event_is_explained() -> None:
    told = set(re.findall(r"^\| `(\w+Error)` \|", PAGE, re.MULTILINE)) | {"ClientError"}
    kept = [value for value in vars(http).values() if isinstance(value, type)]
    known = {kind.__name__ for kind in kept if issubclass(kind, http.ClientError)}
    assert told == known
    kinds = [value for value in vars(events).values() if isinstance(value, type)]
    assert all(kind.__doc__ for kind in kinds)
