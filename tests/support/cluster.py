"""`make cluster` in a folder of its own, as one object that drills hold on to."""

import asyncio
import contextlib
import json
import os
import re
import signal
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, LiteralString, cast
from urllib.request import urlopen

import psycopg
from prometheus_client.parser import text_string_to_metric_families

from tests.support.processes import Child, answers, free_port
from tests.support.site import ROOT, Site, environment, make_users
from tests.support.waiting import poll

START_S = 300
VALKEY_BACK = "valkey is back"
SITE_PROCESSES = ("web-1", "web-2", "worker-1", "worker-2")


class Cluster:
    """`scripts/cluster.py` in a folder of its own; `site` is what its proxy serves.

    It has `size` web processes and as many workers.
    """

    def __init__(self, folder: Path, model_url: str, size: int = 2, /, **changes: str) -> None:
        self.folder, self.size = folder, size
        self.env = environment(**changes, OPENAI_BASE_URL=model_url, PORT=str(free_port()))
        self.argv = [sys.executable, "scripts/cluster.py", "--dir", str(folder)]
        self.argv += ["--web", str(size), "--workers", str(size)]
        self.process = self._make_process(folder / "cluster.log")
        self.site = Site(folder, {}, self.env)

    def _make_process(self, log_path: Path) -> Child:
        return Child(self.argv, log_path, env=self.env, cwd=ROOT)

    @property
    def log(self) -> str:
        return self.process.log

    def start(self) -> None:
        self.process.start(lambda: answers(f"{self.site.origin}/healthz/"), within=START_S)
        special = dict(re.findall(r"export (\w+)='(.*)'", (self.folder / "env").read_text()))
        self.site.env = self.env | special
        self.site.users |= make_users(self.site.env, "ann", "ben")

    def pid(self, name: str) -> int:
        return int((self.folder / "pids" / name).read_text())

    def pids(self, *names: str) -> list[int]:
        return [self.pid(name) for name in names]

    async def until(self, text: str, count: int = 1) -> None:
        """Wait until the cluster has said this so many times."""
        await asyncio.to_thread(
            poll, lambda: self.log.count(text) >= count, f"{text!r} of:\n{self.log}", within=START_S
        )

    def find_worker(self, run_id: str) -> str:
        """Return the name of the worker that has claimed a run."""
        [(worker,)] = self.ask("SELECT worker FROM conversations_run WHERE id = %s", run_id)
        return next(name for name in SITE_PROCESSES if f"-{self.pid(name)}-" in worker)

    def ask(self, query: LiteralString, *params: object) -> list[tuple[Any, ...]]:
        """Return the rows of a query."""
        with psycopg.connect(self.site.env["AGENTSITE_DATABASE_URL"]) as connection:
            return connection.execute(query, params).fetchall()

    @contextlib.contextmanager
    def unattended(self) -> Iterator[None]:
        """Let what ends stay away: nothing is started again before the end of the block."""
        self.process.signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.process.signal(signal.SIGCONT)

    def web(self, number: int) -> Site:
        """Return a web process as a site of its own, reached without the proxy."""
        told = Path(f"/proc/{self.pid('proxy')}/environ").read_bytes()
        [places] = re.findall(rb"WEB_PROCESSES=([^\0]+)", told)
        port = places.split()[number - 1].rpartition(b":")[2]
        site = Site(self.folder, self.site.users, {**self.site.env, "PORT": port.decode()})
        process = SimpleNamespace(pid=self.pid(f"web-{number}"), is_running=True)
        site.process = cast(Child, process)
        return site

    def kill(self, name: str) -> None:
        """End a process as `kill -9` does."""
        os.kill(self.pid(name), signal.SIGKILL)

    def scrape(self) -> dict[str, dict[str, float]]:
        """Return the metrics of each process of the site that answers, added up over labels."""
        found: dict[str, dict[str, float]] = {}
        for target in json.loads((self.folder / "metrics.json").read_text()):
            with contextlib.suppress(OSError), urlopen(f"http://{target['targets'][0]}/") as answer:
                text = answer.read().decode()
                sums = found[target["labels"]["process"]] = defaultdict[str, float](float)
                for family in text_string_to_metric_families(text):
                    for sample in family.samples:
                        sums[sample.name] += sample.value
        return found


class WarmCluster(Cluster):
    """One whose processes get the large libraries from the one that they are forked from."""

    def _make_process(self, log_path: Path) -> Child:
        argv = ["-m", "tests.support.warm_cluster", *self.argv[2:]]
        return Child(argv, log_path, env=self.env, cwd=ROOT, warm=True)


class ClusterValkey:
    """The cluster's Valkey with the methods of `tests.support.servers.Valkey`."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    def kill(self) -> None:
        """Kill it and keep it away until `start`."""
        self._cluster.process.signal(signal.SIGSTOP)
        self._cluster.kill("valkey")

    def start(self) -> None:
        """Let the cluster start it again, and wait until it has."""
        count = self._cluster.log.count(VALKEY_BACK)
        self._cluster.process.signal(signal.SIGCONT)
        poll(lambda: self._cluster.log.count(VALKEY_BACK) > count, "Valkey", within=START_S)
