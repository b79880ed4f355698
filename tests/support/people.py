"""Creates accounts in the site's database: `python -m tests.support.people NAME...` prints JSON.

Run in a process of its own, with the site's environment.
"""

import json
import sys
from datetime import timedelta

import django

PASSWORD = "a-password-for-tests"


def main() -> None:
    django.setup()
    from django.contrib.auth import get_user_model
    from django.contrib.auth.hashers import make_password
    from rest_framework_simplejwt.tokens import AccessToken

    users = get_user_model()._default_manager
    # The hash is slow, so all share one.
    password = make_password(PASSWORD)
    users.bulk_create(
        [users.model(username=name, password=password) for name in sys.argv[1:]],
        ignore_conflicts=True,
    )
    made = []
    for user in users.filter(username__in=sys.argv[1:]):
        token = AccessToken.for_user(user)
        token.set_exp(lifetime=timedelta(days=1))
        made.append(
            {
                "username": user.get_username(),
                "password": PASSWORD,
                "pk": user.pk,
                "token": str(token),
            }
        )
    sys.stdout.write(json.dumps(made))


if __name__ == "__main__":
    main()
