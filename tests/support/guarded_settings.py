"""The drills' settings in a process that records every address it connects to.

An audit hook sees every connection and every name look-up by Python code, whichever library makes
it.
"""

import os
import sys
from typing import Any

from tests.support.drill_settings import *  # noqa: F403

WATCHED = ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto")


def _note(event: str, arguments: tuple[Any, ...]) -> None:
    if event in WATCHED:
        place = arguments[1] if event in ("socket.connect", "socket.sendto") else arguments[0]
        os.write(2, f"outbound {event} {place!r}\n".encode())


sys.addaudithook(_note)
