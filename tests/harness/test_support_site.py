"""The site as a process: it starts, dies, comes back, and lets its users in."""

from collections.abc import Iterator

import pytest

from tests.support.servers import Postgres
from tests.support.site import Site, environment, prepared_database, run_python, run_site


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with run_site() as running:
        yield running


def test_comes_back_on_its_port_with_its_data(site: Site) -> None:
    carla = site.make_user("carla")
    site.kill()
    site.start()
    assert site.get_json("/api/sessions/", carla)
    assert site.terminate() == 0
    site.start()
    assert site.make_user("carla") == carla


async def test_users_come_in_by_both_doors(site: Site) -> None:
    ann = site.users["ann"]
    assert site.request("GET", "/api/sessions/").status == 401
    bearer = {"Authorization": f"Bearer {site.token(ann)}"}
    assert site.request("GET", "/api/sessions/", headers=bearer).status == 200
    async with site.chat(ann) as by_token, site.chat_by_cookie(site.login(ann)) as by_cookie:
        await by_token.ping()
        await by_cookie.ping()


def test_own_settings_stay_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "costs-money")
    assert "OPENAI_API_KEY" not in environment()
    assert environment(ALLOW_GUESTS="")["DEBUG"] == "0"
    assert "ALLOW_GUESTS" not in environment(ALLOW_GUESTS="")


def test_failure_is_told() -> None:
    with pytest.raises(AssertionError, match="SECRET_KEY"):
        run_python("manage.py", "check", env=environment(SECRET_KEY=""))


def test_two_processes_share_a_database(postgres: Postgres) -> None:
    with (
        prepared_database(postgres) as url,
        run_site(postgres, DATABASE_URL=url) as one,
        run_site(postgres, DATABASE_URL=url) as two,
    ):
        dora = one.make_user("dora")
        assert two.request("GET", "/api/sessions/", user=dora).status == 200
