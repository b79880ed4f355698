"""Behind a proxy that speaks TLS, as production is by default."""

import contextlib
import os
import ssl
from urllib.request import urlopen

import pytest
import servers

from tests.support.client import event, open_chat
from tests.support.processes import Child
from tests.support.servers import scratch_dir
from tests.support.site import LOGIN_PATH, ROOT, run_site

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


def has_certificate(port):
    with contextlib.suppress(OSError):
        return ssl.get_server_certificate(("127.0.0.1", port))
    return ""


@pytest.fixture(scope="module")
def proxied(site):
    """The address of deploy/Caddyfile in front, with a certificate that it makes itself."""
    with scratch_dir("proxy") as folder:
        [port] = servers.free_ports(1)
        env = {
            **os.environ,
            "SITE_ADDRESS": f"https://127.0.0.1:{port}",
            "SITE_HOST": "127.0.0.1",
            "SITE_TLS": "tls internal",
            "SITE_BIND": "127.0.0.1",
            "WEB_PROCESSES": f"127.0.0.1:{site.port}",
            "XDG_DATA_HOME": str(folder),
            "XDG_CONFIG_HOME": str(folder),
        }
        command = servers.caddy(ROOT / "deploy" / "Caddyfile")
        caddy = Child(command.argv, folder / "caddy.log", env=env)
        root = folder / "caddy" / "pki" / "authorities" / "local" / "root.crt"
        try:
            caddy.start(lambda: root.exists() and has_certificate(port))
            yield f"127.0.0.1:{port}", ssl.create_default_context(cafile=root)
        finally:
            caddy.kill()


def test_a_page_by_the_proxy(proxied):
    address, tls = proxied
    with urlopen(f"https://{address}{LOGIN_PATH}", context=tls) as answer:
        assert answer.status == 200
        assert "; Secure" in answer.headers["Set-Cookie"]


async def test_a_socket_by_the_proxy(site, proxied):
    address, tls = proxied
    ann = site.users["ann"]
    async with open_chat(f"wss://{address}/ws/agent/", bearer=ann.token, tls=tls) as client:
        await client.wait_for(event("connected"))
        assert (await client.ping("now"))["metadata"]["ts"] == "now"
