"""A real model, a very small one, behind its own OpenAI-compatible server."""

import json
from collections.abc import Iterator
from typing import Any
from urllib.request import urlopen

import pytest

from tests.drills.conftest import SETTINGS
from tests.support.client import ChatClient
from tests.support.kept import converge
from tests.support.site import Site, run_site
from tests.support.smollm import MODEL, TOKENS_MAX, is_answer, run_smollm
from tests.support.transcript import Transcript
from tests.support.waiting import poll

PATIENCE_S = 60


@pytest.fixture(scope="module")
def model_url() -> Iterator[str]:
    with run_smollm() as base_url:
        yield base_url


@pytest.fixture(scope="module")
def model_site(model_url: str) -> Iterator[Site]:
    settings = SETTINGS | {"OPENAI_BASE_URL": model_url, "AGENT_MODEL": MODEL}
    with run_site(**settings) as site:
        yield site


async def some_text(client: ChatClient, run_id: str) -> str:
    """Wait until something is shown of a run; all that is."""
    runs = client.transcript.runs
    await client.wait_until(lambda: run_id in runs and runs[run_id].text, within=PATIENCE_S)
    return runs[run_id].text


async def test_chats_and_remembers(model_site: Site) -> None:
    site, ann = model_site, model_site.users["ann"]
    async with site.chat(ann) as client:
        accepted = await client.chat("Say hello in one short sentence.")
        session_id = accepted["session_id"]
        await client.resume(session_id)
        first = await client.wait_end(accepted["run_id"], within=PATIENCE_S)
        again = await client.chat("And in French?", session_id)
        second = await client.wait_end(again["run_id"], within=PATIENCE_S)
        await converge(site, ann, session_id, client)
    for end in (first, second):
        assert is_answer(end)
        assert end["content"].strip()
        assert end["metadata"]["usage_source"] == "measured"
    # The second call was given what had been said.
    asked = [end["metadata"]["usage"]["input_tokens"] for end in (first, second)]
    assert asked[1] > asked[0]


async def test_stops(model_site: Site, model_url: str) -> None:
    site, ann = model_site, model_site.users["ann"]
    async with site.chat(ann) as client:
        accepted = await client.chat("Write a very long story about a lighthouse.")
        session_id, run_id = accepted["session_id"], accepted["run_id"]
        await client.resume(session_id)
        shown = await some_text(client, run_id)
        assert is_busy(model_url)
        await client.cancel(session_id, run_id=run_id)
        end = await client.wait_end(run_id)
        assert end["metadata"]["finish_reason"] == "cancelled"
        assert end["content"].startswith(shown)
        assert written_until_idle(model_url) < TOKENS_MAX * 3 / 4
        again = await client.chat("Say hello.", session_id)
        assert is_answer(await client.wait_end(again["run_id"], within=PATIENCE_S))
        kept = await converge(site, ann, session_id, client)
    assert kept.reply(run_id)["text"] == end["content"]


async def test_is_resumed(model_site: Site) -> None:
    site, ann = model_site, model_site.users["ann"]
    transcript = Transcript()
    async with site.chat(ann, transcript) as client:
        accepted = await client.chat("Write a story about a lighthouse.")
        session_id, run_id = accepted["session_id"], accepted["run_id"]
        await client.resume(session_id)
        shown = await some_text(client, run_id)
        client.drop()
        await client.wait_closed()
    async with site.chat(ann, transcript) as client:
        await client.resume(session_id)
        await client.wait_until(lambda: len(transcript.text(run_id)) > len(shown))
        await client.cancel(session_id, run_id=run_id)
        await client.wait_end(run_id)
        kept = await converge(site, ann, session_id, client)
    assert kept.reply(run_id)["text"].startswith(shown)


def is_busy(model_url: str) -> bool:
    """Whether the model is writing something just now."""
    return bool(working_slots(model_url))


def working_slots(model_url: str) -> list[dict[str, Any]]:
    with urlopen(model_url.removesuffix("/v1") + "/slots") as response:
        return [slot for slot in json.load(response) if slot["is_processing"]]


def written_until_idle(model_url: str) -> int:
    """How many tokens of a reply the model has made when it is last seen at work."""
    written = [0]

    def is_idle() -> bool:
        slots = working_slots(model_url)
        written.extend(slot["next_token"][0]["n_decoded"] for slot in slots)
        return not slots

    poll(is_idle, "the end of the generation")
    return max(written)
