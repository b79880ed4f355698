"""Behind a proxy that speaks TLS, as production is by default."""

import pytest

from tests.support.site import LOGIN_PATH, run_site

PROXIED = {"X-Forwarded-Proto": "https"}


@pytest.fixture(scope="module")
def site():
    with run_site(HTTPS="1") as site:
        yield site


def test_plain_http_is_redirected(site):
    answer = site.request("GET", "/")
    assert answer.status == 301
    assert answer.headers["Location"].startswith("https://127.0.0.1")


def test_load_balancers_may_ask_plainly(site):
    assert site.request("GET", "/healthz/").status == 200


def test_proxied_pages_are_strict(site):
    answer = site.request("GET", LOGIN_PATH, headers=PROXIED)
    assert answer.status == 200
    assert answer.headers["Strict-Transport-Security"] == "max-age=2592000"
    assert "; Secure" in answer.headers["Set-Cookie"]


def test_static_files_are_hashed_compressed_and_kept(site):
    page = site.request("GET", "/admin/login/", headers=PROXIED).body.decode()
    path = page.split('href="/static/admin/css/base.')[1].split('"')[0]
    headers = PROXIED | {"Accept-Encoding": "gzip"}
    answer = site.request("GET", f"/static/admin/css/base.{path}", headers=headers)
    assert answer.status == 200
    assert answer.headers["Content-Encoding"] == "gzip"
    assert "immutable" in answer.headers["Cache-Control"]
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert site.request("GET", "/static/../settings.py", headers=PROXIED).status == 404
