"""The REST API of this app, mounted under /api/."""

from django.urls import path

from conversations.api.access import (
    KeysView,
    KeyView,
    PushView,
    RefreshView,
    TicketsView,
    TokenView,
)
from conversations.api.messages import (
    ApprovalDetailView,
    ApprovalsView,
    EventsView,
    FeedbackListView,
    FeedbackView,
    MessageDetailView,
    MessagesView,
    QueuedView,
    RunDetailView,
    RunsView,
    SessionQueueView,
)
from conversations.api.sessions import (
    RestoreView,
    SessionsView,
    SessionView,
    SharedView,
    SharesView,
    ShareView,
)

SESSION = "sessions/<str:session_id>/"
RUN = f"{SESSION}runs/<str:run_id>/"

urlpatterns = [
    path("token/", TokenView.as_view(), name="token"),
    path("token/refresh/", RefreshView.as_view(), name="token_refresh"),
    path("ws-tickets/", TicketsView.as_view(), name="api-ws-tickets"),
    path("keys/", KeysView.as_view(), name="api-keys"),
    path("keys/<str:key_id>/", KeyView.as_view(), name="api-key"),
    path("push/", PushView.as_view(), name="api-push"),
    path("shared/<str:token>/", SharedView.as_view(), name="api-shared"),
    path("sessions/", SessionsView.as_view(), name="api-sessions"),
    path(SESSION, SessionView.as_view(), name="api-session"),
    path(f"{SESSION}restore/", RestoreView.as_view(), name="api-restore"),
    path(f"{SESSION}messages/", MessagesView.as_view(), name="api-messages"),
    path(f"{SESSION}messages/<str:message_id>/", MessageDetailView.as_view(), name="api-message"),
    path(f"{SESSION}queue/", SessionQueueView.as_view(), name="api-queue"),
    path(f"{SESSION}queue/<str:run_id>/", QueuedView.as_view(), name="api-queued"),
    path(
        f"{SESSION}messages/<str:message_id>/feedback/",
        FeedbackView.as_view(),
        name="api-feedback",
    ),
    path(f"{SESSION}feedback/", FeedbackListView.as_view(), name="api-feedback-list"),
    path(f"{SESSION}shares/", SharesView.as_view(), name="api-shares"),
    path(f"{SESSION}shares/<str:share_id>/", ShareView.as_view(), name="api-share"),
    path(f"{SESSION}runs/", RunsView.as_view(), name="api-runs"),
    path(RUN, RunDetailView.as_view(), name="api-run"),
    path(f"{RUN}events/", EventsView.as_view(), name="api-events"),
    path(f"{SESSION}approvals/", ApprovalsView.as_view(), name="api-approvals"),
    path("approvals/<str:request_id>/", ApprovalDetailView.as_view(), name="api-approval"),
]
