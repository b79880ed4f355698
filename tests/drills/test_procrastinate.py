"""A web process that holds no runs, and workers that take them as jobs from Postgres."""

import asyncio
import contextlib
import signal
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, LiteralString

import psycopg
import pytest

from tests.drills.conftest import TAKEOVER_S, WRITTEN_ANEW, begin_behind_a_tool, drill_site
from tests.support.approvals import times_run
from tests.support.client import ChatClient, event
from tests.support.kept import converge
from tests.support.processes import Child, run_warm
from tests.support.provider import Gate, Provider, Reply, words
from tests.support.servers import Postgres, Valkey, run_postgres, run_valkey, scratch_dir
from tests.support.site import ROOT, Site, User, environment, prepared_database
from tests.support.transcript import Transcript
from tests.support.waiting import poll

OUTAGE_S = 5
SHOWN = 3

NEVER_LOOKS = """
import django
django.setup()
from realtime.work import procrastinate_executor
procrastinate_executor.POLL_S = 3_600
from django.core.management import execute_from_command_line
execute_from_command_line(["manage.py", "work"])
"""


@dataclass
class Engine:
    """A web process, its Postgres and Valkey, and the workers that a test starts."""

    web: Site
    postgres: Postgres
    valkey: Valkey
    url: str
    work_dir: Path
    workers: list[Child] = field(default_factory=list)

    @property
    def ann(self) -> User:
        return self.web.users["ann"]

    def start_worker(self, *argv: str, **changes: str) -> Child:
        """A worker; `argv` is what Python is given in place of `manage.py work`."""
        log_path = self.work_dir / f"worker-{len(self.workers)}.log"
        env = {**self.web.env, "DRAIN_S": "1", **changes, "ROLE": "worker"}
        argv = argv or ("manage.py", "work")
        worker = Child(argv, log_path, env=env, cwd=ROOT, warm=True)
        self.workers.append(worker)
        newest = self.ask("SELECT max(id) FROM procrastinate_workers") or 0
        taking = "SELECT count(*) FROM procrastinate_workers WHERE id > %s"
        worker.start(lambda: self.ask(taking, newest))
        return worker

    def count_jobs(self) -> int:
        return int(self.ask("SELECT count(*) FROM procrastinate_jobs"))

    def ask(self, query: LiteralString, *params: object) -> Any:
        """The first column of the first row; None for none."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            row = connection.execute(query, params).fetchone()
        return row[0] if row else None

    def execute(self, statement: LiteralString, *params: object) -> None:
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(statement, params)

    async def until(self, met: Any, what: str) -> None:
        await asyncio.to_thread(poll, met, what)

    async def chat_to(self, client: ChatClient, words_: str, session_id: str = "") -> str:
        """Send a chat that waits for a worker; the run's id."""
        accepted = await client.chat(words_, session_id)
        assert accepted["outcome"] == "queued"
        return str(accepted["run_id"])


@pytest.fixture(scope="module")
def shared_engine(shared_provider: Provider) -> Iterator[Engine]:
    with contextlib.ExitStack() as stack:
        postgres = stack.enter_context(run_postgres())
        valkey = stack.enter_context(run_valkey())
        url = stack.enter_context(prepared_database(postgres))
        changes = {
            "DATABASE_URL": url,
            "REDIS_URL": valkey.url,
            "RUN_EXECUTOR": "procrastinate",
            "RESTORE_DAYS": "0",
            # Long enough for sockets to move.
            "DRAIN_S": "60",
        }
        run_warm("manage.py", "migrate", env=environment(**changes), cwd=ROOT)
        web = stack.enter_context(drill_site(shared_provider, postgres, **changes))
        work_dir = stack.enter_context(scratch_dir("workers"))
        yield Engine(web, postgres, valkey, url, work_dir)


@pytest.fixture
def engine(shared_engine: Engine, provider: Provider) -> Iterator[Engine]:
    """The same for all tests here, with no worker at the beginning of each."""
    yield shared_engine
    for worker in shared_engine.workers:
        worker.kill()
    shared_engine.execute("DELETE FROM procrastinate_jobs")
    if not shared_engine.valkey.process.is_running:
        shared_engine.valkey.start()


@pytest.fixture
def worker(engine: Engine) -> Child:
    return engine.start_worker()


