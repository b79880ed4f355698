"""`manage.py chat`: chats in the terminal with this site or another one."""

import sys
from argparse import ArgumentParser
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand

from agentsite import terminal


class Command(BaseCommand):
    """Runs the terminal client, which needs no database."""

    help = terminal.DESCRIPTION
    requires_system_checks = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        host = f"[{settings.HOST}]" if ":" in settings.HOST else settings.HOST
        terminal.add_arguments(parser, f"http://{host}:{settings.PORT}")

    def handle(self, *args: Any, **options: Any) -> None:
        sys.exit(terminal.run(options))
