"""REST: what is read of a request."""

from collections.abc import Mapping
from typing import IO, Any

from rest_framework.exceptions import ParseError, UnsupportedMediaType
from rest_framework.parsers import JSONParser

from conversations.errors import AgentSiteError, ErrorCode

BODY_MAX_BYTES = 262_144


class BoundedJSONParser(JSONParser):
    """JSON that is neither too large nor nested too deeply."""

    def parse(
        self,
        stream: IO[bytes],
        media_type: str | None = None,
        parser_context: Mapping[str, Any] | None = None,
    ) -> Any:
        sent = parser_context["request"].META if parser_context else {}
        if int(sent.get("CONTENT_LENGTH") or 0) > BODY_MAX_BYTES:
            raise AgentSiteError(ErrorCode.TOO_LARGE)
        if (encoding := sent.get("HTTP_CONTENT_ENCODING", "identity")) != "identity":
            raise UnsupportedMediaType(encoding)
        try:
            data = super().parse(stream, media_type, parser_context)
        except RecursionError as exc:
            raise ParseError from exc
        if not isinstance(data, dict):
            raise ParseError
        return data
