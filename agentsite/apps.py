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
    """The API answers pages of the origins whose sockets it takes."""
    from realtime.auth import matches_origin

    return matches_origin(request.headers.get("Origin", ""), settings.ALLOWED_ORIGINS)
