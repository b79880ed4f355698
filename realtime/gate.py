"""What may be worked on before the model is ready, and where the model is when it is."""

import contextlib
from collections.abc import Callable, Iterator

from django.conf import settings

from conversations.errors import AgentSiteError, ErrorCode
from realtime import protocol, registry
from realtime.model_service import Endpoint, ModelService, ModelStatus
from realtime.protocol import Status


def base_url() -> str | None:
    """Of the model's server, where that is not OpenAI's own."""
    url: str | None = getattr(settings, "OPENAI_BASE_URL", None)
    return url


class Gate:
    """Open, unless this process brings up its own model and that is not ready."""

    def __init__(self, service: ModelService | None) -> None:
        self._service = service
        self._asking = 0

    @property
    def status(self) -> ModelStatus | None:
        """How far the model is; None where somebody else sees to that."""
        return self._service.status if self._service else None

    @property
    def is_open(self) -> bool:
        """Whether every agent may work."""
        return self.status is None or self.status.state == "ready"

    @property
    def has_failed(self) -> bool:
        """Whether waiting is in vain for now, and nobody is about to have it tried again."""
        return self._asking == 0 and self.status is not None and self.status.state == "failed"

    @property
    def admitted(self) -> frozenset[str] | None:
        """The agents whose runs may begin, "" being the default one; None: all."""
        return None if self.is_open else registry.independent_agents()

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

    @contextlib.contextmanager
    def asking(self) -> Iterator[None]:
        """Nothing is given up while a chat is stored, which may be seen before it calls `wake`."""
        self._asking += 1
        try:
            yield
        finally:
            self._asking -= 1

    def wake(self) -> None:
        """Somebody wants an answer."""
        if self._service is not None:
            self._service.wake()

    async def run(self, changed: Callable[[], None]) -> None:
        """Keep the model up, if it is this process's own."""
        if self._service is not None:
            await self._service.run(changed)

    def frame(self) -> Status | None:
        """What sockets are told of it."""
        if self.status is None:
            return None
        return protocol.status(protocol.ModelStatus(**vars(self.status)))
