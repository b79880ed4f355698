"""`manage.py import_transcript FILE --user NAME`: imports conversations from a JSON export."""

import argparse
import json
from typing import Any

from django.contrib.auth import get_user_model
from django.core.management.base import BaseCommand, CommandError, CommandParser

from conversations.exports.imports import ImportRefusedError, import_all


class Command(BaseCommand):
    """Imports the sessions of a file for one user, with their ids and times."""

    help = "Import conversations that were exported as JSON."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("file", type=argparse.FileType(encoding="utf-8"))
        parser.add_argument("--user", required=True, help="user who gets the conversations")

    def handle(self, *args: Any, **options: Any) -> None:
        model = get_user_model()
        owner = model._default_manager.filter(**{model.USERNAME_FIELD: options["user"]}).first()
        if owner is None:
            raise CommandError(f"user {options['user']} does not exist")
        try:
            with options["file"] as file:
                count = import_all(owner, json.load(file))
        except ImportRefusedError as exc:
            raise CommandError(f"not imported: {exc}") from exc
        except (ValueError, RecursionError) as exc:
            # The parser's message quotes the file, so it is not passed on.
            raise CommandError("not imported: the file is not JSON") from exc
        self.stdout.write(f"agentsite: {count} conversations imported")
