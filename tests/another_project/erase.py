"""Writes all there is of a customer to a file, and then erases it."""

import sys
import zipfile

import django

django.setup()

from django.core.management import call_command  # noqa: E402
from mysite.models import Customer  # noqa: E402


def main() -> None:
    (name,) = sys.argv[1:]
    call_command("export_user", name, "all.zip")
    with zipfile.ZipFile("all.zip") as archive:
        assert name in archive.read("account.json").decode()
    call_command("erase_user", name, no_input=True)
    assert not Customer.objects.filter(email=name).exists()


main()
