"""The address of the model and whether it is ready, by `settings.MODEL_SERVICE`.

That setting is the dotted name of a class without constructor arguments that starts the model in
this process, or None if the model is on a server elsewhere.
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
    """The state of an embedded model; `model` (its label) and `detail` are texts for people.

    `fraction` is the part that is fetched, from 0 to 1; None unless `state` is `fetching`.
    """

    model: str
    state: ModelState
    detail: str
    fraction: float | None = None


@dataclass(frozen=True)
class Endpoint:
    """The address of a model's server, and its key; a `base_url` of None is OpenAI's own server."""

    base_url: str | None
    api_key: str


class ModelService(Protocol):
    """Runs an embedded model, one per process. `endpoint` is set while the state is `ready`."""

    @property
    def status(self) -> ModelStatus: ...

    @property
    def endpoint(self) -> Endpoint | None: ...

    async def run(self, changed: Callable[[], None]) -> None:
        """Start the model and keep it running until cancelled.

        Calls `changed` after each change of `status`.
        """

    def wake(self) -> None:
        """Have a model that has failed started again; in any other state do nothing.

        Called because a reply waits for the model.
        """


def load_service() -> ModelService | None:
    """Create the service that `MODEL_SERVICE` names; None if it names none.

    Raises `ImportError` for a class that does not exist.
    """
    name = getattr(settings, "MODEL_SERVICE", None)
    if not name:
        return None
    service: ModelService = import_string(name)()
    return service


class ModelReadiness:
    """Whether the model of the settings can be asked; always, unless this process runs it."""

    def __init__(self, service: ModelService | None) -> None:
        self._service = service
        self._changed = asyncio.Event()

    @property
    def status(self) -> ModelStatus | None:
        """The state of this process's embedded model; None if it has none."""
        return self._service.status if self._service else None

    @property
    def is_ready(self) -> bool:
        return self.status is None or self.status.state == "ready"

    @property
    def endpoint(self) -> Endpoint:
        """The server of the embedded model if this process has one, else that of the settings.

        Raises `AgentSiteError(model_not_ready)` while the embedded model has no address.
        """
        if self._service is None:
            return Endpoint(base_url(), getattr(settings, "OPENAI_API_KEY", None) or "none")
        if self._service.endpoint is None:
            raise AgentSiteError(ErrorCode.MODEL_NOT_READY)
        return self._service.endpoint

    async def wait(self) -> None:
        """Wait, without a limit, until the model is ready.

        Raises `AgentSiteError(model_not_ready)` when the model fails, and at once if it has failed
        already; only `wake` lets it be tried again.
        """
        while not self.is_ready:
            if self.status is not None and self.status.state == "failed":
                raise AgentSiteError(ErrorCode.MODEL_NOT_READY)
            await self._changed.wait()

    def wake(self) -> None:
        """Let an embedded model that has failed be started again, because a reply waits for it.

        Does nothing in any other state, and without such a model.
        """
        if self._service is not None:
            self._service.wake()

    async def run(self, changed: Callable[[], None]) -> None:
        """Keep the embedded model running until cancelled; return at once if there is none.

        `changed` is called at each change of its status.
        """

        def on_change() -> None:
            # Waiters look at the status again, and wait for the next event.
            self._changed.set()
            self._changed = asyncio.Event()
            changed()

        if self._service is not None:
            await self._service.run(on_change)


def base_url() -> str | None:
    """Return `OPENAI_BASE_URL`, the URL of a model's server elsewhere; None for OpenAI's own.

    The address of an embedded model is in `ModelReadiness.endpoint` alone.
    """
    url: str | None = getattr(settings, "OPENAI_BASE_URL", None)
    return url
