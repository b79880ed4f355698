"""`manage.py erase_user NAME`: deletes a user and all data of that person."""

from typing import Any

from django.contrib.auth import get_user_model
from django.core.management import CommandError
from django.core.management.base import BaseCommand, CommandParser
from django.db.models import ProtectedError, RestrictedError

from conversations.people.privacy import erase_user


class Command(BaseCommand):
    help = "Permanently delete a user and all data of that person."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("username")
        parser.add_argument("--no-input", action="store_true", help="skip the confirmation")

    def handle(self, *args: Any, **options: Any) -> None:
        model, name = get_user_model(), options["username"]
        user = model._default_manager.filter(**{model.USERNAME_FIELD: name}).first()
        if user is None:
            raise CommandError(f"user {name} does not exist")
        if not options["no_input"] and input(f"Type {name} to erase this user: ") != name:
            raise CommandError("not confirmed: nothing was erased")
        try:
            deleted = erase_user(user)
        except (ProtectedError, RestrictedError) as exc:
            user.refresh_from_db()
            kept = f"the account, which is disabled, as {user.get_username()}"
            raise CommandError(f"erased everything but {kept}: {exc.args[0]}") from exc
        self.stdout.write(f"erased the user and {deleted:,} sessions")
