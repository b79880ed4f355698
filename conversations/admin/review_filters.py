"""Filters of the list of sessions by what staff have done about them."""

from typing import Any

from django.contrib import admin
from django.db.models import F, Q, QuerySet
from django.http import HttpRequest
from django.utils.translation import gettext_lazy as _

from conversations.review_reads import sessions_judged
from conversations.reviews import LEFT, list_labels


class ReviewFilter(admin.SimpleListFilter):
    """What is left to do, and whose it is."""

    title = _("review")
    parameter_name = "review"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, Any]]:
        return [
            ("left", _("Not reviewed")),
            ("mine", _("Assigned to me, not reviewed")),
            ("assigned", _("Assigned, not reviewed")),
            ("changed", _("Went on after its review")),
            ("done", _("Reviewed")),
        ]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        conditions = {
            "left": LEFT,
            "mine": LEFT & Q(review__assignee=request.user.pk),
            "assigned": LEFT & Q(review__assignee__isnull=False),
            "changed": Q(review__reviewed_at__lt=F("active_at")),
            "done": Q(review__reviewed_at__gte=F("active_at")),
        }
        condition = conditions.get(self.value() or "")
        return queryset.filter(condition) if condition else queryset


class FeedbackFilter(admin.SimpleListFilter):
    """With "not reviewed" beside it, the queue of what users were unhappy with."""

    title = _("feedback")
    parameter_name = "feedback"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, Any]]:
        return [("down", _("Thumbs down")), ("up", _("Thumbs up"))]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        if self.value() in ("up", "down"):
            return queryset.filter(pk__in=sessions_judged(str(self.value())))
        return queryset


class LabelFilter(admin.SimpleListFilter):
    title = _("label")
    parameter_name = "label"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, Any]]:
        return [(str(label.pk), label.name) for label in list_labels()]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        value = self.value() or ""
        return queryset.filter(review__labels=int(value)) if value.isdecimal() else queryset


class DeletedFilter(admin.SimpleListFilter):
    """Users delete sessions; they are here until they are purged."""

    title = _("deleted by its user")
    parameter_name = "deleted"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, Any]]:
        return [("no", _("No")), ("yes", _("Yes"))]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        if self.value() in ("yes", "no"):
            return queryset.filter(deleted_at__isnull=self.value() == "no")
        return queryset
