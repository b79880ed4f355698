"""What Dockerfile, compose.yaml and deploy/ name is there, and fits what the code does.

No container engine runs here: `make check` lints the same files.
"""

import asyncio
import json
import os
import re
import signal
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import cluster
import psycopg
import pytest
import servers
import yaml
from django.urls import resolve

from agentsite.settings import Environment
from realtime import process
from tests.support.processes import run_warm
from tests.support.servers import Postgres
from tests.support.site import ROOT, environment

COMPOSE = yaml.safe_load((ROOT / "compose.yaml").read_text())
SITE_SERVICES = ("web-1", "web-2", "worker", "migrate")
KUBERNETES = {
    (each["kind"], each["metadata"]["name"]): each
    for path in sorted((ROOT / "deploy" / "kubernetes").glob("*.yaml"))
    for each in yaml.safe_load_all(path.read_text())
}
PODS = {
    name: found["spec"]["template"]["spec"]
    for (kind, name), found in KUBERNETES.items()
    if kind in ("Deployment", "Job")
}
EXIT_S = process.GIVE_UP_S + process.STOP_S + process.EXIT_S
KILLED_S = 25
"""What docs/operations.md allows a process beside `DRAIN_S`."""
PRE_STOP_S = 5


def container(pod: str) -> dict[str, Any]:
    [only] = PODS[pod]["containers"]
    return dict(only)


def dockerfile() -> str:
    return (ROOT / "Dockerfile").read_text()


def test_settings_exist() -> None:
    known = {name.upper() for name in Environment.model_fields}
    for name in SITE_SERVICES:
        assert set(COMPOSE["services"][name]["environment"]) <= known
    assert set(KUBERNETES["ConfigMap", "agentsite"]["data"]) <= known
    for pod in PODS:
        assert {entry["name"] for entry in container(pod).get("env", [])} <= known


def test_settings_are_accepted() -> None:
    config = KUBERNETES["ConfigMap", "agentsite"]["data"]
    secrets: dict[str, Any] = {
        "secret_key": "k" * 50,
        "database_url": "postgres://agentsite:secret@postgres/agentsite",
        "redis_url": "redis://valkey:6379/0",
        "openai_api_key": "sk-...",
    }
    Environment(**secrets | {name.lower(): value for name, value in config.items()})


def test_roles_and_commands() -> None:
    image = re.search(r"^CMD (.*)$", dockerfile(), re.MULTILINE)
    assert image is not None
    assert image[1] == '["python", "manage.py", "serve"]'
    for name in ("web-1", "web-2"):
        assert COMPOSE["services"][name]["environment"]["ROLE"] == "web"
    assert COMPOSE["services"]["worker"]["environment"]["ROLE"] == "worker"
    assert COMPOSE["services"]["worker"]["command"] == "python manage.py work"
    assert container("agentsite-web")["command"] == ["python", "manage.py", "serve"]
    assert container("agentsite-worker")["command"] == ["python", "manage.py", "work"]


def test_ports() -> None:
    port = Environment.model_fields["port"].default
    assert f"EXPOSE {port}\n" in dockerfile()
    assert container("agentsite-web")["ports"] == [{"name": "http", "containerPort": port}]
    addresses = COMPOSE["services"]["proxy"]["environment"]["WEB_PROCESSES"].split()
    assert addresses == [f"web-1:{port}", f"web-2:{port}"]


def test_a_process_may_drain_before_it_is_killed() -> None:
    assert EXIT_S < KILLED_S
    for names, drain_s in (
        (("web-1", "web-2"), process.DRAIN_S),
        (("worker",), process.WORKER_DRAIN_S),
    ):
        for name in names:
            assert COMPOSE["services"][name]["stop_grace_period"] == f"{drain_s + KILLED_S}s"
    web, worker = PODS["agentsite-web"], PODS["agentsite-worker"]
    assert web["terminationGracePeriodSeconds"] == process.DRAIN_S + KILLED_S + PRE_STOP_S
    assert worker["terminationGracePeriodSeconds"] == process.WORKER_DRAIN_S + KILLED_S


def test_probes() -> None:
    web = container("agentsite-web")
    assert resolve(web["livenessProbe"]["httpGet"]["path"]).url_name == "healthz"
    assert resolve(web["readinessProbe"]["httpGet"]["path"]).url_name == "readyz"
    assert "deploy/is_ready.py" in dockerfile()
    assert resolve("/readyz/").url_name == "readyz"


