"""`manage.py export_user NAME FILE`: exports all data of one person."""

import json
import zipfile
from collections.abc import Iterable
from typing import Any

from django.contrib.auth import get_user_model
from django.core.management import CommandError
from django.core.management.base import BaseCommand, CommandParser
from django.core.serializers.json import DjangoJSONEncoder

from conversations.exports.formats import FORMATS, encode
from conversations.exports.source import read_conversations
from conversations.models import AuditAction
from conversations.people import accounts
from conversations.people.privacy import read_account
from conversations.sessions.lists import all_of


class Command(BaseCommand):
    help = "Write a user's account data and conversations to a new ZIP file."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("username")
        parser.add_argument("file", help="path of the ZIP file; must not exist")

    def handle(self, *args: Any, **options: Any) -> None:
        model, name = get_user_model(), options["username"]
        user = model._default_manager.filter(**{model.USERNAME_FIELD: name}).first()
        if user is None:
            raise CommandError(f"user {name} does not exist")
        account = json.dumps(read_account(user), cls=DjangoJSONEncoder, indent=2)
        try:
            with zipfile.ZipFile(options["file"], "x", zipfile.ZIP_DEFLATED) as archive:
                archive.writestr("account.json", account)
                for kind in ("json", "html"):
                    texts = FORMATS[kind].write(read_conversations(all_of(user)))
                    _write(archive, f"conversations.{FORMATS[kind].extension}", encode(texts))
        except OSError as exc:
            raise CommandError(f"cannot write {options['file']}: {exc.strerror}") from exc
        session_ids = list(all_of(user).values_list("pk", flat=True))
        accounts.record_each(None, AuditAction.EXPORTED, session_ids, command="export_user")


def _write(archive: zipfile.ZipFile, name: str, pieces: Iterable[bytes]) -> None:
    with archive.open(name, "w", force_zip64=True) as entry:
        for piece in pieces:
            entry.write(piece)
