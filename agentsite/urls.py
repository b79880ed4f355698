"""Every address of the site; the WebSocket's are in realtime/routing.py."""

from django.contrib import admin
from django.urls import include, path
from rest_framework_simplejwt.views import TokenObtainPairView, TokenRefreshView

from agentsite.health import healthz
from agentsite.local_model.card import model

urlpatterns = [
    path("healthz/", healthz, name="healthz"),
    path("model/", model, name="model"),
    path("admin/", admin.site.urls),
    path("api/token/", TokenObtainPairView.as_view(), name="token"),
    path("api/token/refresh/", TokenRefreshView.as_view(), name="token_refresh"),
    path("api/", include("conversations.urls")),
    path("", include("agentsite.accounts")),
    path("", include("agentsite.pages")),
]
