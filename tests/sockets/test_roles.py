"""What a process does by its role."""

from typing import Any
from uuid import uuid4

import pytest
from django.core.management import CommandError, call_command
from django.db import connection
from procrastinate import App
from procrastinate.testing import InMemoryConnector

from conversations import changes
from conversations.models import EndReason, Run, RunStatus
from conversations.sessions import posting
from realtime.conf import check_executor, check_job_tables, check_role, serving_role
from realtime.process import Process, get_process
from realtime.work import procrastinate_executor
from realtime.work.executor import DueUpkeep
from realtime.work.procrastinate_executor import HandedBackError, ProcrastinateExecutor
from tests.support.chats import ask, session_of
from tests.support.chats import make_user as make_chatter
from tests.support.inprocess import make_user, open_chat_here
from tests.support.processes import free_port
from tests.support.site import environment, run_python
from tests.support.threads import in_thread

WORK = """
import gc, os, signal, sys
import django
django.setup()
from realtime.process import Process
start = Process.start

def start_and_end(process):
    start(process)
    print("settled" if gc.get_freeze_count() > 100_000 else "not settled")
    os.kill(os.getpid(), signal.SIGTERM)

Process.start = start_and_end
from django.core.management import execute_from_command_line
execute_from_command_line(["manage.py", "work"])
print(sorted(n for n in ("daphne", "twisted", "realtime.sockets.consumer") if n in sys.modules))
"""


def test_a_worker_needs_no_server(tmp_path: Any) -> None:
    """It runs until a signal comes, and has imported neither Daphne nor a consumer.

    What it has imported is left out of garbage collections.
    """
    layer = f"redis://127.0.0.1:{free_port()}/0"
    database = f"sqlite:///{tmp_path}/db.sqlite3"
    env = environment(DEBUG="1", DATABASE_URL=database, REDIS_URL=layer)
    env["DJANGO_SETTINGS_MODULE"] = "agentsite.settings"
    assert run_python("-c", WORK, env=env).splitlines()[-2:] == ["settled", "[]"]


@pytest.mark.in_process("is about the layer in memory")
def test_a_worker_says_what_it_lacks() -> None:
    """Whatever its `ROLE`, nobody would be told of what it writes."""
    with pytest.raises(CommandError, match="REDIS_URL"):
        call_command("work")


async def test_a_web_process_leaves_its_replies_to_workers(
    transactional_db: None, settings: Any
) -> None:
    settings.ROLE, settings.AGENTS = "web", "tests.support.site_agents"
    user = await in_thread(make_user, "ada")
    process = get_process()
    async with open_chat_here(user) as client:
        accepted = await client.chat("hello")
        assert accepted["outcome"] == "queued"
        await client.cancel(accepted["session_id"], run_id=accepted["run_id"])
        assert (await client.wait_end(accepted["run_id"]))["metadata"]["reason"] == "user"
    assert not hasattr(process, "sweeper")
    await process.drain(0)
    await process.stop()
    assert (await Run.objects.aget()).status == RunStatus.CANCELLED


def test_a_worker_does_not_serve(settings: Any) -> None:
    settings.ROLE = "worker"
    with pytest.raises(CommandError, match=r"manage\.py work"):
        call_command("serve")


@pytest.mark.parametrize(
    "layer", ["realtime.channel_layer.LocalLayer", "channels.layers.InMemoryChannelLayer"]
)
def test_roles_need_a_layer_that_processes_share(settings: Any, layer: str) -> None:
    settings.CHANNEL_LAYERS = {"default": {"BACKEND": layer}}
    assert check_role(None) == []
    settings.ROLE = "web"
    assert [error.id for error in check_role(None)] == ["realtime.E006"]
    settings.ROLE, settings.RUN_EXECUTOR = "all", "procrastinate"
    assert [error.id for error in check_role(None)] == ["realtime.E006"]
    shared = "channels_redis.pubsub.RedisPubSubChannelLayer"
    settings.CHANNEL_LAYERS = {"default": {"BACKEND": shared}}
    assert check_role(None) == []


@pytest.mark.in_process("is about other databases")
def test_jobs_need_postgres_and_their_tables(
    settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert check_executor(None) == []
    settings.RUN_EXECUTOR = "procrastinate"
    assert [error.id for error in check_executor(None)] == ["realtime.E007"]
    monkeypatch.setattr(connection, "vendor", "postgresql", raising=False)
    assert [error.id for error in check_executor(None)] == ["realtime.E008"]
    assert check_job_tables(None) == [], "asked without a database"
    tables = ["conversations_run"]
    monkeypatch.setattr(connection.introspection, "table_names", lambda: tables)
    [missing] = check_job_tables(None, databases=["default"])
    assert missing.id == "realtime.W001"
    tables.append("procrastinate_jobs")
    assert check_job_tables(None, databases=["default"]) == []


def test_a_process_that_serves_works_on_nothing_where_workers_take_jobs(settings: Any) -> None:
    assert serving_role() == "all"
    settings.RUN_EXECUTOR = "procrastinate"
    assert serving_role() == "web"


async def test_a_job_that_comes_in_a_drain_is_handed_back(process: Process) -> None:
    """Procrastinate queues it again, for another worker."""
    executor = ProcrastinateExecutor(process.flusher, process.model)
    await executor.drain(0)
    with pytest.raises(HandedBackError):
        await executor._deliver(str(uuid4()))
    await executor.close()


def test_a_summary_does_not_wait_for_the_job_of_a_title(
    transactional_db: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each is queued once, and one session's are done one after the other."""
    jobs = InMemoryConnector()
    monkeypatch.setattr(procrastinate_executor, "django_app", App(connector=jobs))
    run = Run.objects.get(pk=ask(make_chatter("ada"), "hello").run_id)
    for wants_summary in (False, True, True, False):
        due = DueUpkeep(wants_title=True, wants_summary=wants_summary)
        procrastinate_executor._defer_tending(run, due)
    assert [job["args"]["wants_summary"] for job in jobs.jobs.values()] == [False, True]
    assert {job["lock"] for job in jobs.jobs.values()} == {f"session {run.session_id}"}


def test_what_is_ready_is_enqueued_in_its_transaction(
    transactional_db: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first run of a session, and the next one with the end of the one before it."""
    enqueued: list[str] = []

    def enqueue(run: Run) -> None:
        assert connection.in_atomic_block
        enqueued.append(run.prompt.text)

    monkeypatch.setattr(changes, "_enqueuers", [enqueue])
    user = make_chatter("ada")
    first = ask(user, "first")
    ask(user, "second", session_of(first))
    assert enqueued == ["first"]
    posting.stop_run(first.run_id, EndReason.USER)
    assert enqueued == ["first", "second"]
