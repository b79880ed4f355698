"""One address before several servers, as a balancer is; each connection goes to the one in turn."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

from tests.support.processes import free_port
from tests.support.waiting import Noticeboard


class Balancer:
    """Takes connections at `origin` to the server at `target`; what is open stays where it is."""

    def __init__(self, target: int) -> None:
        self.target = target
        self.port = free_port()
        self._board = Noticeboard()
        self._sockets: set[int] = set()

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def gave(self, target: int) -> None:
        """Wait until that server has got a WebSocket."""
        await self._board.until(lambda: target in self._sockets)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Pass on one connection."""
        target = self.target
        with contextlib.suppress(OSError):
            head = await reader.read(65_536)
            back, forth = await asyncio.open_connection("127.0.0.1", target)
            if b"/ws/agent/" in head.partition(b"\r\n")[0]:
                self._sockets.add(target)
                self._board.post()
            forth.write(head)
            await asyncio.gather(_pump(reader, forth), _pump(back, writer))
        writer.close()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
    writer.close()


@contextlib.asynccontextmanager
async def run_balancer(target: int) -> AsyncIterator[Balancer]:
    balancer = Balancer(target)
    server = await asyncio.start_server(balancer.serve, "127.0.0.1", balancer.port)
    async with server:
        yield balancer
