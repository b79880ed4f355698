import re

from django.apps import AppConfig
from django.conf import settings
from django.http import HttpRequest


class AgentsiteConfig(AppConfig):
    """The site itself, installed for its system checks and its `prepare` command."""

    name = "agentsite"

    def ready(self) -> None:
        from corsheaders.signals import check_request_enabled

        from agentsite import checks  # noqa: F401  (registers them)

        check_request_enabled.connect(_allows_origin)


def _allows_origin(sender: object, request: HttpRequest, **kwargs: object) -> bool:
    """The API answers pages of the origins whose sockets are let in."""
    from realtime.auth import matches_origin

    # The package asks for every address.
    is_api = re.match(settings.CORS_URLS_REGEX, request.path_info) is not None
    return is_api and matches_origin(request.headers.get("Origin", ""), settings.ALLOWED_ORIGINS)
