"""The agent of the benchmark of workers.

Its model occupies the process for `BENCH_COST_MS` before it answers, as the SDK's own work does;
but it sleeps, so that more workers than cores can be measured.
"""

import os
import time
from collections.abc import AsyncIterator
from typing import Any

from agents import Agent
from agents.items import TResponseStreamEvent

from realtime.registry import AgentEntry
from tests.support.site_agents import EchoModel

COST_S = float(os.environ["BENCH_COST_MS"]) / 1000


class CostlyModel(EchoModel):
    """Blocks the event loop for `COST_S`, then repeats the message."""

    async def stream_response(
        self, *args: Any, **kwargs: Any
    ) -> AsyncIterator[TResponseStreamEvent]:
        time.sleep(COST_S)  # noqa: ASYNC251  (meant)
        async for event in super().stream_response(*args, **kwargs):
            yield event


AGENTS = [AgentEntry(Agent(name="costly", model=CostlyModel()))]