async def test_a_worker_is_woken_by_the_job_itself(engine: Engine) -> None:
    """One that hardly ever looks for jobs answers, and leaves none behind."""
    engine.start_worker("-c", NEVER_LOOKS)
    listening = "SELECT count(*) FROM pg_stat_activity WHERE query ~ '^LISTEN'"
    await engine.until(lambda: engine.ask(listening), "it to listen")
    async with engine.web.chat(engine.ann) as client:
        for text in ("Are you there?", "And now?"):
            run_id = await engine.chat_to(client, text)
            assert (await client.wait_end(run_id))["content"] == f"You said: {text}"
    await engine.until(lambda: engine.count_jobs() == 0, "the jobs to be deleted")


async def test_killed_in_mid_run(
    engine: Engine, worker: Child, provider: Provider, tmp_path: Path
) -> None:
    """What was shown is kept, what was silent is answered by the next worker, each once.

    What had called a tool goes on behind that.
    """
    cut, silent = Reply(words(30), gate=Gate(SHOWN)), Reply(words(5), hold=Gate())
    file = tmp_path / "file"
    async with engine.web.chat(engine.ann) as client:
        provider.queue(cut)
        first = await client.chat("Tell me of the mill")
        await client.resume(first["session_id"])
        await client.wait_text(first["run_id"], cut.start(SHOWN))
        waiting = await client.chat("And then?", first["session_id"])
        provider.queue(silent)
        other = await client.chat("Are you there?")
        await client.resume(other["session_id"])
        await provider.until(lambda provider: len(provider.calls) == 2)
        behind = await begin_behind_a_tool(client, provider, file)
        worker.kill()
        engine.start_worker()
        end = await client.wait_end(first["run_id"], within=TAKEOVER_S)
        assert end["content"] == cut.start(SHOWN)
        assert end["metadata"]["reason"] == "worker_lost"
        answer = await client.wait_end(other["run_id"], within=TAKEOVER_S)
        assert answer["content"] == "You said: Are you there?"
        assert answer["metadata"]["epoch"] == 2
        assert (await client.wait_end(waiting["run_id"]))["content"] == "You said: And then?"
        whole = await client.wait_end(behind["run_id"], within=TAKEOVER_S)
        assert whole["content"] == WRITTEN_ANEW
        assert times_run(file) == 1
        await converge(engine.web, engine.ann, behind["session_id"], client)
        await converge(engine.web, engine.ann, first["session_id"], client)
        await converge(engine.web, engine.ann, other["session_id"], client)
    # The dead worker's jobs go with its heartbeat.
    engine.execute("UPDATE procrastinate_workers SET last_heartbeat = now() - interval '1 hour'")
    await engine.until(lambda: engine.count_jobs() == 0, "the dead worker's jobs to be deleted")


async def test_a_deploy_of_the_web_cuts_no_reply(
    engine: Engine, worker: Child, provider: Provider
) -> None:
    """It goes on where it is read, until the reader has left, and while nobody serves."""
    reply, transcript = Reply(words(30), gate=Gate(SHOWN)), Transcript()
    provider.queue(reply)
    async with engine.web.chat(engine.ann, transcript) as client:
        accepted = await client.chat("Tell me of the mill")
        await client.resume(accepted["session_id"])
        await client.wait_text(accepted["run_id"], reply.start(SHOWN))
        stopping = asyncio.create_task(asyncio.to_thread(engine.web.terminate))
        await client.wait_for(event("draining"))
        reply.release(10)
        await client.wait_text(accepted["run_id"], reply.start(SHOWN + 10))
    assert await stopping == 0
    reply.open()
    ended = "SELECT count(*) FROM conversations_run WHERE id = %s AND status = 'completed'"
    await engine.until(lambda: engine.ask(ended, accepted["run_id"]), "the end")
    engine.web.start()
    async with engine.web.chat(engine.ann, transcript) as client:
        await client.resume(accepted["session_id"])
        assert (await client.wait_end(accepted["run_id"]))["content"] == reply.text
    assert len(provider.calls) == 1


async def test_postgres_drops_connections_and_is_restarted(
    engine: Engine, provider: Provider
) -> None:
    """One run is at work and others wait for its place: all are answered by the same processes."""
    worker = engine.start_worker(RUNS_PER_WORKER="1")
    reply = Reply(words(40), gate=Gate(SHOWN))
    provider.queue(reply)
    async with engine.web.chat(engine.ann) as client:
        working = await engine.chat_to(client, "Tell me of the mill")
        await client.wait_text(working, reply.start(SHOWN))
        waiting = [await engine.chat_to(client, f"Chat {number}") for number in range(4)]
        engine.postgres.terminate_backends()
        reply.release(10)
        await client.wait_text(working, reply.start(SHOWN + 10))
        engine.postgres.kill()
        reply.release(5)
        await engine.until(lambda: "commit of" in worker.log, "the failed commit")
        await asyncio.sleep(OUTAGE_S)
        # It ends with the thread that starts it.
        engine.postgres.start()
        await client.wait_text(working, reply.start(SHOWN + 15))
        reply.open()
        assert (await client.wait_end(working))["content"] == reply.text
        for number, run_id in enumerate(waiting):
            assert (await client.wait_end(run_id))["content"] == f"You said: Chat {number}"
        last = await engine.chat_to(client, "Are you there?")
        assert (await client.wait_end(last))["content"] == "You said: Are you there?"
    assert len(provider.calls) == 6
    assert worker.terminate() == 0


