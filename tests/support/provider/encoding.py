"""Encodes JSON as the real services do."""

import json
from typing import Any

SEPARATORS = (",", ":")
_write = json.JSONEncoder(ensure_ascii=False, separators=SEPARATORS).encode


def encode(data: Any) -> bytes:
    """Encode compactly, with characters unescaped except lone surrogates, which UTF-8 lacks."""
    try:
        return _write(data).encode()
    except UnicodeEncodeError:
        return json.dumps(data, separators=SEPARATORS).encode()
