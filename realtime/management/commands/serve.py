"""`manage.py serve`: the web process."""

import logging
import socket
from argparse import ArgumentParser
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from django.urls import NoReverseMatch, reverse


class Command(BaseCommand):
    """Serve pages, REST and WebSockets until SIGTERM or SIGINT."""

    help = "Serve the site with Daphne; with ROLE=web, `manage.py work` works on runs."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--host", default=getattr(settings, "HOST", "127.0.0.1"))
        parser.add_argument("--port", type=int, default=getattr(settings, "PORT", 8000))
        port = getattr(settings, "METRICS_PORT", None)
        parser.add_argument("--metrics-port", type=int, default=port)

    def handle(self, *args: Any, **options: Any) -> None:
        if getattr(settings, "ROLE", "all") == "worker":
            raise CommandError("ROLE=worker serves no requests: run `manage.py work`")
        host, port = options["host"], options["port"]
        check_free(host, port)
        # In this order: importing Daphne installs Twisted's reactor, which the application needs.
        from channels.routing import get_default_application

        from realtime.sockets.server import Server

        server = Server(get_default_application(), host=host, port=port)
        # Importing the Agents SDK takes more than a second; do it before the first reply.
        from realtime import registry
        from realtime.process import settle_heap
        from realtime.telemetry import metrics
        from realtime.work import run  # noqa: F401

        registry.agent_names()
        settle_heap()
        self.stdout.write(addresses(host, port))
        self.stdout.flush()
        with metrics.served_on(options["metrics_port"]):
            server.run()
        if server.failure:
            raise CommandError(server.failure)
        logging.shutdown()


def check_free(host: str, port: int) -> None:
    """Raise `CommandError` with a clear message if the server cannot listen on the address.

    It tries to bind it and releases it: another process may take it before the server does.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as exc:
            raise CommandError(
                f"cannot listen on {host}:{port}: {exc.strerror}; set PORT to a free port"
            ) from exc


def addresses(host: str, port: int) -> str:
    """Return lines with the URLs of the chat, the admin and the API, each if the project has it.

    Without a chat there is the site's root instead. For the API it is the page that describes it,
    or else the base of its addresses. `host` may be an IPv6 address, without brackets.
    """
    shown = f"[{host}]" if ":" in host else host
    chat, admin, sessions = map(path_of, ("chat", "admin:index", "api-sessions"))
    places = [
        ("chat", chat) if chat else ("site", "/"),
        ("admin", admin),
        ("API", path_of("api-docs") or sessions.removesuffix("sessions/")),
    ]
    lines = [f"{word:5} http://{shown}:{port}{path}" for word, path in places if path]
    return "\n".join(f"agentsite: {line}" for line in lines)


def path_of(name: str) -> str:
    """Return the path of the URL pattern `name`; "" if the project has none."""
    try:
        return reverse(name)
    except NoReverseMatch:
        return ""
