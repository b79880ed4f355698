"""`manage.py local_model`: shows, fetches or removes the embedded model without a server."""

import shutil
from argparse import ArgumentParser
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from agentsite.local_model import supervisor
from agentsite.local_model import weights as weights_module
from agentsite.local_model.download import fetch, is_there, partial_of
from agentsite.local_model.supervisor import Terminal
from agentsite.local_model.weights import LocalModelError

MB = 1e6


class Command(BaseCommand):
    help = "Show, download or delete the local model, which answers if no provider is set."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("action", choices=["status", "fetch", "remove"])

    def handle(self, *args: Any, **options: Any) -> None:
        self.weights = settings.LOCAL_MODEL_WEIGHTS
        self.folder = settings.LOCAL_MODEL_CACHE
        self.file = self.weights.file_in(self.folder)
        {"status": self.status, "fetch": self.fetch, "remove": self.remove}[options["action"]]()

    def status(self) -> None:
        """Show which model is set, where its file is, and whether this computer can run it.

        Downloads nothing; the file's content is not checked.
        """
        weights, available = self.weights, weights_module.available_memory()
        free = "unknown" if available is None else f"{available / MB:,.0f} MB"
        self.say(f"model   {weights.label}, {weights.size / MB:,.0f} MB")
        self.say(f"used    {'yes' if settings.MODEL_KIND == 'local' else 'no: ' + self.other()}")
        self.say(f"file    {self.file}: {self.found()}")
        self.say(f"memory  {weights.memory / MB:,.0f} MB needed, {free} available")
        self.say(f"runs    {self.verdict()}")

    def other(self) -> str:
        """Return words about the model that answers instead of the embedded one."""
        return f"answers come from {settings.AGENT_MODEL}"

    def found(self) -> str:
        partial = partial_of(self.file)
        if self.file.is_file():
            return "present"
        if partial.exists():
            return f"partly downloaded, {partial.stat().st_size / self.weights.size:.0%}"
        return "not downloaded"

    def verdict(self) -> str:
        try:
            weights_module.check_processor()
            weights_module.check_runtime()
            weights_module.check_memory(self.weights.memory)
        except LocalModelError as exc:
            return f"no. {supervisor.describe_fault(exc.fault, exc.values)}"
        return "yes, on this computer"

    def fetch(self) -> None:
        """Fetch the model and show the progress, unless the file is there; show its path.

        A file of the user's own is not looked for. Raises `CommandError` if the model cannot be
        fetched, or after Ctrl-C; the partial download is kept.
        """
        terminal = Terminal(self.weights)
        try:
            file = fetch(
                self.weights,
                self.folder,
                mirror=settings.LOCAL_MODEL_MIRROR,
                report=lambda done: terminal.tell(supervisor.fetching(self.weights, done)),
            )
        except LocalModelError as exc:
            raise CommandError(supervisor.describe_fault(exc.fault, exc.values)) from exc
        except KeyboardInterrupt:
            raise CommandError("interrupted; the partial download is kept") from None
        self.say(f"model file: {file}")

    def remove(self) -> None:
        """Delete everything that was fetched, partial downloads too.

        Raises `CommandError` for a file of the user's own. Does not wait for a process that fetches
        or uses the file.
        """
        if not self.weights.is_fetched:
            raise CommandError("LOCAL_MODEL_PATH names a file of your own: delete it yourself")
        known = is_there(self.weights, self.file) or partial_of(self.file).exists()
        for path in (self.file, partial_of(self.file)):
            path.unlink(missing_ok=True)
        shutil.rmtree(self.folder / "mirror", ignore_errors=True)
        self.say(f"deleted from {self.folder}" if known else "nothing to delete")

    def say(self, text: str) -> None:
        self.stdout.write(f"agentsite: {text}")
