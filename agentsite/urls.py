"""Every address of the site; the WebSocket's are in realtime/routing.py."""

from django.contrib import admin
from django.urls import include, path, re_path

from agentsite.accounts import admin_login, admin_password_change
from agentsite.health import healthz, readyz
from agentsite.local_model.card import model
from conversations.api_errors import no_such_address

urlpatterns = [
    path("healthz/", healthz, name="healthz"),
    path("readyz/", readyz, name="readyz"),
    path("model/", model, name="model"),
    path("admin/login/", admin_login),
    path("admin/password_change/", admin_password_change),
    path("admin/", admin.site.urls),
    path("api/", include("conversations.urls")),
    path("api/", include("realtime.urls")),
    path("", include("agentsite.api_docs")),
    re_path(r"^api/", no_such_address),
    path("", include("agentsite.accounts")),
    path("", include("agentsite.keys")),
    path("", include("agentsite.shared")),
    path("", include("agentsite.pages")),
]
