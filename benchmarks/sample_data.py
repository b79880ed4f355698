"""Fills a development database with sample conversations of users named sample-…

    DEBUG=1 python -m benchmarks.sample_data [--sessions 1000] [--messages 10000] [--users 500]

The same seed makes the same conversations.
"""

import argparse
import os
import sys
from collections.abc import Sequence

import django

SHOWN_EVERY = 5_000


def main(arguments: Sequence[str]) -> int:
    """Fill the database as the arguments say; refuse in production. Return the exit status."""
    options = vars(read_options(arguments))
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "agentsite.settings")
    django.setup()
    from django.conf import settings
    from django.utils import timezone

    from benchmarks.sample_rows import Plan, make_sample_data

    if not settings.DEBUG:
        print("refusing to add sample data in production: requires DEBUG=1", file=sys.stderr)
        return 1
    plan = Plan(**options, until=timezone.now())
    for done in make_sample_data(plan):
        if done % SHOWN_EVERY == 0:
            print(f"{done:,} of {plan.sessions:,} sessions")
    print(f"{plan.sessions:,} sessions created")
    return 0


def read_options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.sample_data",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--sessions", type=int, default=1_000)
    parser.add_argument("--messages", type=int, default=10_000)
    parser.add_argument("--users", type=int, default=500)
    parser.add_argument("--days", type=int, default=90, help="age of the oldest conversations")
    parser.add_argument("--seed", type=int, default=1, help="seed of the random generator")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
