"""The socket between a page and the server, in the hands of a test."""

import json
import re
from collections.abc import Callable
from typing import Any

from playwright.async_api import Page, WebSocketRoute

Frame = dict[str, Any]
Tamper = Callable[[Frame], list[Frame]]


def pass_on(frame: Frame) -> list[Frame]:
    """Every frame once, as it is."""
    return [frame]


class Wire:
    """Forwards frames; `tamper` gives what becomes of one that the server sends.

    While `is_deaf`, frames of the page get lost.
    """

    def __init__(self) -> None:
        self.tamper: Tamper = pass_on
        self.refuse_with: int | None = None
        self.is_deaf = False
        self.sent: list[Frame] = []
        self.opened = 0
        self._routes: list[WebSocketRoute] = []

    async def attach(self, page: Page) -> None:
        """Take hold of the sockets that `page` opens from now on."""
        await page.route_web_socket(re.compile("/ws/agent/"), self._open)

    async def _open(self, page_side: WebSocketRoute) -> None:
        self.opened += 1
        if self.refuse_with:
            await page_side.close(code=self.refuse_with)
            return
        server_side = page_side.connect_to_server()
        self._routes.append(page_side)

        def to_server(message: str | bytes) -> None:
            self.sent.append(json.loads(message))
            if not self.is_deaf:
                server_side.send(message)

        def to_page(message: str | bytes) -> None:
            for frame in self.tamper(json.loads(message)):
                page_side.send(json.dumps(frame))

        page_side.on_message(to_server)
        server_side.on_message(to_page)

    def send(self, frame: Frame) -> None:
        """Send one to the page as if it came from the server."""
        self._routes[-1].send(json.dumps(frame))

    async def cut(self, code: int = 1001) -> None:
        """End the open socket."""
        await self._routes.pop().close(code=code)
