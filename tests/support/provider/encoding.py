"""JSON as the services write it."""

import json
from typing import Any

SEPARATORS = (",", ":")
_write = json.JSONEncoder(ensure_ascii=False, separators=SEPARATORS).encode


def encode(data: Any) -> bytes:
    """Compact, characters as they are; half a surrogate pair has no UTF-8 and is escaped."""
    try:
        return _write(data).encode()
    except UnicodeEncodeError:
        return json.dumps(data, separators=SEPARATORS).encode()
