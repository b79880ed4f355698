"""Makes the tables and two customers, and looks at what can be seen without a server."""

import sys
from importlib.util import find_spec

import django

django.setup()

from django.core.management import call_command  # noqa: E402
from django.test import Client, override_settings  # noqa: E402
from mysite.models import Customer  # noqa: E402

from conversations.people import sign_ins  # noqa: E402
from conversations.sessions.lists import create_session, kept_of  # noqa: E402
from conversations.sessions.search import containing  # noqa: E402


def main() -> None:
    assert find_spec("agentsite") is None
    call_command("check", fail_level="WARNING")
    call_command("makemigrations", check_changes=True, dry_run=True)
    call_command("migrate", verbosity=0)
    Customer.objects.create_user("ann@example.org", sys.argv[1], is_staff=True, is_superuser=True)
    ben = Customer.objects.create_user("ben@example.org")
    made = create_session(user=ben, title="Herons and other birds")
    for person, found in ((ben, [made]), (Customer.objects.get(is_staff=True), [])):
        assert list(containing(kept_of(person), "herons", owner=person)) == found
    sign_ins.TRIES_A_NAME = 1
    assert [guess(name) for name in ("carl", "dora", "carl")] == [401, 401, 429]


@override_settings(PASSWORD_HASHERS=["django.contrib.auth.hashers.MD5PasswordHasher"])
def guess(name: str) -> int:
    """The answer to a wrong password, in a transaction of `ATOMIC_REQUESTS` as other views are."""
    login = {"email": f"{name}@example.org", "password": "wrong"}
    client = Client(SERVER_NAME="localhost")
    return client.post("/assistant/api/token/", login, "application/json").status_code


main()
