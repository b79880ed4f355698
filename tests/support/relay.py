"""A network relay between a client and a server that a test controls."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator


class Relay:
    """Forwards bytes; `cut` breaks every connection, `refuses` rejects new ones.

    Bytes of the server after the first occurrence of `swallows_after` are lost: with b"" all of
    them, with None none.
    """

    def __init__(self, port: int) -> None:
        self.refuses = False
        self.swallows_after: bytes | None = None
        self._to_port = port
        self._writers: set[asyncio.StreamWriter] = set()

    def cut(self) -> None:
        """Abort all connections, and forward everything on new ones."""
        self.swallows_after = None
        for writer in self._writers:
            writer.transport.abort()

    async def join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection until either side ends it."""
        if self.refuses:
            writer.transport.abort()
            return
        server_reader, server_writer = await asyncio.open_connection("127.0.0.1", self._to_port)
        ends = {writer, server_writer}
        self._writers |= ends
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._ask(reader, server_writer))
                group.create_task(self._answer(server_reader, writer))
        finally:
            self._writers -= ends

    async def _ask(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65_536):
                writer.write(data)
                await writer.drain()
        writer.transport.abort()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        passed = b""
        with contextlib.suppress(OSError):
            while data := await reader.read(65_536):
                if self.swallows_after is not None and self.swallows_after in passed:
                    continue
                passed += data
                writer.write(data)
                await writer.drain()
        writer.transport.abort()


@contextlib.asynccontextmanager
async def relay_to(
    port: int, tls: ssl.SSLContext | None = None
) -> AsyncIterator[tuple[Relay, str]]:
    """Run a relay in front of a server on this machine; yields it and its own address.

    With `tls` its clients must speak TLS; the address begins with `http://` all the same.
    """
    relay = Relay(port)
    async with await asyncio.start_server(relay.join, "127.0.0.1", 0, ssl=tls) as server:
        own_port = server.sockets[0].getsockname()[1]
        yield relay, f"http://127.0.0.1:{own_port}"
        relay.cut()