async def test_a_job_that_is_lost_and_one_that_is_doubled(
    engine: Engine, provider: Provider
) -> None:
    async with engine.web.chat(engine.ann) as client:
        lost = await engine.chat_to(client, "The first")
        engine.execute("DELETE FROM procrastinate_jobs")
        doubled = await engine.chat_to(client, "The second")
        engine.execute(
            "INSERT INTO procrastinate_jobs (queue_name, task_name, args)"
            " SELECT queue_name, task_name, args FROM procrastinate_jobs"
        )
        assert engine.count_jobs() == 2
        engine.start_worker()
        assert (await client.wait_end(doubled))["content"] == "You said: The second"
        assert (await client.wait_end(lost))["content"] == "You said: The first"
    await engine.until(lambda: engine.count_jobs() == 0, "the jobs to be deleted")
    assert sorted(call.prompt for call in provider.calls) == ["The first", "The second"]
    claims = "SELECT max(claim) FROM conversations_run WHERE id IN (%s, %s)"
    assert engine.ask(claims, lost, doubled) == 1


async def test_paused_for_longer_than_its_lease(
    engine: Engine, worker: Child, provider: Provider
) -> None:
    """What it still writes when it wakes counts for nothing."""
    reply = Reply(words(30), gate=Gate(SHOWN))
    provider.queue(reply)
    async with engine.web.chat(engine.ann) as client:
        accepted = await client.chat("Tell me of the mill")
        run_id = accepted["run_id"]
        await client.resume(accepted["session_id"])
        await client.wait_text(run_id, reply.start(SHOWN))
        worker.signal(signal.SIGSTOP)
        engine.start_worker()
        end = await client.wait_end(run_id, within=TAKEOVER_S)
        assert end["metadata"]["reason"] == "worker_lost"
        row = "SELECT row_to_json(r)::text FROM conversations_run AS r WHERE id = %s"
        journal = "SELECT count(*) FROM conversations_runevent WHERE run_id = %s"
        before = engine.ask(row, run_id), engine.ask(journal, run_id)
        worker.signal(signal.SIGCONT)
        reply.open()
        await engine.until(
            lambda: f"run {run_id}: claimed by another worker" in worker.log, "it to notice"
        )
        assert (engine.ask(row, run_id), engine.ask(journal, run_id)) == before
        kept = await converge(engine.web, engine.ann, accepted["session_id"], client)
        assert kept.reply(run_id)["text"] == reply.start(SHOWN)


async def test_one_users_many_do_not_delay_anothers_first(
    engine: Engine, provider: Provider
) -> None:
    async with (
        engine.web.chat(engine.ann) as ann,
        engine.web.chat(engine.web.users["ben"]) as ben,
    ):
        of_ann = [await engine.chat_to(ann, f"Ann {number}") for number in range(6)]
        of_ben = await engine.chat_to(ben, "Ben")
        engine.start_worker(RUNS_PER_WORKER="1")
        await ben.wait_end(of_ben)
        for run_id in of_ann:
            await ann.wait_end(run_id)
    prompts = [call.prompt for call in provider.calls]
    assert prompts == ["Ann 0", "Ben", *(f"Ann {number}" for number in range(1, 6))]


async def test_a_worker_that_is_stopped_takes_no_more_and_finishes(
    engine: Engine, provider: Provider
) -> None:
    worker = engine.start_worker(DRAIN_S="600")
    reply = Reply(words(30), gate=Gate(SHOWN))
    provider.queue(reply)
    async with engine.web.chat(engine.ann) as client:
        run_id = await engine.chat_to(client, "Tell me of the mill")
        await client.wait_text(run_id, reply.start(SHOWN))
        workers = "SELECT count(*) FROM procrastinate_workers"
        taking = engine.ask(workers)
        worker.signal(signal.SIGTERM)
        await engine.until(lambda: engine.ask(workers) < taking, "it to take no more")
        later = await engine.chat_to(client, "Are you there?")
        reply.open()
        assert (await client.wait_end(run_id))["content"] == reply.text
        assert await asyncio.to_thread(worker.wait) == 0
        assert len(provider.calls) == 1
        engine.start_worker()
        assert (await client.wait_end(later))["content"] == "You said: Are you there?"


