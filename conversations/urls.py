"""The REST API of this app, mounted under /api/."""

from django.urls import path

from conversations.api.approvals import ApprovalsView, ApprovalView
from conversations.api.messages import MessagesView
from conversations.api.queue import QueuedView, SessionQueueView
from conversations.api.runs import EventsView, RunsView, RunView
from conversations.api.sessions import RestoreView, SessionsView, SessionView
from conversations.api.transcripts import TranscriptView

SESSION = "sessions/<str:session_id>/"
RUN = f"{SESSION}runs/<str:run_id>/"

urlpatterns = [
    path("sessions/", SessionsView.as_view(), name="api-sessions"),
    path(SESSION, SessionView.as_view(), name="api-session"),
    path(f"{SESSION}restore/", RestoreView.as_view(), name="api-restore"),
    path(f"{SESSION}messages/", MessagesView.as_view(), name="api-messages"),
    path(f"{SESSION}queue/", SessionQueueView.as_view(), name="api-queue"),
    path(f"{SESSION}queue/<str:run_id>/", QueuedView.as_view(), name="api-queued"),
    path(f"{SESSION}runs/", RunsView.as_view(), name="api-runs"),
    path(RUN, RunView.as_view(), name="api-run"),
    path(f"{RUN}events/", EventsView.as_view(), name="api-events"),
    path(f"{SESSION}approvals/", ApprovalsView.as_view(), name="api-approvals"),
    path("approvals/<str:request_id>/", ApprovalView.as_view(), name="api-approval"),
    path(f"{SESSION}transcript/", TranscriptView.as_view(), name="api-transcript"),
]
