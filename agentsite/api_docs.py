"""The REST API's own description, and a page to try it on."""

from typing import Any

from csp.decorators import csp_update
from django.urls import path
from django.utils.decorators import method_decorator
from drf_spectacular.utils import extend_schema
from drf_spectacular.views import SpectacularAPIView, SpectacularSwaggerSplitView

# The page makes styles of its own, and shows its icons from inside.
LOOSER = {"style-src": ["'unsafe-inline'"], "img-src": ["data:"]}


@method_decorator(csp_update(LOOSER), name="dispatch")
class DocsView(SpectacularSwaggerSplitView):
    """Swagger UI from this site's own files; its script comes from an address of its own."""

    @extend_schema(exclude=True)
    def get(self, request: Any, *args: Any, **kwargs: Any) -> Any:
        """The page."""
        return super().get(request, *args, **kwargs)  # type: ignore[no-untyped-call]


urlpatterns = [
    path("api/schema/", SpectacularAPIView.as_view(), name="api-schema"),
    path("api/docs/", DocsView.as_view(url_name="api-schema"), name="api-docs"),
]
