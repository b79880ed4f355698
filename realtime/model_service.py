"""What is asked of a model that this process brings up itself: `settings.MODEL_SERVICE`.

That setting is the dotted name of a class that is made without arguments, or None: the model is
somebody else's server.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

from django.conf import settings
from django.utils.module_loading import import_string

ModelState = Literal["starting", "fetching", "loading", "ready", "failed"]


@dataclass(frozen=True)
class ModelStatus:
    """How far the model is; `fraction` from 0 to 1 while it is fetched, `detail` for people."""

    model: str
    state: ModelState
    detail: str
    fraction: float | None = None


@dataclass(frozen=True)
class Endpoint:
    """Where a model's server is; None is the client's own default."""

    base_url: str | None
    api_key: str


class ModelService(Protocol):
    """One for a process; `endpoint` is there while the state is `ready`."""

    @property
    def status(self) -> ModelStatus: ...

    @property
    def endpoint(self) -> Endpoint | None: ...

    async def run(self, changed: Callable[[], None]) -> None:
        """Bring the model up and keep it up until cancelled; call back after each change."""

    def wake(self) -> None:
        """Somebody waits for an answer: what has failed is tried again."""


def load_service() -> ModelService | None:
    """The service of the settings."""
    name = getattr(settings, "MODEL_SERVICE", None)
    if not name:
        return None
    service: ModelService = import_string(name)()
    return service
