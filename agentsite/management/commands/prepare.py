"""`manage.py prepare`: makes an installed checkout ready to serve."""

import hashlib
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import django
from django.conf import settings
from django.contrib.auth import get_user_model
from django.contrib.staticfiles.finders import get_finders
from django.core.files import locks
from django.core.management import CommandError, call_command
from django.core.management.base import BaseCommand, CommandParser

from conversations.webhooks import make_push_key


class Command(BaseCommand):
    help = "Migrate the database, collect static files and create the first admin account."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--push-key",
            action="store_true",
            help="Print a new value for PUSH_KEY, and do no more.",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        if options["push_key"]:
            self.stdout.write(make_push_key())
            return
        call_command("migrate", verbosity=0, interactive=False)
        if not settings.DEBUG:
            collect_static()
        self.stdout.write(f"agentsite: {ensure_admin()}")


def collect_static() -> None:
    """Hash and compress the static files into STATIC_ROOT.

    Does nothing if `static_sources` are those of the last time. Waits for another process that does
    the same.
    """
    fingerprint = hashlib.sha256("\n".join(sorted(static_sources())).encode()).hexdigest()
    root = Path(settings.STATIC_ROOT)
    root.mkdir(parents=True, exist_ok=True)
    # Lock: two processes that collect at once would report each other's files as conflicts.
    with (root / "sources.sha256").open("a+") as stamp, locked(stamp):
        stamp.seek(0)
        if stamp.read() != fingerprint:
            call_command("collectstatic", verbosity=0, interactive=False)
            stamp.truncate(0)
            stamp.write(fingerprint)


@contextmanager
def locked(file: IO[str]) -> Iterator[None]:
    """Wait, for any time, for an exclusive lock on `file`, and hold it for the block.

    The file is flushed before the lock is released; it stays open.
    """
    locks.lock(file, locks.LOCK_EX)
    try:
        yield
    finally:
        # Flush before unlocking, so that the next process reads what was written.
        file.flush()
        locks.unlock(file)


def static_sources() -> Iterator[str]:
    """Yield Django's version, and a line for each static file with its name, size and time.

    So a line changes, comes or goes with any change of Django or of a source file. The order may
    differ between calls.
    """
    yield django.__version__
    for finder in get_finders():
        for name, storage in finder.list(None):
            stat = Path(storage.path(name)).stat()
            yield f"{name} {stat.st_size} {stat.st_mtime_ns}"


def show_once(password: str) -> str:
    """Return words for the output that tell the password, or where it is.

    In DEBUG they contain it. Else it is written to a file, in place of an earlier one, that only
    this system user may read, and they name the file: containers keep the output of production.
    """
    if settings.DEBUG:
        return f"{password} (shown only once)"
    path = Path(settings.STATIC_ROOT).parent / "admin_password"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    with open(path, "x", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
        file.write(f"{password}\n")
    return f"in {path} (delete the file after reading it)"


def ensure_admin() -> str:
    """Create the first admin account if there is none; return a line about it, for the output.

    An existing admin account is not changed. The line about a new one contains the words of
    `show_once`, unless DJANGO_SUPERUSER_PASSWORD is set. Raises `CommandError` if the name of the
    new account is taken by an ordinary one.
    """
    users = get_user_model()._default_manager
    name = settings.DJANGO_SUPERUSER_USERNAME
    admins = users.filter(is_superuser=True)
    if existing := admins.filter(username=name).first() or admins.order_by("pk").first():
        return f'admin account "{existing.get_username()}" exists'
    if users.filter(username=name).exists():
        raise CommandError(
            f'user "{name}" is not an admin; set DJANGO_SUPERUSER_USERNAME to another name'
        )
    given = settings.DJANGO_SUPERUSER_PASSWORD
    password = given or secrets.token_urlsafe(12)
    users.create_superuser(username=name, password=password)
    shown = "as set in DJANGO_SUPERUSER_PASSWORD" if given else show_once(password)
    return f'admin account "{name}" created, password: {shown}'
