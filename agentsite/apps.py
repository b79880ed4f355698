"""The site's app: log filters, static files, system checks and the CORS rule."""

import hashlib
import json
import logging
import re
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import brotli
from django.apps import AppConfig
from django.conf import settings
from django.contrib.staticfiles import finders
from django.contrib.staticfiles.finders import BaseStorageFinder
from django.core.checks import CheckMessage, Error, Tags, register
from django.core.files.storage import FileSystemStorage
from django.http import HttpRequest
from servestatic.compress import Compressor
from servestatic.storage import CompressedManifestStaticFilesStorage

from conversations.text import visible
from realtime.tasks import describe, log_ids

SECRET = re.compile(
    r"(/shared/|/password/reset/[^/\s]+/|[?&]token=|\bbearer\s+|\bagk_[0-9a-f]{8}_"
    r"|\b(?:sessionid|csrftoken|csrfmiddlewaretoken)=)"
    r"[^\s/?&#'\"<>;,\\]+",
    re.IGNORECASE,
)
"""A secret and its prefix: in a share link, a password reset, a query, a header or a cookie."""


FREE = re.compile(r"[\^(]|<(?!uuid:|int:)")
"""Matches the parts of a route that match any text."""


class RouteFilter(logging.Filter):
    """Logs the route of a request instead of its path, unless only ids vary in the route.

    A mistyped address may contain anything, such as a secret link. Drops no entry; of an entry's
    arguments it replaces those that are the path.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        request = getattr(record, "request", None)
        if isinstance(request, HttpRequest) and isinstance(record.args, tuple):
            match = request.resolver_match
            route = f"/{match.route}" if match else "(no address of this site)"
            shown = route if match is None or FREE.search(match.route) else request.path
            record.args = tuple(shown if it == request.path else it for it in record.args)
        return True


class LineFormatter(logging.Formatter):
    """Replaces what `SECRET` finds by `…`, and makes control characters visible, in whole entries.

    This is the last of several guards: the settings silence loggers that repeat text or headers. An
    exception is shown as `describe` shows it.
    """

    def formatException(self, ei: Any) -> str:  # noqa: N802 (logging's)
        return describe(ei[1]) if ei[1] else ""

    def format(self, record: logging.LogRecord) -> str:
        return _guard(super().format(record))


def _guard(text: str) -> str:
    return SECRET.sub(r"\1…", visible(text))


class JsonFormatter(LineFormatter):
    """Writes an entry as one line of JSON, with the ids of `log_ids`: of request, session or run.

    It takes no other attributes of a record: Django puts the request there, with its address.
    """

    def format(self, record: logging.LogRecord) -> str:
        entry = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            **log_ids.get(),
        }
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return json.dumps({name: _guard(text) for name, text in entry.items()}, ensure_ascii=False)


BROTLI_QUALITY = 9
"""Of 11, which takes ten times the CPU, half a minute at the first start, for a tenth less."""


class QuickCompressor(Compressor):
    """Compresses static files; source maps, which only developers ask for, stay as they are."""

    SKIP_COMPRESS_EXTENSIONS = (*Compressor.SKIP_COMPRESS_EXTENSIONS, "map")

    @staticmethod
    def compress_brotli(data: bytes) -> bytes:
        packed: bytes = brotli.compress(data, quality=BROTLI_QUALITY)
        return packed


class HashedFiles(CompressedManifestStaticFilesStorage):
    """Static files with a hash in their names, including `import "./x.js"` inside modules."""

    support_js_module_import_aggregation = True

    def create_compressor(self, **kwargs: Any) -> Compressor:
        return QuickCompressor(**kwargs)


class BundleFinder(BaseStorageFinder):
    """Finds the files that `scripts/bundling.py` has made; `collectstatic` asks it first.

    It lists none if a source has changed since: the sources themselves are collected then. It finds
    no single file, as all that are served one by one are the sources.
    """

    def __init__(self, app_names: object = None) -> None:
        self.location = settings.BASE_DIR / "bundle"
        super().__init__(FileSystemStorage(location=self.location))

    def list(self, ignore_patterns: Iterable[str] | None) -> Iterable[Any]:
        return super().list(ignore_patterns) if self._is_current() else ()

    def find(self, path: str, find_all: bool = False, **kwargs: Any) -> Any:
        return []

    def _is_current(self) -> bool:
        try:
            inputs = json.loads((self.location / ".inputs.json").read_text())
            return all(_digest(settings.BASE_DIR / name) == inputs[name] for name in inputs)
        except FileNotFoundError:
            return False


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


Apps = Sequence[AppConfig] | None


@register(Tags.staticfiles)
def check_libraries(app_configs: Apps, **kwargs: Any) -> list[CheckMessage]:
    """Return an error if the libraries of the chat page are missing, as in a fresh checkout.

    One of them stands for all, which one script makes.
    """
    if finders.find("vendor/markdown-it.js"):
        return []
    hint = "Run: pip install -r requirements-build.txt && python scripts/libraries.py"
    return [Error("The libraries of the chat page are missing.", hint=hint, id="agentsite.E003")]


class AgentsiteConfig(AppConfig):
    """The site's app, installed for its system checks and management commands."""

    name = "agentsite"

    def ready(self) -> None:
        from corsheaders.signals import check_request_enabled

        check_request_enabled.connect(_allows_origin)


def _allows_origin(sender: object, request: HttpRequest, **kwargs: object) -> bool:
    """Allow the API to pages of the origins that may open sockets."""
    from realtime.routing import matches_origin

    # The package sends this signal for every path, not only for those of CORS_URLS_REGEX.
    is_api = re.match(settings.CORS_URLS_REGEX, request.path_info) is not None
    return is_api and matches_origin(request.headers.get("Origin", ""), settings.ALLOWED_ORIGINS)
