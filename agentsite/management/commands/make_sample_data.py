"""`manage.py make_sample_data`: fills a development database with sample conversations."""

from typing import Any

from django.conf import settings
from django.core.management import CommandError
from django.core.management.base import BaseCommand, CommandParser
from django.utils import timezone

from benchmarks.sample_data import Plan, make_sample_data

SHOWN_EVERY = 5_000


class Command(BaseCommand):
    help = "Create sample conversations of users named sample-…; requires DEBUG=1."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--sessions", type=int, default=1_000)
        parser.add_argument("--messages", type=int, default=10_000)
        parser.add_argument("--users", type=int, default=500)
        parser.add_argument("--days", type=int, default=90, help="age of the oldest conversations")
        parser.add_argument("--seed", type=int, default=1, help="seed of the random generator")

    def handle(self, *args: Any, **options: Any) -> None:
        if not settings.DEBUG:
            raise CommandError("refusing to add sample data in production: requires DEBUG=1")
        named = ("sessions", "messages", "users", "days", "seed")
        plan = Plan(**{name: options[name] for name in named}, until=timezone.now())
        for done in make_sample_data(plan):
            if done % SHOWN_EVERY == 0:
                self.stdout.write(f"{done:,} of {plan.sessions:,} sessions")
        self.stdout.write(f"{plan.sessions:,} sessions created")
