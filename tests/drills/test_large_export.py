"""An export larger than any buffer, and a client that reads it slowly."""

import json
import socket

from tests.drills.test_slow_reader import RECEIVE_BUFFER, memory_of
from tests.support.site import Site, User, run_python, run_site

SESSIONS = 1_500
MESSAGES = 30_000
PIECE = 65_536
ALLOWED_BYTES = 8_000_000
"""What the second half of an answer may add: caches have been filled by then."""


def ask_for_export(site: Site, user: User) -> socket.socket:
    """A connection for which the kernel keeps little, with the answer coming."""
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
    client.settimeout(60)
    client.connect(("127.0.0.1", site.port))
    head = f"GET /api/export/ HTTP/1.0\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {user.token}"
    client.sendall(f"{head}\r\n\r\n".encode())
    return client


def test_memory_stays_flat_while_a_slow_client_reads() -> None:
    with run_site() as site:
        size = ("--users=1", f"--sessions={SESSIONS}", f"--messages={MESSAGES}")
        run_python("manage.py", "make_sample_data", *size, env={**site.env, "DEBUG": "1"})
        user = site.make_user("sample-00001")
        body = bytearray()
        used: list[int] = []
        with ask_for_export(site, user) as client:
            while piece := client.recv(PIECE):
                body += piece
                if len(body) // 1_000_000 > len(used):
                    # Others are served meanwhile.
                    site.get_json("/api/sessions/", site.users["ann"])
                    used.append(memory_of(site))
    sessions = json.loads(body.partition(b"\r\n\r\n")[2])["sessions"]
    assert len(sessions) == SESSIONS
    assert len(body) > 2 * ALLOWED_BYTES
    half = len(used) // 2
    assert max(used[half:]) - used[half] < ALLOWED_BYTES
