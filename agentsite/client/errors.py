"""What can go wrong between a program and a site."""


class ClientError(Exception):
    """The root of all of them; its text is fit for people."""


class UnreachableError(ClientError):
    """The site does not answer, or the connection broke off and did not come back in time."""


class RefusedError(ClientError):
    """The site has said no: `code` is one of docs/protocol.md#error-codes.

    `retryable` tells whether trying again can help, `retry_after` in how many seconds.
    """

    def __init__(
        self,
        code: str,
        text: str,
        *,
        retryable: bool = False,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(text)
        self.code = code
        self.text = text
        self.retryable = retryable
        self.retry_after = retry_after


class NotSignedInError(RefusedError):
    """There is no sign-in, a wrong one, or one that has ended."""

    def __init__(self, text: str = "Please sign in.") -> None:
        super().__init__("not_authenticated", text)


class ReplyError(RefusedError):
    """A reply ended with an error; what had come of it is in its `text`."""


def refusal(
    code: str, text: str, *, retryable: bool = False, retry_after: float | None = None
) -> RefusedError:
    """The exception for an error that the site has told of."""
    if code == "not_authenticated":
        return NotSignedInError(text)
    return RefusedError(code, text, retryable=retryable, retry_after=retry_after)
