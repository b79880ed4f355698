"""The site's HTTP routes; the routes of WebSockets are in realtime/routing.py."""

from typing import Any

from csp.decorators import csp_update
from django.contrib import admin
from django.urls import include, path, re_path
from django.utils.decorators import method_decorator
from drf_spectacular.utils import extend_schema
from drf_spectacular.views import SpectacularAPIView, SpectacularSwaggerSplitView

from agentsite.health import healthz, metrics, readyz
from agentsite.web.accounts import admin_login, admin_password_change
from agentsite.web.pages import model
from conversations.api.base import no_such_address

# Swagger UI injects styles, and embeds its icons as data URLs.
LOOSER = {"style-src": ["'unsafe-inline'"], "img-src": ["data:"]}


@method_decorator(csp_update(LOOSER), name="dispatch")
class DocsView(SpectacularSwaggerSplitView):
    """Swagger UI, served from this site's own files, with its script at a separate address."""

    @extend_schema(exclude=True)
    def get(self, request: Any, *args: Any, **kwargs: Any) -> Any:
        """Return the page of Swagger UI, which the OpenAPI document leaves out."""
        return super().get(request, *args, **kwargs)  # type: ignore[no-untyped-call]


DOCS_PATHS = [
    path("api/schema/", SpectacularAPIView.as_view(), name="api-schema"),
    path("api/docs/", DocsView.as_view(url_name="api-schema"), name="api-docs"),
]


handler500 = "agentsite.web.pages.server_error"
urlpatterns = [
    path("healthz/", healthz, name="healthz"),
    path("readyz/", readyz, name="readyz"),
    path("metrics/", metrics, name="metrics"),
    path("model/", model, name="model"),
    path("admin/login/", admin_login),
    path("admin/password_change/", admin_password_change),
    path("admin/", admin.site.urls),
    path("api/", include("conversations.urls")),
    path("api/", include("realtime.urls")),
    *DOCS_PATHS,
    re_path(r"^api(?:/|$)", no_such_address),
    path("", include("agentsite.web.accounts")),
    path("", include("agentsite.web.pages")),
]