async def test_what_a_stopped_worker_could_not_finish(
    engine: Engine, worker: Child, provider: Provider, tmp_path: Path
) -> None:
    """After `DRAIN_S` a silent run is handed over, and one that can go on behind a tool.

    One that has only shown text ends as it stands.
    """
    file = tmp_path / "file"
    cut, silent = Reply(words(30), gate=Gate(SHOWN)), Reply(words(5), hold=Gate())
    async with engine.web.chat(engine.ann) as client:
        provider.queue(cut)
        shown = await engine.chat_to(client, "Tell me of the mill")
        await client.wait_text(shown, cut.start(SHOWN))
        provider.queue(silent)
        other = await engine.chat_to(client, "Are you there?")
        await provider.until(lambda provider: len(provider.calls) == 2)
        behind = await begin_behind_a_tool(client, provider, file)
        assert await asyncio.to_thread(worker.terminate) == 0
        end = await client.wait_end(shown)
        assert (end["content"], end["metadata"]["reason"]) == (cut.start(SHOWN), "worker_lost")
        engine.start_worker()
        whole = await client.wait_end(behind["run_id"])
        assert whole["content"] == WRITTEN_ANEW
        assert times_run(file) == 1
        assert (await client.wait_end(other))["content"] == "You said: Are you there?"


async def test_a_cancel_comes_by_the_layer(engine: Engine, provider: Provider) -> None:
    """This worker neither polls for cancels nor renews a lease meanwhile."""
    engine.start_worker(CANCEL_POLL_S="3600", BEAT_S="3600", LEASE_S="7200")
    await assert_cancelled(engine, provider)


async def test_a_cancel_comes_without_the_layer(
    engine: Engine, worker: Child, provider: Provider
) -> None:
    await assert_cancelled(engine, provider, engine.valkey.kill)


async def assert_cancelled(
    engine: Engine, provider: Provider, before_cancel: Any = lambda: None
) -> None:
    reply = Reply(words(30), gate=Gate(SHOWN))
    provider.queue(reply)
    async with engine.web.chat(engine.ann) as client:
        accepted = await client.chat("Tell me of the mill")
        await client.wait_text(accepted["run_id"], reply.start(SHOWN))
        before_cancel()
        await client.cancel(accepted["session_id"], run_id=accepted["run_id"])
        end = await client.wait_end(accepted["run_id"])
        assert (end["content"], end["metadata"]["reason"]) == (reply.start(SHOWN), "user")


async def test_workers_purge(engine: Engine, worker: Child) -> None:
    """What the clock defers once a day."""
    async with engine.web.chat(engine.ann) as client:
        accepted = await client.chat("Forget this")
        await client.wait_end(accepted["run_id"])
    path = f"/api/sessions/{accepted['session_id']}/"
    assert engine.web.request("DELETE", path, user=engine.ann).status == 204
    engine.execute(
        "INSERT INTO procrastinate_jobs (queue_name, task_name, args)"
        """ VALUES ('background', 'realtime.purge', '{"timestamp": 0}')"""
    )
    left = "SELECT count(*) FROM conversations_chatsession WHERE id = %s"
    await engine.until(lambda: engine.ask(left, accepted["session_id"]) == 0, "the purge")


async def test_staff_erase_a_person_by_a_job(engine: Engine) -> None:
    """The web process only disables the account."""
    carl, staff = engine.web.make_users("carl", "staff")
    engine.execute(
        "UPDATE auth_user SET is_staff = true, is_superuser = true WHERE id = %s", staff.pk
    )
    path = f"/admin/auth/user/{carl.pk}/delete/"
    cookie = engine.web.login(staff)
    page = engine.web.request("GET", path, headers={"Cookie": cookie})
    token = page.cookies["csrftoken"]
    headers = {
        "Cookie": f"{cookie}; csrftoken={token}",
        "Origin": engine.web.origin,
        "Content-Type": "application/x-www-form-urlencoded",
    }
    form = f"csrfmiddlewaretoken={token}&post=yes".encode()
    for _ in range(2):
        assert engine.web.request("POST", path, data=form, headers=headers).status == 302
    is_active = "SELECT is_active FROM auth_user WHERE id = %s"
    assert (engine.ask(is_active, carl.pk), engine.count_jobs()) == (False, 1)
    engine.start_worker()
    await engine.until(lambda: engine.ask(is_active, carl.pk) is None, "the account to be gone")
    by = "SELECT actor_id FROM conversations_auditentry WHERE action = 'erased' ORDER BY id DESC"
    assert engine.ask(by) == staff.pk


