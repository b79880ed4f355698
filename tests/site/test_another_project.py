"""Both apps in a project of its own, which has other users, addresses and settings.

docs/embedding.md shows the project in tests/another_project; nothing of `agentsite` is there.
"""

import contextlib
import http.cookiejar
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlencode
from urllib.request import HTTPCookieProcessor, ProxyHandler, Request, build_opener

import pytest
from playwright.async_api import async_playwright, expect

from tests.browser.conftest import ARGUMENTS
from tests.support.client import open_chat
from tests.support.machine import scaled
from tests.support.processes import Child, answers, free_port, run_warm
from tests.support.provider import Call, Provider, Reply, ToolCall, run_provider
from tests.support.servers import Postgres
from tests.support.site import INHERITED, ROOT
from tests.support.waiting import TIMEOUT_S

PROJECT = ROOT / "tests" / "another_project"
ANN, PASSWORD = "ann@example.org", "a-password-for-tests"


class Shop:
    """The project in a folder of its own, with the two apps beside it, and its server."""

    def __init__(self, folder: Path, **changes: str) -> None:
        shutil.copytree(PROJECT, folder, dirs_exist_ok=True)
        for app in ("conversations", "realtime"):
            (folder / app).symlink_to(ROOT / app)
        self.folder = folder
        inherited = {name: os.environ[name] for name in INHERITED if name in os.environ}
        self.env = inherited | {"DJANGO_SETTINGS_MODULE": "mysite.settings"} | changes
        self.port = free_port()
        argv = ["manage.py", "serve", "--port", str(self.port)]
        self.process = Child(argv, folder / "site.log", env=self.env, cwd=folder, warm=True)

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def ws_url(self) -> str:
        return f"ws://127.0.0.1:{self.port}/assistant/live/"

    def run(self, *arguments: str) -> str:
        """What Python prints; raises `AssertionError` with its errors."""
        return run_warm(*arguments, env=self.env, cwd=self.folder)

    def start(self) -> None:
        self.process.start(lambda: answers(f"{self.origin}/members/in/"))


class Visitor:
    """A browser without scripts."""

    def __init__(self, shop: Shop) -> None:
        self.shop = shop
        self.jar = http.cookiejar.CookieJar()
        self._opener = build_opener(HTTPCookieProcessor(self.jar), ProxyHandler({}))

    @property
    def cookies(self) -> dict[str, str]:
        return {cookie.name: cookie.value or "" for cookie in self.jar}

    def ask(self, path: str, data: bytes | None = None, **headers: str) -> str:
        """The text of an answer; raises `HTTPError` for a refusal."""
        request = Request(f"{self.shop.origin}{path}", data, headers)
        with self._opener.open(request, timeout=scaled(TIMEOUT_S)) as answer:
            text: str = answer.read().decode()
            return text

    def sign_in(self) -> None:
        """By the project's own form."""
        self.ask("/members/in/")
        form = {
            "csrfmiddlewaretoken": self.cookies["csrftoken"],
            "username": ANN,
            "password": PASSWORD,
        }
        self.ask("/members/in/", urlencode(form).encode())


class Model:
    """Answers with `replies`, in order, and whenever it is asked for a title."""

    def __init__(self) -> None:
        self.replies: list[Reply] = []
        self.calls: list[Call] = []

    def __call__(self, call: Call) -> Reply:
        if "Give the conversation below a title" in json.dumps(call.body):
            return Reply(["A title"])
        self.calls.append(call)
        return self.replies.pop(0)


@pytest.fixture(scope="module")
def provider() -> Iterator[Provider]:
    with run_provider(Model()) as running:
        yield running


@pytest.fixture
def model(provider: Provider) -> Model:
    """What the model says in this test."""
    provider.script = Model()
    return provider.script


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory, provider: Provider) -> Iterator[Shop]:
    folder = tmp_path_factory.mktemp("shop")
    made = Shop(folder, OPENAI_BASE_URL=provider.base_url, OPENAI_API_KEY="for-tests-only")
    made.run("begin.py", PASSWORD)
    made.start()
    with contextlib.ExitStack() as stack:
        stack.callback(made.process.kill)
        yield made


