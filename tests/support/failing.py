"""Tests that fail by their deadline, for `tests/harness/test_support_machine.py`; no other run has
them.
"""

import socket
import threading
from collections.abc import Iterator

import pytest

from tests.support.site import Site, run_site
from tests.support.waiting import poll


@pytest.mark.timeout(1)
def test_hangs() -> None:
    threading.Event().wait()


@pytest.fixture
def site() -> Iterator[Site]:
    with run_site() as site:
        yield site


def test_waits_in_vain(site: Site) -> None:
    poll(lambda: False, "a day without rain", within=0.1)


def test_server_dies_at_its_start() -> None:
    with run_site(SECRET_KEY=""):
        pass


def test_port_is_taken() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as taken,
        run_site(PORT=str(taken.getsockname()[1])),
    ):
        pass
