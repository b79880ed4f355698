"""Measures an export of everything: duration, throughput, and memory of the server.

    DEBUG=1 DATABASE_URL=... python manage.py migrate
    DEBUG=1 DATABASE_URL=... python -m benchmarks.sample_data --users 1 --messages 1000000
    python -m benchmarks.export DATABASE_URL [--format jsonl] [--way rest|admin]

With `rest` it exports all data of the first of these users, with `admin` that of all users. Linux
only.
"""

import argparse
import base64
import contextlib
import hashlib
import http.client
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlencode

from benchmarks.measure import machine, rss_kib, table
from tests.support.site import (
    DEFAULTS,
    LOGIN_PATH,
    Site,
    User,
    environment,
    make_users,
    run_python,
    run_site,
)

WRITER = "sample-00001"
SETTINGS = {"LOCAL_MODEL": "off", "AGENT_MODEL": "tour", "API_REQUESTS_PER_MINUTE": "100000"}
PIECE = 1_048_576
EVERY_S = 0.05
MB = 1_000_000
PARTS = (0.01, 0.5, 1.0)


@dataclass
class Watch:
    """Samples the server's memory together with the bytes it has written and sent so far."""

    site: Site
    received: int = 0
    samples: list[tuple[int, int, int]] = field(default_factory=list)

    def look(self) -> None:
        """Take one sample: bytes written, bytes sent, resident KiB."""
        resident = rss_kib(self.site.process.pid)
        self.samples.append((self._written(), self.received, resident))

    def _written(self) -> int:
        """Return the size of the temporary file, which has no name."""
        sizes = [0]
        for entry in Path(f"/proc/{self.site.process.pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                if str(entry.readlink()).endswith(" (deleted)"):
                    sizes.append(entry.stat().st_size)
        return max(sizes)

    def peak(self, part: float, whole: int, *, sent: bool = False) -> str:
        """Return the peak in MiB until that share of the file was written or sent."""
        place = 1 if sent else 0
        found = [sample[2] for sample in self.samples if sample[place] <= part * whole]
        return f"{max(found) / 1024:.0f}"


@contextlib.contextmanager
def watching(site: Site) -> Iterator[Watch]:
    """Take samples in a thread during the block."""
    watch, done = Watch(site), threading.Event()

    def sample() -> None:
        while not done.wait(EVERY_S):
            watch.look()

    watch.look()
    thread = threading.Thread(target=sample)
    thread.start()
    try:
        yield watch
    finally:
        done.set()
        thread.join()


def ask_by_rest(site: Site, name: str, writer: User) -> http.client.HTTPResponse:
    headers = {"Authorization": f"Bearer {writer.token}"}
    return _ask(site, "GET", f"/api/export/?export_format={name}", None, headers)


def ask_in_admin(site: Site, name: str, writer: User) -> http.client.HTTPResponse:
    csrf = site.request("GET", LOGIN_PATH).cookies["csrftoken"]
    signed_in = site.login(User("admin", DEFAULTS["DJANGO_SUPERUSER_PASSWORD"], 0, ""))
    form = urlencode({"csrfmiddlewaretoken": csrf, "export_format": name})
    headers = {
        "Cookie": f"csrftoken={csrf}; {signed_in}",
        "Content-Type": "application/x-www-form-urlencoded",
    }
    return _ask(site, "POST", "/admin/conversations/chatsession/export/", form, headers)


def _ask(
    site: Site, method: str, path: str, body: str | None, headers: dict[str, str]
) -> http.client.HTTPResponse:
    connection = http.client.HTTPConnection("127.0.0.1", site.port)
    connection.request(method, path, body, headers)
    return connection.getresponse()


WAYS = {"rest": ask_by_rest, "admin": ask_in_admin}


def measure(site: Site, way: str, name: str, writer: User) -> list[str]:
    """Measure one line of the table; the content is compared with the SHA-256 sent with it."""
    total, lines = hashlib.sha256(), 0
    with watching(site) as watch:
        began = time.perf_counter()
        with WAYS[way](site, name, writer) as answer:
            written = time.perf_counter()
            assert answer.status == 200, answer.status
            while piece := answer.read(PIECE):
                total.update(piece)
                lines += piece.count(b"\n")
                watch.received += len(piece)
            sent = time.perf_counter()
    digest = base64.b64encode(total.digest()).decode()
    assert answer.headers["Repr-Digest"] == f"sha-256=:{digest}:", "damaged"
    whole = watch.received
    return [
        f"{way}, {name}",
        f"{lines:,}",
        f"{whole / MB:,.0f}",
        f"{written - began:.1f}",
        f"{lines / (written - began):,.0f}",
        f"{sent - written:.1f}",
        f"{whole / MB / (sent - written):,.0f}",
        f"{watch.samples[0][2] / 1024:.0f}",
        *(watch.peak(part, whole) for part in PARTS),
        watch.peak(1.0, whole, sent=True),
    ]


HEAD = [
    "export",
    "lines",
    "MB",
    "written in s",
    "lines/s",
    "sent in s",
    "MB/s",
    "MiB resident before",
    *(f"at {part:.0%} written" for part in PARTS),
    "until all was sent",
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("database", help="a DATABASE_URL that benchmarks.sample_data has filled")
    parser.add_argument("--format", default="jsonl")
    parser.add_argument("--way", choices=WAYS, action="append", help="both, unless one is named")
    options = parser.parse_args()
    env = environment(DATABASE_URL=options.database, **SETTINGS)
    run_python("manage.py", "prepare", env=env)
    writer = make_users(env, WRITER)[WRITER]
    with run_site(DATABASE_URL=options.database, **SETTINGS) as site:
        print(machine(), options.database.partition(":")[0], sep="\n", end="\n\n")
        rows = [measure(site, way, options.format, writer) for way in options.way or sorted(WAYS)]
        print(table(HEAD, rows))


if __name__ == "__main__":
    main()
