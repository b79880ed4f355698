import pytest
from django.db import connection

from agentsite import health
from tests.support.processes import free_port
from tests.support.servers import run_valkey


@pytest.mark.django_db
def test_all_well(client):
    answer = client.get("/healthz/")
    assert (answer.status_code, answer.json()) == (200, {"ok": True, "database": True})
    assert "no-store" in answer["Cache-Control"]


def test_database_away(client, django_db_blocker, monkeypatch):
    monkeypatch.setitem(connection.settings_dict, "NAME", "/nowhere/db.sqlite3")
    connection.close()
    with django_db_blocker.unblock():
        answer = client.get("/healthz/")
    connection.close()
    assert (answer.status_code, answer.json()) == (503, {"ok": False, "database": False})


@pytest.mark.django_db
def test_redis_comes_and_goes(client, settings):
    with run_valkey() as valkey:
        settings.REDIS_URL = valkey.url
        assert client.get("/healthz/").json() == {"ok": True, "database": True, "redis": True}
        valkey.kill()
        answer = client.get("/healthz/")
    assert answer.status_code == 503
    assert answer.json() == {"ok": False, "database": True, "redis": False}


def test_nothing_listens():
    assert not health.redis_answers(f"redis://127.0.0.1:{free_port()}/0")


def test_only_reading(client):
    assert client.post("/healthz/").status_code == 405
