"""The page of settings, and what they do on the chat page of every device."""

import re
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from playwright.async_api import Browser, BrowserContext, Page, Route, expect

from tests.browser.chat_page import ChatPage, is_accessible, open_page
from tests.browser.conftest import Model, sign_in
from tests.support.provider import Gate, Reply
from tests.support.site import Site, User

pytestmark = pytest.mark.asyncio(loop_scope="session")

HIDE = """Object.defineProperty(document, "visibilityState", { get: () => "hidden" });"""
# Chromium without a screen refuses all notifications: what would be shown is kept instead.
NOTICES = """
  Object.defineProperty(Notification, "permission", { get: () => "granted" });
  Notification.requestPermission = async () => "granted";
  window.notices = [];
  ServiceWorkerRegistration.prototype.showNotification = async (title, { data, renotify }) => {
    notices.push({ title, data, renotify });
  };
"""


@pytest_asyncio.fixture(loop_scope="session")
async def device(browser: Browser, site: Site) -> AsyncIterator[BrowserContext]:
    """A browser of ben's, with service workers and notifications."""
    context = await browser.new_context(viewport={"width": 1280, "height": 800})
    await context.add_init_script(NOTICES)
    await sign_in(context, site, site.users["ben"])
    yield context
    page = await open_settings(context, site)
    await save(page, language="", theme="", enter="")
    await context.close()


@pytest.fixture
def ben(site: Site) -> User:
    return site.users["ben"]


async def open_settings(context: BrowserContext, site: Site) -> Page:
    page = await context.new_page()
    await page.goto(f"{site.origin}/accounts/settings/")
    return page


async def save(page: Page, **values: str) -> None:
    for name, value in values.items():
        await page.select_option(f"[name={name}]", value)
    await page.locator("form.stacked [type=submit]").click()
    await expect(page.locator(".notice")).to_be_visible()


async def test_settings_hold_on_another_device(
    device: BrowserContext, visitor: BrowserContext, site: Site, ben: User, model: Model
) -> None:
    page = await open_settings(device, site)
    await is_accessible(page)
    await save(page, theme="dark", enter="newline", language="ar")
    await is_accessible(page)
    await expect(page.locator("html")).to_have_attribute("dir", "rtl")
    await sign_in(visitor, site, ben)
    chat = await open_page(visitor, site)
    html = chat.page.locator("html")
    await expect(html).to_have_attribute("data-theme", "dark")
    await expect(html).to_have_attribute("lang", "ar")
    await chat.page.fill("#prompt", "one")
    await chat.page.press("#prompt", "Enter")
    await expect(chat.page.locator("#prompt")).to_have_value("one\n")
    reply = Reply(["a ", "b"], gate=Gate(1))
    model.will_say(reply)
    await chat.page.press("#prompt", "Control+Enter")
    await chat.shows("a")
    # The key that sends queues as well.
    await chat.page.fill("#prompt", "two")
    await chat.page.press("#prompt", "Control+Enter")
    await expect(chat.page.locator(".queue li .queued-text")).to_have_text("two")
    reply.open()
    await chat.shows("You said: two")
    keys = chat.page.locator("#shortcuts dt")
    await expect(keys).to_have_text(
        [re.compile(key) for key in ("^Enter", "Ctrl / ⌘ Enter", "Esc", "↑", "K", "O", r"\?")]
    )
    async with chat.page.expect_response("**/api/preferences/") as saved:
        await chat.page.locator("[data-theme-switch]").first.click()
    assert (await saved.value).ok
    await page.reload()
    await expect(page.locator("html")).to_have_attribute("data-theme", "light")
    assert chat.faults == []


SUBSCRIBED = """
  localStorage.setItem("agentsite.notices", "on");
  const made = { endpoint: "https://push.example/1", unsubscribe() {}, toJSON: () => ({}) };
  Object.defineProperty(ServiceWorkerRegistration.prototype, "pushManager", {
    get: () => ({ getSubscription: async () => made }),
  });
"""


async def test_what_could_not_be_switched_off_stays_on(device: BrowserContext, site: Site) -> None:
    page = await device.new_page()
    await page.add_init_script(SUBSCRIBED)

    async def give_key(route: Route) -> None:
        answer = await route.fetch()
        body = (await answer.text()).replace('data-key=""', 'data-key="a2V5"')
        await route.fulfill(response=answer, body=body)

    async def refuse(route: Route) -> None:
        await route.fulfill(status=500 if route.request.method == "DELETE" else 204)

    await page.route("**/accounts/settings/", give_key)
    await page.route("**/api/push/**", refuse)
    await page.goto(f"{site.origin}/accounts/settings/")
    await page.click("#notices-off")
    await expect(page.locator("#notices-failed")).to_be_visible()
    await expect(page.locator("#notices-off")).to_be_visible()
    await expect(page.locator("#notices-on")).to_be_hidden()


async def test_the_end_of_a_reply_is_told_while_the_page_is_hidden(
    device: BrowserContext, site: Site, model: Model
) -> None:
    page = await open_settings(device, site)
    await page.click("#notices-on")
    await expect(page.locator("#notices-off")).to_be_visible()
    chat = ChatPage(await device.new_page(), site)
    await chat.open()
    await chat.page.evaluate("() => navigator.serviceWorker.ready.then(() => null)")
    await chat.send("seen")
    await chat.replied()
    assert await chat.page.evaluate("notices") == []
    await chat.page.evaluate(HIDE)
    await chat.send("unseen")
    await chat.replied()
    await chat.page.wait_for_function("notices.length")
    [notice] = await chat.page.evaluate("notices")
    address = f"/s/{chat.session_id}/"
    assert notice == {"title": "Assistant has replied.", "data": address, "renotify": True}
    await page.click("#notices-off")
    await expect(page.locator("#notices-on")).to_be_visible()
    assert chat.faults == []


async def test_a_device_that_is_on_is_subscribed_for_who_is_signed_in(
    device: BrowserContext, site: Site
) -> None:
    """Somebody else may have switched it on, or its subscription may have ended meanwhile."""
    await device.add_init_script(
        """localStorage.setItem("agentsite.notices", "on");
        PushManager.prototype.getSubscription = async () =>
          ({ toJSON: () => ({ endpoint: "https://push.example.org/1" }) });"""
    )

    async def add_key(route: Route) -> None:
        answer = await route.fetch()
        text = (await answer.text()).replace('data-key=""', 'data-key="key"')
        await route.fulfill(response=answer, body=text)

    async def store(route: Route) -> None:
        await route.fulfill(status=204)

    await device.route("**/accounts/settings/", add_key)
    await device.route("**/api/push/", store)
    page = await device.new_page()
    async with page.expect_request("**/api/push/") as stored:
        await page.goto(f"{site.origin}/accounts/settings/")
    request = await stored.value
    assert request.method == "POST"
    assert request.post_data_json == {"endpoint": "https://push.example.org/1", "language": "en"}
    await expect(page.locator("#notices-off")).to_be_visible()
    await device.unroute_all()
