"""What an operator reads of a fault, and that nothing is read that is not described."""

import asyncio
import json
import re
import socket
from collections.abc import Iterator
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

import metrics_doc
import pytest
import yaml
from agents import Agent
from django.contrib.auth.models import User
from django.core.management.base import CommandError
from django.test import AsyncClient

from realtime import tasks
from realtime.process import Process
from realtime.tasks import Supervisor
from realtime.telemetry import metrics
from tests.support.agent_site import AgentSite
from tests.support.inprocess import open_chat_here
from tests.support.provider import Reply, words
from tests.support.site import ROOT
from tests.support.waiting import time_limit

OBSERVED = ROOT / "deploy/observability"
TOKEN = "a-token-of-16-characters"


class Metrics:
    """How much each sample has risen since the last `mark`."""

    def __init__(self) -> None:
        self.mark()

    def mark(self) -> None:
        self._before = self._read()

    @staticmethod
    def _read() -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
        found = (sample for metric in metrics.REGISTRY.collect() for sample in metric.samples)
        return {(each.name, frozenset(each.labels.items())): each.value for each in found}

    def risen(self, name: str, **labels: str) -> float:
        key = f"agentsite_{name}", frozenset(labels.items())
        return self._read().get(key, 0.0) - self._before.get(key, 0.0)


@pytest.fixture
def seen() -> Metrics:
    return Metrics()


async def chat(agent_site: AgentSite, user: User) -> str:
    agent_site.serve(Agent(name="desk"))
    async with open_chat_here(user) as client:
        accepted = await client.chat("Hello")
        end = await client.wait_end(accepted["run_id"])
    return str(end["metadata"].get("code", end["type"]))


class TestFaults:
    async def test_a_reply_without_one(
        self, process: Process, agent_site: AgentSite, ada: User, seen: Metrics
    ) -> None:
        assert await chat(agent_site, ada) == "complete"
        assert seen.risen("runs_ended_total", status="completed", agent="desk") == 1
        for name in ("queue_wait", "first_token"):
            assert seen.risen(f"{name}_seconds_count") == 1
        assert seen.risen("tokens_total", kind="output", agent="desk") > 0
        assert seen.risen("flush_events_sum") >= 1
        assert seen.risen("flush_seconds_count") == seen.risen("flush_events_count")
        assert seen.risen("readers", kind="socket") == 0

    async def test_the_models_server_fails(
        self,
        process: Process,
        agent_site: AgentSite,
        ada: User,
        settings: Any,
        seen: Metrics,
    ) -> None:
        settings.REALTIME = {**settings.REALTIME, "provider_retries": 2}
        agent_site.provider.queue(*(Reply(words(3), error_status=500) for _ in range(3)))
        code = await chat(agent_site, ada)
        assert code == "provider_unavailable"
        assert seen.risen("model_errors_total", code=code) == 3
        assert seen.risen("run_errors_total", code=code) == 1
        assert seen.risen("runs_ended_total", status="failed", agent="desk") == 1
        assert seen.risen("layer_failures_total") == 0
        assert seen.risen("batches_in_doubt_total") == 0

    async def test_the_layer_is_away(
        self,
        process: Process,
        agent_site: AgentSite,
        ada: User,
        settings: Any,
        seen: Metrics,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        async def refuse(group: str, message: Any) -> None:
            raise ConnectionError

        settings.REALTIME = {**settings.REALTIME, "head_interval_s": 0.05}
        monkeypatch.setattr(process.publisher._layer, "group_send", refuse)
        assert await chat(agent_site, ada) == "complete"
        assert seen.risen("layer_failures_total") > 0
        assert seen.risen("frames_dropped_total", reason="layer_failed") > 0
        assert seen.risen("gaps_repaired_total", found_by="poller") > 0
        assert seen.risen("runs_ended_total", status="failed", agent="desk") == 0

    async def test_a_service_dies(self, seen: Metrics, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(tasks, "RESTART_PAUSE_S", 0.0)
        services, restarted = Supervisor(), asyncio.Event()
        deaths = [ValueError()]

        async def serve() -> None:
            if deaths:
                raise deaths.pop()
            restarted.set()

        services.keep(serve, "flusher")
        async with time_limit("the service is restarted"):
            await restarted.wait()
        await services.stop()
        assert seen.risen("service_restarts_total", service="flusher") == 1


def test_labels_are_names_of_this_site(serve_agents: Any) -> None:
    serve_agents(Agent(name="desk"))
    assert [metrics._label(name) for name in ("desk", "gone", "")] == ["desk", "other", "other"]


class TestReading:
    async def test_needs_the_token(self, settings: Any) -> None:
        async def status(**headers: str) -> int:
            return (await AsyncClient().get("/metrics/", headers=headers)).status_code

        settings.METRICS_TOKEN = None
        assert await status(authorization="Bearer None") == 404
        settings.METRICS_TOKEN = TOKEN
        assert await status() == 401
        assert await status(authorization=f"Bearer {TOKEN}x") == 401
        answer = await AsyncClient().get("/metrics/", headers={"authorization": f"Bearer {TOKEN}"})
        assert answer.status_code == 200
        assert b"agentsite_runs_ended_total" in answer.content
        assert "no-store" in answer["Cache-Control"]

    def test_a_port_of_their_own(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            with pytest.raises(CommandError, match=str(port)), metrics.served_on(port):
                pass
        with metrics.served_on(port):
            # Whoever says nothing keeps nobody else from stopping the server.
            silent = socket.create_connection(("127.0.0.1", port))
            silent.close()
            assert b"agentsite_loop_lag_seconds" in urlopen(f"http://127.0.0.1:{port}/").read()
        with pytest.raises(URLError):
            urlopen(f"http://127.0.0.1:{port}/")


def names_in(text: str) -> set[str]:
    named = re.findall(r"\bagentsite_\w+", text)
    return {re.sub(r"_(total|bucket|sum|count)$", "", name) for name in named}


def expressions() -> Iterator[str]:
    dashboard = json.loads((OBSERVED / "dashboard.json").read_text())
    for panel in dashboard["panels"]:
        yield from (target["expr"] for target in panel["targets"])
    for rule in alerts():
        yield rule["expr"]


def alerts() -> list[dict[str, Any]]:
    [group] = yaml.safe_load((OBSERVED / "alerts.yaml").read_text())["groups"]
    rules: list[dict[str, Any]] = group["rules"]
    return rules


def test_every_metric_is_watched_and_described() -> None:
    names = {metric.name for metric in metrics_doc.list_metrics()}
    assert names_in("\n".join(expressions())) == names
    assert names_in((ROOT / "docs/operations.md").read_text()) == names


def test_every_alert_has_its_line() -> None:
    told = re.findall(
        r"^\| `(Agentsite\w+)` \|", (ROOT / "docs/operations.md").read_text(), re.MULTILINE
    )
    assert told == [rule["alert"] for rule in alerts()]


def test_labels_of_expressions_are_there() -> None:
    wrong = [
        (expression, label)
        for expression in expressions()
        for label in re.findall(r"by \(([^)]*)\)", expression)
        for label in re.split(r",\s*", label)
        if label not in {"le", "instance", *known_labels(expression)}
    ]
    assert wrong == []


def known_labels(expression: str) -> set[str]:
    metrics_named = [m for m in metrics_doc.list_metrics() if m.name in names_in(expression)]
    return {name.strip("`") for each in metrics_named for name in metrics_doc.labels_of(each)}
