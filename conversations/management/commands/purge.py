"""`manage.py purge`: deletes expired data; run it once a day."""

from typing import Any

from django.core.management.base import BaseCommand, CommandParser
from django.utils import timezone

from conversations.apps import retention_days
from conversations.people.privacy import list_expired, purge


class Command(BaseCommand):
    help = (
        "Permanently delete sessions without activity for RETENTION_DAYS, sessions that users"
        " deleted RESTORE_DAYS ago, and expired sign-ins."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--dry-run", action="store_true", help="only count the sessions")

    def handle(self, *args: Any, **options: Any) -> None:
        kept = retention_days()
        self.stdout.write(f"RETENTION_DAYS is {'not set' if kept is None else kept}")
        if options["dry_run"]:
            self.stdout.write(f"{list_expired(timezone.now()).count():,} sessions to delete")
        else:
            self.stdout.write(f"{purge():,} sessions deleted")
