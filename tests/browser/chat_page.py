"""The chat page as a reader sees it."""

import json
import re
from typing import Any, Literal

from axe_playwright_python.async_playwright import Axe
from playwright.async_api import BrowserContext, CDPSession, Page, WebSocketRoute, expect

from tests.support.conformance import check_frame
from tests.support.machine import scaled
from tests.support.site import Site, User
from tests.support.waiting import TIMEOUT_S

TIMEOUT_MS = scaled(TIMEOUT_S) * 1_000
PATIENCE_MS = 2 * TIMEOUT_MS
Scheme = Literal["light", "dark"]
SCHEMES: tuple[Scheme, ...] = ("light", "dark")
AXE_OPTIONS: dict[Scheme, dict[str, Any]] = {
    "light": {"resultTypes": ["violations"]},
    "dark": {"resultTypes": ["violations"], "runOnly": ["color-contrast", "link-in-text-block"]},
}
LAY_OUT = """() => {
  for (const { style } of document.querySelectorAll(".message")) style.contentVisibility = "";
}"""
AWAY = ("WebSocket connection", "ERR_INTERNET_DISCONNECTED")
expect.set_options(timeout=TIMEOUT_MS)


class ChatPage:
    """One tab; `faults` is what its console complained of, and frames that are not declared."""

    def __init__(self, page: Page, site: Site) -> None:
        self.page = page
        self.site = site
        self.faults: list[str] = []
        self.sockets: list[WebSocketRoute] = []
        page.set_default_timeout(TIMEOUT_MS)
        page.on("pageerror", lambda error: self.faults.append(str(error)))
        page.on("console", self._listen)
        page.on("websocket", lambda socket: socket.on("framereceived", self._look_at))

    def _listen(self, message: Any) -> None:
        # A server or a network that is away is part of the tests.
        is_away = any(words in message.text for words in AWAY)
        if message.type == "error" and not is_away:
            self.faults.append(message.text)

    def _look_at(self, text: str | bytes) -> None:
        try:
            check_frame(json.loads(text))
        except AssertionError as fault:
            self.faults.append(str(fault))

    async def open(self, session_id: str = "") -> None:
        """Load the page and wait until it is connected."""
        await self.page.goto(
            f"{self.site.origin}/s/{session_id}/" if session_id else self.site.origin
        )
        await self.connected()

    async def connected(self) -> None:
        """Wait until the socket is open and nothing is said about it."""
        line = self.page.locator("#connection")
        await expect(line).to_have_attribute("data-state", "open")
        await expect(line).to_be_hidden()

    async def reconnected(self) -> None:
        """The same after the server was away: the page waits for longer each time it has tried."""
        line = self.page.locator("#connection")
        await expect(line).to_have_attribute("data-state", "open", timeout=PATIENCE_MS)
        await self.connected()

    async def send(self, text: str) -> None:
        """Type a message, send it and wait until it stands on the page."""
        messages = self.page.locator(".user")
        before = await messages.count()
        await self.enter(text)
        await expect(messages).to_have_count(before + 1)

    async def enter(self, text: str) -> None:
        """Type a text and send it as people do on this device, whatever comes of it."""
        await self.page.fill("#prompt", text)
        if await self.page.evaluate("matchMedia('(hover: none) and (pointer: coarse)').matches"):
            await self.page.click("#send")
        else:
            await self.page.press("#prompt", "Enter")

    @property
    def session_id(self) -> str:
        """The session in the address."""
        found = re.search(r"/s/([0-9a-f-]{36})/", self.page.url)
        assert found, self.page.url
        return found[1]

    async def in_session(self) -> str:
        """Wait until the conversation has an address; its id."""
        await self.page.wait_for_url(re.compile("/s/"))
        return self.session_id

    @property
    def reply(self) -> Any:
        """The last reply."""
        return self.page.locator(".assistant").last

    async def replied(self, status: str = "completed") -> None:
        """Wait until the last reply has ended."""
        await expect(self.reply).to_have_attribute("data-status", status)

    async def shows(self, text: str) -> None:
        """Wait until the last reply holds `text`."""
        await expect(self.reply.locator(".body")).to_contain_text(text)

    async def press(self, name: str) -> None:
        """Press a button by its words."""
        await self.page.get_by_role("button", name=name, exact=True).last.click()

    async def texts(self) -> list[str]:
        """What each message says, by white space's own rules."""
        # What is not laid out has no inner text.
        await self.page.evaluate(LAY_OUT)
        bodies = self.page.locator("#log .message .body")
        return [" ".join(text.split()) for text in await bodies.all_inner_texts()]

    async def stored(self, user: User) -> list[str]:
        """The same by the database."""
        session = self.site.get_json(f"/api/sessions/{self.session_id}/", user)
        return [" ".join(message["text"].split()) for message in session["messages"]]

    async def read_from_the_start(self) -> None:
        """Scroll up until nothing earlier is left."""
        messages = self.page.locator("#log > .message")
        while await self.page.locator("#earlier a").count():
            shown = await messages.count()
            await self.page.evaluate("document.getElementById('scroller').scrollTop = 0")
            await expect(messages).not_to_have_count(shown)

    async def agrees(self, user: User) -> None:
        """The page says what the database says, now and after a reload."""
        stored = await self.stored(user)
        assert await self.texts() == stored
        await self.page.reload()
        assert await self.texts() == stored

    async def devtools(self) -> CDPSession:
        return await self.page.context.new_cdp_session(self.page)


LOSE_ALL = """function() {
  for (const socket of this) {
    const lost = socket.onclose;
    socket.close();
    lost?.call(socket, new CloseEvent("close", { code: 1006 }));
  }
}"""


async def go_offline(context: BrowserContext) -> None:
    """Take the network away, and have all tabs lose their sockets at once.

    A socket that stays open while Chromium plays offline makes its network process spin from the
    next frame of the server on, and may go on getting frames. The sessions of the developer tools
    end with their pages: one that is detached takes the network's state with it.
    """
    await context.set_offline(True)
    for page in context.pages:
        devtools = await context.new_cdp_session(page)
        found = await devtools.send("Runtime.evaluate", {"expression": "WebSocket.prototype"})
        prototype = {"prototypeObjectId": found["result"]["objectId"]}
        sockets = (await devtools.send("Runtime.queryObjects", prototype))["objects"]["objectId"]
        losing = {"objectId": sockets, "functionDeclaration": LOSE_ALL}
        await devtools.send("Runtime.callFunctionOn", losing)


async def is_accessible(page: Page) -> None:
    """axe finds nothing to say, in light and, of what differs there, in dark."""
    for scheme, options in AXE_OPTIONS.items():
        await page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
        results = await Axe().run(page, options=options)
        assert results.violations_count == 0, f"{scheme}: {results.generate_report()}"


async def open_page(context: BrowserContext, site: Site, session_id: str = "") -> ChatPage:
    """A new tab of `context` with the chat in it."""
    chat = ChatPage(await context.new_page(), site)
    await chat.open(session_id)
    return chat
