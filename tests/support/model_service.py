"""A stand-in for the embedded model's service, whose state the test sets."""

import asyncio
from collections.abc import Callable
from typing import ClassVar

from realtime.providers.readiness import Endpoint, ModelState, ModelStatus

DOTTED_NAME = "tests.support.model_service.ToldModel"


class ToldModel:
    """For `settings.MODEL_SERVICE`; `current` is the instance that was created last."""

    current: ClassVar["ToldModel"]

    def __init__(self) -> None:
        self.status = ModelStatus("told", "starting", "starting")
        self.endpoint: Endpoint | None = None
        self.tries_again = False
        self._changed: Callable[[], None] = _nobody
        ToldModel.current = self

    async def run(self, changed: Callable[[], None]) -> None:
        self._changed = changed
        await asyncio.Event().wait()

    def wake(self) -> None:
        if self.tries_again:
            self.tell("starting")

    def tell(
        self, state: ModelState, detail: str = "", fraction: float | None = None, base_url: str = ""
    ) -> None:
        """Set the state; call this in the event loop of its process."""
        self.status = ModelStatus("told", state, detail or state, fraction)
        self.endpoint = Endpoint(base_url, "a-key") if state == "ready" else None
        self._changed()


def _nobody() -> None:
    """The callback before `run`: does nothing."""
