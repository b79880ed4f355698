"""What a process does by its role."""

from typing import Any

import pytest
from django.core.management import CommandError, call_command

from conversations.models import Run, RunStatus
from realtime.checks import check_role
from realtime.process import get_process
from tests.support.inprocess import make_user, open_chat_here
from tests.support.processes import free_port
from tests.support.site import environment, run_python
from tests.support.threads import in_thread

WORK = """
import os, signal, sys
import django
django.setup()
from realtime.process import Process
start = Process.start

def start_and_end(process):
    start(process)
    os.kill(os.getpid(), signal.SIGTERM)

Process.start = start_and_end
from django.core.management import execute_from_command_line
execute_from_command_line(["manage.py", "work"])
print(sorted(n for n in ("daphne", "twisted", "realtime.consumer") if n in sys.modules))
"""


def test_a_worker_needs_no_server(tmp_path: Any) -> None:
    """It runs until a signal comes, and has imported neither Daphne nor a consumer."""
    layer = f"redis://127.0.0.1:{free_port()}/0"
    database = f"sqlite:///{tmp_path}/db.sqlite3"
    env = environment(DEBUG="1", DATABASE_URL=database, REDIS_URL=layer)
    env["DJANGO_SETTINGS_MODULE"] = "agentsite.settings"
    assert run_python("-c", WORK, env=env).splitlines()[-1] == "[]"


def test_a_worker_says_what_it_lacks(settings: Any) -> None:
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


def test_roles_need_a_layer_that_processes_share(settings: Any) -> None:
    assert check_role(None) == []
    settings.ROLE = "web"
    assert [error.id for error in check_role(None)] == ["realtime.E006"]
