"""Where the model is, and whether it is ready: `settings.MODEL_SERVICE`.

That setting is the dotted name of a class that is made without arguments and brings the model up in
this process, or None: the model is somebody else's server.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

from django.conf import settings
from django.utils.module_loading import import_string

from conversations.errors import AgentSiteError, ErrorCode

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


class ModelReadiness:
    """Whether the model of the settings can be asked; always, unless this process brings it up."""

    def __init__(self, service: ModelService | None) -> None:
        self._service = service
        self._changed = asyncio.Event()

    @property
    def status(self) -> ModelStatus | None:
        """How far this process's own model is; None where it has none."""
        return self._service.status if self._service else None

    @property
    def is_ready(self) -> bool:
        return self.status is None or self.status.state == "ready"

    @property
    def endpoint(self) -> Endpoint:
        """The server of the settings, or this process's own.

        Raises `AgentSiteError(model_not_ready)`.
        """
        if self._service is None:
            return Endpoint(base_url(), getattr(settings, "OPENAI_API_KEY", None) or "none")
        if self._service.endpoint is None:
            raise AgentSiteError(ErrorCode.MODEL_NOT_READY)
        return self._service.endpoint

    async def wait(self) -> None:
        """Return once the model is ready; raises `AgentSiteError(model_not_ready)` if it fails."""
        while not self.is_ready:
            if self.status is not None and self.status.state == "failed":
                raise AgentSiteError(ErrorCode.MODEL_NOT_READY)
            await self._changed.wait()

    def wake(self) -> None:
        """Have a model that has failed tried again: somebody wants an answer."""
        if self._service is not None:
            self._service.wake()

    async def run(self, changed: Callable[[], None]) -> None:
        """Keep the process's own model up until cancelled; `changed` is called at each change."""

        def on_change() -> None:
            # Whoever waits looks at the status anew, and waits on the next event.
            self._changed.set()
            self._changed = asyncio.Event()
            changed()

        if self._service is not None:
            await self._service.run(on_change)


def base_url() -> str | None:
    """Of the model's server, where that is not OpenAI's own."""
    url: str | None = getattr(settings, "OPENAI_BASE_URL", None)
    return url
