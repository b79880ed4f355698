"""GET /healthz/ (is the process alive?), /readyz/ (may it get requests?) and /metrics/."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TypedDict

import redis
from django.conf import settings
from django.db import Error as DatabaseFault
from django.db import connection
from django.db.migrations.executor import MigrationExecutor
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.utils.crypto import constant_time_compare
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from realtime import dbpool
from realtime.channel_layer import close_redis, open_redis
from realtime.process import Process
from realtime.tasks import loop_timeout
from realtime.telemetry import metrics as metrics_module

LOOK_TIMEOUT_S = 3.0
"""A check that takes longer than this has failed."""


class Readiness(TypedDict):
    """The body of `/readyz/`; `ok` is true if no other field reports a problem.

    `database` and `layer` are true if the database and the channel layer answer, `draining` is
    true once the process is being stopped.
    """

    ok: bool
    database: bool
    migrations: bool
    """True if no migration is left to apply."""
    layer: bool
    failed_services: list[str]
    """The names of background services that failed twice within a minute."""
    draining: bool


class Look:
    """A check of an external service, `look`, that runs at most once at a time on an event loop.

    All requests share the running check, so that one that hangs costs one thread in total. `look`
    returns False, or raises an error of the database, of Redis or `OSError`, if the check fails.
    """

    def __init__(self, look: Callable[[], Awaitable[bool]]) -> None:
        self._look = look
        self._task: asyncio.Task[bool] | None = None

    async def answers(self) -> bool:
        """Start the check, or join the running one; return whether it succeeds in `LOOK_TIMEOUT_S`.

        That time begins with this call, and is that of `loop_timeout`. A check that takes longer,
        or whose request is cancelled, runs on.
        """
        task = self._task
        if task is None or task.done() or task.get_loop() is not asyncio.get_running_loop():
            task = self._task = asyncio.create_task(self._safely())
        with suppress(TimeoutError):
            async with loop_timeout(LOOK_TIMEOUT_S):
                await asyncio.wait([task])
        return task.done() and task.result()

    async def _safely(self) -> bool:
        try:
            return await self._look()
        except (DatabaseFault, redis.RedisError, OSError, TimeoutError):
            return False


@never_cache
@require_safe
async def healthz(request: HttpRequest) -> JsonResponse:
    """Return `{"ok": true}` without any check; the answer shows that the event loop runs."""
    return JsonResponse({"ok": True})


@never_cache
@require_safe
async def readyz(request: HttpRequest) -> JsonResponse:
    """Return a `Readiness` as JSON, with status 200 if it is ok, else 503.

    Takes little more than `LOOK_TIMEOUT_S` at most.
    """
    database, migrations, layer = await asyncio.gather(
        DATABASE.answers(), MIGRATIONS.answers(), LAYER.answers()
    )
    process = Process.current
    readiness = Readiness(
        ok=False,
        database=database,
        migrations=migrations,
        layer=layer,
        failed_services=process.failed_services if process else [],
        draining=process.is_draining if process else False,
    )
    is_well = database and migrations and layer
    ok = is_well and not readiness["failed_services"] and not readiness["draining"]
    readiness["ok"] = ok
    return JsonResponse(readiness, status=200 if ok else 503)


@never_cache
@require_safe
async def metrics(request: HttpRequest) -> HttpResponse:
    """Return the metrics of this process to whoever sends `METRICS_TOKEN` as a bearer, else 401.

    Without that setting the address does not exist: 404.
    """
    if not settings.METRICS_TOKEN:
        raise Http404
    given = request.headers.get("Authorization", "")
    if not constant_time_compare(given, f"Bearer {settings.METRICS_TOKEN}"):
        return HttpResponse(status=401, headers={"WWW-Authenticate": "Bearer"})
    body, content_type = metrics_module.render()
    return HttpResponse(body, content_type=content_type)


def _select() -> bool:
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")
    return True


def is_migrated() -> bool:
    """Return whether every migration of this code is applied; the database may have others too.

    Raises the database's errors.
    """
    executor = MigrationExecutor(connection)
    return not executor.migration_plan(executor.loader.graph.leaf_nodes())


class Migrations:
    """Checks for unapplied migrations until there are none.

    After that it does not check again, because running code gets no new migrations.
    """

    def __init__(self) -> None:
        self.are_applied = False

    async def look(self) -> bool:
        self.are_applied = self.are_applied or await dbpool.read_first(is_migrated)
        return self.are_applied


async def redis_answers() -> bool:
    """Return True if Redis answers a PING, or if the channel layer is in memory; never False.

    Raises `redis.RedisError` or `OSError` if Redis fails; no answer within `LOOK_TIMEOUT_S` is
    `TimeoutError`, an `OSError`.
    """
    client = open_redis()
    if client is None:
        return True
    try:
        async with loop_timeout(LOOK_TIMEOUT_S):
            await client.execute_command("PING")  # type: ignore[no-untyped-call]
    finally:
        await close_redis(client)
    return True


DATABASE = Look(lambda: dbpool.read_first(_select))
MIGRATIONS = Look(Migrations().look)
LAYER = Look(redis_answers)
