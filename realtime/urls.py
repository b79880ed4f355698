"""The URLs of this app's REST API, to be mounted below `/api/`."""

from django.urls import path

from conversations.urls import SESSION
from realtime.api.downloads import ExportView, TranscriptView, asyncapi, typescript
from realtime.api.turns import CancelView, ChatView, PreferencesView, UsageView

urlpatterns = [
    path("asyncapi.json", asyncapi, name="api-asyncapi"),
    path("protocol.d.ts", typescript, name="api-typescript"),
    path("chat/", ChatView.as_view(), name="api-new-chat"),
    path(f"{SESSION}chat/", ChatView.as_view(), name="api-chat"),
    path(f"{SESSION}cancel/", CancelView.as_view(), name="api-cancel"),
    path(f"{SESSION}transcript/", TranscriptView.as_view(), name="api-transcript"),
    path("preferences/", PreferencesView.as_view(), name="api-preferences"),
    path("usage/", UsageView.as_view(), name="api-usage"),
    path("export/", ExportView.as_view(), name="api-export"),
]