@pytest.mark.parametrize("pod", PODS)
def test_pods_are_confined(pod: str) -> None:
    assert PODS[pod]["securityContext"]["runAsNonRoot"]
    assert PODS[pod]["automountServiceAccountToken"] is False
    assert container(pod)["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


@pytest.mark.parametrize("name", SITE_SERVICES)
def test_services_are_confined(name: str) -> None:
    service = COMPOSE["services"][name]
    assert service["read_only"]
    assert service["cap_drop"] == ["ALL"]
    assert re.search(r"^USER (?!0|root)", dockerfile(), re.MULTILINE)


def test_the_proxy_is_told_all_that_its_file_asks_for() -> None:
    asked = set(re.findall(r"\{\$(\w+)", (ROOT / "deploy" / "Caddyfile").read_text()))
    assert set(COMPOSE["services"]["proxy"]["environment"]) == asked
    assert asked <= set(re.findall(r'"(\w+)": ', (ROOT / "scripts" / "cluster.py").read_text()))


def test_the_image_holds_what_is_imported() -> None:
    for source in re.findall(r"^COPY (?!--)(.*) \S+$", dockerfile(), re.MULTILINE):
        for name in source.split():
            assert (ROOT / name).exists() or name == ".", name
            allowed = (ROOT / ".dockerignore").read_text().splitlines()
            assert f"!{name}" in allowed, name


def test_figures_for_the_number_of_workers(postgres: Postgres) -> None:
    """What is measured can be asked of the tables, where a job of each kind waits."""
    scaled = KUBERNETES["ScaledObject", "agentsite-worker"]["spec"]
    assert scaled["scaleTargetRef"]["name"] in PODS
    wait, runs = (trigger["metadata"] for trigger in scaled["triggers"])
    per_worker = int(KUBERNETES["ConfigMap", "agentsite"]["data"]["RUNS_PER_WORKER"])
    assert int(runs["targetQueryValue"]) == per_worker * 7 // 10
    with postgres.database() as url:
        env = environment(
            DATABASE_URL=url,
            REDIS_URL="redis://127.0.0.1:1/0",
            RUN_EXECUTOR="procrastinate",
            DJANGO_SETTINGS_MODULE="agentsite.settings",
        )
        run_warm("manage.py", "migrate", "procrastinate", env=env, cwd=ROOT)
        with psycopg.connect(url, autocommit=True) as connection:
            assert connection.execute(wait["query"]).fetchone() == (0,)
            for queue in ("runs", "background"):
                connection.execute(
                    "INSERT INTO procrastinate_jobs (queue_name, task_name) VALUES (%s, 'x')",
                    [queue],
                )
            assert connection.execute(runs["query"]).fetchone() == (1,)
            connection.execute("UPDATE procrastinate_events SET at = at - interval '9 s'")
            (waited_s,) = connection.execute(wait["query"]).fetchone() or (0,)
    assert waited_s > 9


@pytest.mark.parametrize("options", ["", "auto_https disable_redirects"])
def test_the_proxy_may_leave_port_80_alone(options: str) -> None:
    """Ordinary users may not open it; clusters on one machine do not need it."""
    settings = {
        "SITE_ADDRESS": "https://127.0.0.1:8443",
        "SITE_HOST": "127.0.0.1",
        "SITE_TLS": "tls internal",
        "WEB_PROCESSES": "127.0.0.1:8001",
        "SITE_OPTIONS": options,
    }
    program, _, *arguments = servers.caddy(ROOT / "deploy" / "Caddyfile").argv
    made = subprocess.check_output([program, "adapt", *arguments], env=settings)
    [server] = json.loads(made)["apps"]["http"]["servers"].values()
    assert server.get("automatic_https", {}) == ({"disable_redirects": True} if options else {})


async def test_a_restart_may_be_asked_for_while_the_cluster_starts(tmp_path: Path) -> None:
    did: list[str] = []

    async def start() -> None:
        os.kill(os.getpid(), signal.SIGUSR1)
        await asyncio.sleep(0)
        did.append("started")

    async def restart_site() -> None:
        did.append("restarted")
        os.kill(os.getpid(), signal.SIGTERM)

    async def stop() -> None:
        did.append("stopped")

    fake = SimpleNamespace(
        start=start,
        restart_site=restart_site,
        stop=stop,
        rotate_logs=asyncio.Event().wait,
        folder=tmp_path,
        origin="http://127.0.0.1:8000",
        is_https=False,
    )
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)
    before = {number: signal.getsignal(number) for number in numbers}
    try:
        await cluster.run(cast(cluster.Cluster, fake))
    finally:
        for number, handler in before.items():
            asyncio.get_running_loop().remove_signal_handler(number)
            signal.signal(number, handler)
    assert did == ["started", "restarted", "stopped"]
