"""The REST API of this app, mounted under /api/."""

from django.urls import path

from conversations.views import SessionsView, SessionView, TranscriptView

urlpatterns = [
    path("sessions/", SessionsView.as_view(), name="api-sessions"),
    path("sessions/<str:session_id>/", SessionView.as_view(), name="api-session"),
    path("sessions/<str:session_id>/transcript/", TranscriptView.as_view(), name="api-transcript"),
]
