"""A real browser on a real server whose model is the stand-in."""

import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

import pytest
import pytest_asyncio
from playwright.async_api import Browser, BrowserContext, async_playwright

from tests.browser.chat_page import ChatPage, open_page
from tests.support.provider import Call, Provider, Reply, echo, run_provider
from tests.support.site import Site, User, run_site
from tests.support.waiting import Noticeboard

ARGUMENTS = (
    "--no-sandbox",
    # Whatever a page would fetch from elsewhere is not even looked up.
    "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",
    # All tabs of a context run in one process, which need not parse the page's modules again.
    "--process-per-site",
)
SETTINGS = {
    "DJANGO_SETTINGS_MODULE": "tests.support.drill_settings",
    "ALLOW_GUESTS": "1",
    "AGENT_MODEL": "stand-in",
    "OPENAI_API_KEY": "for-tests-only",
    "HEAD_INTERVAL_S": "0.5",
    "SWEEP_S": "1",
    "LEASE_S": "5",
    "BEAT_S": "0.5",
    "QUEUE_MAX": "2",
    "FRAMES_PER_MINUTE": "1000",
    "RUNS_PER_USER": "1000",
    "PROVIDER_RETRIES": "0",
    "MODEL_PRICES": '{"stand-in": {"input": "1", "output": "2"}}',
}


class Model:
    """Answers with the replies it was given, in order, then as `echo` does."""

    def __init__(self) -> None:
        self.replies: list[Reply] = []
        self.calls: list[Call] = []
        self._board = Noticeboard()

    def __call__(self, call: Call) -> Reply:
        self.calls.append(call)
        self._board.post()
        return self.replies.pop(0) if self.replies else echo(call)

    def will_say(self, *replies: Reply) -> None:
        self.replies.extend(replies)

    async def called(self, times: int = 1) -> None:
        """Wait until it has been asked so often."""
        await self._board.until(lambda: len(self.calls) >= times)

    def open(self) -> None:
        """Let every reply go on to its end."""
        for call in self.calls:
            call.reply.open()


Opener = Callable[..., Awaitable[ChatPage]]


@pytest_asyncio.fixture(scope="package", loop_scope="session")
async def browser() -> AsyncIterator[Browser]:
    chromium = os.environ.get("AGENTSITE_CHROMIUM")
    if not chromium:
        pytest.skip("no Chromium; `make test` brings one")
    async with async_playwright() as playwright:
        launched = await playwright.chromium.launch(executable_path=chromium, args=ARGUMENTS)
        yield launched
        await launched.close()


@pytest.fixture(scope="package")
def shared_provider() -> Iterator[Provider]:
    with run_provider() as running:
        yield running


@pytest.fixture
def model(shared_provider: Provider) -> Iterator[Model]:
    """What the model says in this test."""
    model = shared_provider.script = Model()
    yield model
    model.open()


@pytest.fixture(scope="package")
def shared_site(shared_provider: Provider) -> Iterator[Site]:
    with run_site(OPENAI_BASE_URL=shared_provider.base_url, **SETTINGS) as site:
        yield site


@pytest.fixture
def site(shared_site: Site, model: Model) -> Site:
    return shared_site


@pytest.fixture
def own_site(shared_provider: Provider, model: Model) -> Iterator[Site]:
    """A server that the test may kill."""
    with run_site(OPENAI_BASE_URL=shared_provider.base_url, **SETTINGS) as site:
        yield site


@pytest.fixture
def ann(site: Site) -> User:
    return site.users["ann"]


@pytest_asyncio.fixture(scope="package", loop_scope="session")
async def shared_context(browser: Browser, shared_site: Site) -> AsyncIterator[BrowserContext]:
    """Its first page stays, and with it the process of the others; it has no script."""
    # Service workers would hide requests from the tests that hold them.
    context = await browser.new_context(
        viewport={"width": 1280, "height": 800}, service_workers="block"
    )
    await (await context.new_page()).goto(f"{shared_site.origin}/healthz/")
    yield context
    await context.close()


@pytest_asyncio.fixture(loop_scope="session")
async def visitor(shared_context: BrowserContext) -> AsyncIterator[BrowserContext]:
    """A browser that nobody has signed in with."""
    yield shared_context
    await forget(shared_context)


async def forget(context: BrowserContext) -> None:
    """Leave nothing of a visit but its files, which are most of the work of the next one."""
    first, *visited = context.pages
    for page in visited:
        await page.close()
    await context.set_offline(False)
    await context.clear_cookies()
    await context.clear_permissions()
    devtools = await context.new_cdp_session(first)
    await devtools.send("Storage.clearDataForOrigin", {"origin": "*", "storageTypes": "all"})
    await devtools.detach()


@pytest_asyncio.fixture(loop_scope="session")
async def signed_in(visitor: BrowserContext, site: Site, ann: User) -> BrowserContext:
    """The same after ann has signed in."""
    await sign_in(visitor, site, ann)
    return visitor


async def sign_in(context: BrowserContext, site: Site, user: User) -> None:
    name, value = site.login(user).split("=", 1)
    await context.add_cookies([{"name": name, "value": value, "url": site.origin}])


@pytest_asyncio.fixture(loop_scope="session")
async def open_chat(signed_in: BrowserContext, site: Site) -> AsyncIterator[Opener]:
    """Opens a tab of ann's; no tab may have complained in its console by the end."""
    opened: list[ChatPage] = []

    async def open_one(session_id: str = "") -> ChatPage:
        opened.append(await open_page(signed_in, site, session_id))
        return opened[-1]

    yield open_one
    assert [fault for chat in opened for fault in chat.faults] == []


@pytest_asyncio.fixture(loop_scope="session")
async def browser_without_scripts(
    browser: Browser, site: Site, ann: User
) -> AsyncIterator[BrowserContext]:
    """ann's, with JavaScript off."""
    context = await browser.new_context(java_script_enabled=False)
    await sign_in(context, site, ann)
    yield context
    await context.close()