async def test_its_page_goes_on_where_it_was(shop: Shop, model: Model) -> None:
    chromium = os.environ.get("AGENTSITE_CHROMIUM") or pytest.skip("no Chromium")
    reply = Reply(["**Good** ", "day."], hang_after=1)
    model.replies = [reply]
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=chromium, args=ARGUMENTS)
        page = await browser.new_page()
        await page.goto(f"{shop.origin}/help/")
        await page.get_by_label("Email").fill(ANN)
        await page.get_by_label("Password").fill(PASSWORD)
        await page.get_by_role("button").click()
        await page.get_by_label("Message").fill("Hello")
        await page.get_by_role("button").click()
        await expect(page.get_by_role("article")).to_have_text(["Hello", "**Good** "])
        await page.reload()
        await expect(page.get_by_role("article")).to_have_text(["Hello", "Good"])
        reply.open()
        await expect(page.get_by_role("article")).to_have_text(["Hello", "Good day."])
        await browser.close()


async def test_somebody_chats_is_read_and_is_erased(shop: Shop, model: Model) -> None:
    ann = Visitor(shop)
    ann.sign_in()
    assert '"socket": "/assistant/live/"' in ann.ask("/help/")
    cookie = f"sessionid={ann.cookies['sessionid']}"
    reply = Reply(["You ", "are ", "known."], hang_after=2)
    ask_tool, once_more = Reply(tool_calls=[ToolCall("look_up_account")]), Reply(["With pleasure."])
    model.replies = [ask_tool, reply, once_more]

    async with open_chat(shop.ws_url, cookie=cookie, origin=shop.origin) as client:
        accepted = await client.chat("Who am I?")
        await client.wait_text(accepted["run_id"], "You are ")
        client.drop()
    assert ANN in json.dumps(model.calls[1].body)
    async with open_chat(
        shop.ws_url, cookie=cookie, origin=shop.origin, transcript=client.transcript
    ) as client:
        await client.resume(accepted["session_id"])
        reply.open()
        end = await client.wait_end(accepted["run_id"])
        assert end["content"] == "You are known."
        look_at_everything(ann, accepted["session_id"])
        shop.run("erase.py", ANN)
        assert await client.wait_closed() == 4401
    assert "Traceback" not in shop.process.log, shop.process.log
    assert "failed" not in shop.process.log


def look_at_everything(ann: Visitor, session_id: str) -> None:
    """REST and admin, by their addresses in this project."""
    assert "You are known." in ann.ask("/help/")
    api = "/assistant/api"
    (listed,) = json.loads(ann.ask(f"{api}/sessions/?search=known"))["results"]
    assert listed["id"] == session_id
    assert "known" in ann.ask(f"{api}/sessions/{session_id}/transcript/?export_format=csv")
    assert session_id in ann.ask(f"{api}/export/")
    address = json.loads(ann.ask(f"{api}/asyncapi.json"))["channels"]["agent"]["address"]
    assert address == "/assistant/live/"
    login = json.dumps({"email": ANN, "password": PASSWORD}).encode()
    kind = {"Content-Type": "application/json"}
    access = json.loads(Visitor(ann.shop).ask(f"{api}/token/", login, **kind))["access"]
    bearer = {"Authorization": f"Bearer {access}"}
    turn = json.dumps({"content": "Once more", "session_id": ""}).encode()
    made = json.loads(Visitor(ann.shop).ask(f"{api}/chat/", turn, **kind, **bearer))
    assert made["message"]["text"] == "With pleasure."
    sessions = "/office/conversations/chatsession/"
    assert ANN in ann.ask(f"{sessions}?q=@{ANN}")
    page = ann.ask(f"{sessions}{session_id}/change/")
    assert "You are known." in page
    for name in ("review.css", "replay.js"):
        assert f"/static/conversations/{name}" in page
        assert ann.ask(f"/static/conversations/{name}")
    assert ann.ask(f"{sessions}figures/")
    assert ann.ask("/office/conversations/run/")


def test_the_same_tables_on_postgres(tmp_path: Path, postgres: Postgres) -> None:
    with postgres.database() as url:
        shop = Shop(tmp_path, DATABASE_URL=url, DJANGO_SETTINGS_MODULE="mysite.on_postgres")
        shop.run("begin.py", PASSWORD)