async def test_a_title_is_made_though_its_worker_dies(engine: Engine, provider: Provider) -> None:
    """Another one is given the job, in time that the test has made pass."""
    worker = engine.start_worker(TITLES="model")
    held = Reply(words(3), hold=Gate())
    provider.queue(Reply(words(5)), held)
    async with engine.web.chat(engine.ann) as client:
        accepted = await client.chat("Tell me of herons")
        await client.wait_end(accepted["run_id"])
    await provider.until(lambda provider: len(provider.calls) == 2)
    worker.kill()
    engine.execute("UPDATE procrastinate_workers SET last_heartbeat = now() - interval '1 hour'")
    engine.start_worker()
    source = "SELECT title_source FROM conversations_chatsession WHERE id = %s"
    session_id = accepted["session_id"]
    await engine.until(lambda: engine.ask(source, session_id) == "model", "the title")
    await engine.until(lambda: engine.count_jobs() == 0, "the job to be deleted")
    assert len(provider.calls) == 3


async def test_workers_fold_by_the_clock(engine: Engine) -> None:
    """One job of all workers, and none of the sweepers."""
    worker = engine.start_worker()
    async with engine.web.chat(engine.ann) as client:
        accepted = await client.chat("Fold this")
        await client.wait_end(accepted["run_id"])
    engine.execute("UPDATE conversations_run SET ended_at = ended_at - interval '1 hour'")
    engine.execute(
        "INSERT INTO procrastinate_jobs (queue_name, task_name, args)"
        """ VALUES ('background', 'realtime.fold', '{"timestamp": 0}')"""
    )
    folded = "SELECT folded FROM conversations_run WHERE id = %s"
    await engine.until(lambda: engine.ask(folded, accepted["run_id"]), "the journal to be folded")
    assert await asyncio.to_thread(worker.terminate) == 0


async def test_a_job_that_fails_gives_way_to_one_that_waits_for_the_same(
    engine: Engine, provider: Provider
) -> None:
    """It does not keep the lock of both."""
    engine.start_worker(TITLES="model")
    failing = Reply(error_status=503, hold=Gate())
    provider.queue(Reply(words(5)), failing, Reply(words(3)))
    async with engine.web.chat(engine.ann) as client:
        accepted = await client.chat("Tell me of herons")
        await client.wait_end(accepted["run_id"])
    await provider.until(lambda provider: len(provider.calls) == 2)
    engine.execute(
        "INSERT INTO procrastinate_jobs (queue_name, task_name, args, lock, queueing_lock)"
        " SELECT queue_name, task_name, args, lock, queueing_lock FROM procrastinate_jobs"
        " WHERE task_name = 'realtime.tend'"
    )
    failing.open()
    source = "SELECT title_source FROM conversations_chatsession WHERE id = %s"
    session_id = accepted["session_id"]
    await engine.until(lambda: engine.ask(source, session_id) == "model", "the title")
    await engine.until(lambda: engine.count_jobs() == 0, "the jobs to be deleted")
    assert len(provider.calls) == 3


async def test_an_erasure_is_never_given_up(engine: Engine) -> None:
    """However often it has failed, or its worker has died."""
    [dora] = engine.web.make_users("dora")
    engine.execute(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN RAISE 'not now'; END $$;"
        "CREATE TRIGGER refuse BEFORE DELETE ON auth_user EXECUTE FUNCTION refuse()"
    )
    engine.execute(
        "INSERT INTO procrastinate_jobs (queue_name, task_name, args, status, attempts) VALUES"
        " ('background', 'realtime.erase',"
        " jsonb_build_object('user_id', %s::text, 'by_id', '0'), 'doing', 50)",
        dora.pk,
    )
    worker = engine.start_worker()
    attempts = "SELECT attempts FROM procrastinate_jobs WHERE status = 'todo'"
    await engine.until(lambda: engine.ask(attempts) == 52, "the attempt to fail")
    assert f"the erasure of user {dora.pk} failed" in worker.log
    engine.execute("DROP FUNCTION refuse() CASCADE")
    engine.execute("UPDATE procrastinate_jobs SET scheduled_at = NULL")
    left = "SELECT count(*) FROM auth_user WHERE id = %s"
    await engine.until(lambda: engine.ask(left, dora.pk) == 0, "the account to be gone")
