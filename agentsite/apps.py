"""The site's own app: its system checks, static files and lines of the log."""

import logging
import re
from collections.abc import Sequence
from typing import Any

from django.apps import AppConfig
from django.conf import settings
from django.contrib.staticfiles import finders
from django.core.checks import CheckMessage, Error, Tags, register
from django.core.files.base import ContentFile
from django.http import HttpRequest
from servestatic.storage import CompressedManifestStaticFilesStorage

from conversations.text import visible
from realtime.tasks import describe

SECRET = re.compile(
    r"(/shared/|/password/reset/[^/\s]+/|[?&]token=|\bbearer\s+|\bagk_[0-9a-f]{8}_"
    r"|\b(?:sessionid|csrftoken|csrfmiddlewaretoken)=)"
    r"[^\s/?&#'\"<>;,\\]+",
    re.IGNORECASE,
)
"""A token and what stands before it: in a share link, a password reset, a query, or a header."""


FREE = re.compile(r"[\^(]|<(?!uuid:|int:)")
"""In a route: a part that matches any text."""


class RouteFilter(logging.Filter):
    """Replaces the path of a request by its route, unless all that varies in it is an id.

    Who mistypes an address may have put anything there, such as a link that should stay secret.
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
    """Replaces each secret by `…`, in the message and in its traceback, and moves no cursor.

    The last of several guards: loggers that repeat text or headers are silenced in the settings.
    Of an exception it shows no more than `describe` does.
    """

    def formatException(self, ei: Any) -> str:  # noqa: N802 (logging's)
        return describe(ei[1]) if ei[1] else ""

    def format(self, record: logging.LogRecord) -> str:
        return SECRET.sub(r"\1…", visible(super().format(record)))


OWN_MODULES = re.compile(r"^chat/.*\.js$")
COMMENTS = re.compile(rb"^[ \t]*/\*\*(?:(?!\*/).)*\*/[ \t]*\n", re.MULTILINE | re.DOTALL)


class HashedFiles(CompressedManifestStaticFilesStorage):
    """Names carry a hash of the content, `import "./x.js"` inside modules included.

    The page's own modules are served without their comments: types and reasons are a seventh of
    what a first visit would fetch.
    """

    support_js_module_import_aggregation = True

    def _save(self, name: str, content: Any) -> str:
        if OWN_MODULES.match(name):
            content = ContentFile(COMMENTS.sub(b"", b"".join(content.chunks())))
        return str(super()._save(name, content))


Apps = Sequence[AppConfig] | None


@register(Tags.staticfiles)
def check_libraries(app_configs: Apps, **kwargs: Any) -> list[CheckMessage]:
    """They are not part of the sources: without them the chat page is dead."""
    if finders.find("vendor/markdown-it.js"):
        return []
    hint = "Run: pip install -r requirements-build.txt && python scripts/libraries.py"
    return [Error("The libraries of the chat page are missing.", hint=hint, id="agentsite.E003")]


class AgentsiteConfig(AppConfig):
    """The site itself, installed for its system checks and its `prepare` command."""

    name = "agentsite"

    def ready(self) -> None:
        from corsheaders.signals import check_request_enabled

        check_request_enabled.connect(_allows_origin)


def _allows_origin(sender: object, request: HttpRequest, **kwargs: object) -> bool:
    """The API answers pages of the origins whose sockets are let in."""
    from realtime.routing import matches_origin

    # The package asks for every address.
    is_api = re.match(settings.CORS_URLS_REGEX, request.path_info) is not None
    return is_api and matches_origin(request.headers.get("Origin", ""), settings.ALLOWED_ORIGINS)
