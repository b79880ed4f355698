"""The drills' settings in a process that writes down whom it wants to reach.

An audit hook sees every connection and every look-up of a name by Python code, whichever library
asks for it.
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
