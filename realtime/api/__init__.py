"""Django REST framework's views on the event loop."""

from typing import Any

from django.http import HttpRequest
from django.http.response import HttpResponseBase

from conversations.api.base import ApiView
from realtime import dbpool


class AsyncAPIView(ApiView):
    """A view with `async` handlers; authentication and checks run in a database thread."""

    async def dispatch(  # type: ignore[override]
        self, request: HttpRequest, *args: Any, **kwargs: Any
    ) -> HttpResponseBase:
        self.args, self.kwargs = args, kwargs
        self.headers = self.default_response_headers
        asked = self.request = self.initialize_request(request, *args, **kwargs)
        response: Any
        try:
            # A read, although using an API key may write: waiting writes would delay every request.
            await dbpool.read(self.initial, asked, *args, **kwargs)
            response = await self._handler()(asked, *args, **kwargs)
        except Exception as exc:
            response = self.handle_exception(exc)
        self.response = self.finalize_response(asked, response, *args, **kwargs)
        return self.response

    def _handler(self) -> Any:
        name = (self.request.method or "").lower()
        known = name in self.http_method_names
        return getattr(self, name, self._refuse_method) if known else self._refuse_method

    async def _refuse_method(self, *args: Any, **kwargs: Any) -> None:
        self.http_method_not_allowed(self.request)

    async def options(self, *args: Any, **kwargs: Any) -> Any:  # type: ignore[override]
        return super().options(*args, **kwargs)
