"""An export larger than any buffer: a client that reads it slowly, and one that goes away."""

import json
import socket
from base64 import b64encode
from collections.abc import Iterator
from email.parser import BytesHeaderParser
from hashlib import sha256

import pytest

from tests.drills.test_slow_reader import RECEIVE_BUFFER, memory_of
from tests.support.machine import scaled
from tests.support.processes import count_nameless_files, run_warm
from tests.support.site import ROOT, Site, User, run_site
from tests.support.waiting import poll

SESSIONS = 750
MESSAGES = 15_000
PIECE = 65_536
ALLOWED_BYTES = 8_000_000
"""What the second half of an answer may add: caches have been filled by then."""


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with run_site() as running:
        size = ("--users=1", f"--sessions={SESSIONS}", f"--messages={MESSAGES}")
        env = {**running.env, "DEBUG": "1"}
        run_warm("-m", "benchmarks.sample_data", *size, env=env, cwd=ROOT)
        yield running


@pytest.fixture
def writer(site: Site) -> User:
    """Whose sessions those are."""
    return site.make_user("sample-00001")


def ask_for_export(site: Site, user: User) -> socket.socket:
    """A connection for which the kernel keeps little, with the answer coming."""
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
    client.settimeout(scaled(60))
    client.connect(("127.0.0.1", site.port))
    head = f"GET /api/export/ HTTP/1.0\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {user.token}"
    client.sendall(f"{head}\r\n\r\n".encode())
    return client


def files_of(site: Site) -> int:
    return count_nameless_files(site.process.pid)


@pytest.mark.crowd
def test_memory_stays_flat_while_a_slow_client_reads(site: Site, writer: User) -> None:
    answer = bytearray()
    used: list[int] = []
    with ask_for_export(site, writer) as client:
        while piece := client.recv(PIECE):
            answer += piece
            if len(answer) // 1_000_000 > len(used):
                # Others are served meanwhile.
                site.get_json("/api/sessions/", site.users["ann"])
                used.append(memory_of(site))
    head, _, body = bytes(answer).partition(b"\r\n\r\n")
    headers = BytesHeaderParser().parsebytes(head.partition(b"\r\n")[2])
    assert headers["Content-Length"] == str(len(body))
    assert headers["Repr-Digest"] == f"sha-256=:{b64encode(sha256(body).digest()).decode()}:"
    assert len(json.loads(body)["sessions"]) == SESSIONS
    assert len(body) > 2 * ALLOWED_BYTES
    half = len(used) // 2
    assert max(used[half:]) - used[half] < ALLOWED_BYTES
    poll(lambda: files_of(site) == 0, "the end of the file")


@pytest.mark.crowd
@pytest.mark.parametrize("read_bytes", [0, PIECE])
def test_nothing_is_left_by_a_client_that_goes_away(
    site: Site, writer: User, read_bytes: int
) -> None:
    """While it is written, and while it is sent."""
    assert files_of(site) == 0
    with ask_for_export(site, writer) as client:
        if read_bytes:
            assert client.recv(read_bytes)
        poll(lambda: files_of(site) == 1, "the file")
    poll(lambda: files_of(site) == 0, "the end of the file")
    assert "Traceback" not in site.log
