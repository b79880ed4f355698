"""The model's process when it cannot be had, or does not behave."""

import asyncio
import errno
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from agentsite.local_model import supervisor
from agentsite.local_model.supervisor import LocalModel, ModelProcess
from agentsite.local_model.weights import QWEN, Job
from tests.support.waiting import time_limit


async def test_its_complaints_do_not_hold_it_up(tmp_path: Path) -> None:
    process = ModelProcess("tests.support.loud_child")
    job = Job(QWEN, tmp_path, mirror=False, key="x")
    async with time_limit("the first message"), aclosing(process.messages(job)) as messages:
        assert (await anext(messages))["state"] == "ready"


@pytest.fixture
async def model(settings: Any, monkeypatch: pytest.MonkeyPatch) -> LocalModel:
    """One for which no process can be had."""

    async def fail(*args: Any, **options: Any) -> None:
        raise OSError(errno.EAGAIN, "no more processes")

    settings.LOCAL_MODEL_WEIGHTS = QWEN
    monkeypatch.setattr(supervisor, "PAUSES_S", (0.01,))
    monkeypatch.setattr(asyncio, "create_subprocess_exec", fail)
    return LocalModel()


async def test_without_a_process_it_has_failed_and_is_tried_again(model: LocalModel) -> None:
    states: asyncio.Queue[str] = asyncio.Queue()
    running = asyncio.create_task(model.run(lambda: states.put_nowait(model.status.state)))

    async def read(*expected: str) -> None:
        async with time_limit("the next states"):
            assert [await states.get() for _ in expected] == list(expected)

    await read("starting", "failed")
    model.wake()
    await read("starting", "starting", "failed")
    running.cancel()
    await asyncio.wait([running])
