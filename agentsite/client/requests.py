"""What was asked over a socket and has no answer yet."""

from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass

from agentsite.client.errors import ClientError, RefusedError, refusal
from agentsite.client.run_view import Frame


@dataclass(eq=False)
class Request:
    """A frame to be answered: by one that `is_answer` knows, else by an error."""

    frame: Frame
    is_answer: Callable[[Frame], bool]
    take: Callable[[Frame], Awaitable[None]]
    fail: Callable[[ClientError], Awaitable[None]]

    @property
    def is_resume(self) -> bool:
        """Whether the next socket needs another one in its place."""
        return bool(self.frame["type"] == "resume")


class Requests:
    """In the order in which they were sent, which is that of their answers."""

    def __init__(self) -> None:
        self._all: list[Request] = []

    def __len__(self) -> int:
        return len(self._all)

    def __iter__(self) -> Iterator[Request]:
        return iter(list(self._all))

    def add(self, request: Request) -> None:
        """The latest."""
        self._all.append(request)

    def remove(self, request: Request) -> None:
        """It cannot be sent."""
        self._all.remove(request)

    def is_first(self, request: Request) -> bool:
        return self._all[0] is request

    def is_resuming(self, run_id: str) -> bool:
        """Whether the frames of a run are on their way."""
        asked = [request.frame["metadata"] for request in self._all if request.is_resume]
        return any(metadata["run_id"] == run_id for metadata in asked)

    def clear(self) -> list[Request]:
        """Take all out."""
        taken, self._all = self._all, []
        return taken

    async def hear(self, frame: Frame) -> None:
        """Take the request that `frame` answers out, and tell it.

        An error that does not say what it is about is about the oldest.
        """
        is_error = is_refusal(frame)
        for request in self._all:
            named = is_error and _name_of(request.frame) == _name_of(frame) != ""
            if named or request.is_answer(frame):
                break
        else:
            if not is_error or _name_of(frame) or not self._all:
                return
            request = self._all[0]
        self._all.remove(request)
        await (request.fail(fault_of(frame)) if is_error else request.take(frame))


def is_refusal(frame: Frame) -> bool:
    """Whether it is an error outside any run."""
    return frame["type"] == "error" and not frame["metadata"].get("terminal")


def fault_of(frame: Frame) -> RefusedError:
    """The exception for an error frame."""
    at = frame["metadata"]
    return refusal(
        at["code"], frame["content"], retryable=at["retryable"], retry_after=at.get("retry_after")
    )


def _name_of(frame: Frame) -> str:
    return str(frame["metadata"].get("client_message_id", ""))
