"""The pool of connections to a real Postgres that has been restarted."""

import contextlib
from typing import Any

import pytest
from django.db import connections
from django.db.utils import load_backend
from pytest_django.plugin import DjangoDbBlocker

from agentsite import settings as site_settings
from agentsite.settings import Environment
from tests.support.servers import Postgres

IDLE = 6


@pytest.mark.timeout(60)
def test_dead_connections_of_a_pool_delay_nobody(
    postgres: Postgres, django_db_blocker: DjangoDbBlocker
) -> None:
    """However many there are; psycopg's own check would give up at the fifth."""
    with postgres.database() as url, django_db_blocker.unblock():
        parts = site_settings.postgres(site_settings.database_from(url), Environment(debug=True))
        made = connections.configure_settings({"default": parts})["default"]
        backend = load_backend(made["ENGINE"])
        held = [backend.DatabaseWrapper(made, "test_pool") for _ in range(IDLE)]
        pool: Any = held[0].pool
        with contextlib.closing(pool):
            for each in held:
                each.ensure_connection()
            for each in held:
                each.close()
            assert pool.get_stats()["pool_available"] == IDLE
            waited = pool.get_stats().get("requests_errors", 0)
            # The second time all are dead again before they would be renewed together.
            for _ in range(2):
                for each in held:
                    each.ensure_connection()
                for each in held:
                    each.close()
                postgres.terminate_backends()
                held[0].ensure_connection()
                with held[0].cursor() as cursor:
                    cursor.execute("SELECT 1")
                    assert cursor.fetchone() == (1,)
                held[0].close()
            assert pool.get_stats().get("requests_errors", 0) == waited
