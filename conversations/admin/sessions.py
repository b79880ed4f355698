"""The admin of sessions: their list with its export, and the review page of one."""

from collections.abc import Iterable, Iterator
from typing import Any
from uuid import UUID

from asgiref.sync import async_to_sync, sync_to_async
from django import forms
from django.contrib import admin, messages
from django.contrib.admin.options import IncorrectLookupParameters
from django.contrib.admin.views.main import PAGE_VAR, SEARCH_VAR, ChangeList
from django.contrib.auth import get_user_model
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import (
    Http404,
    HttpRequest,
    HttpResponse,
    HttpResponseBadRequest,
    HttpResponseRedirect,
    JsonResponse,
)
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext, ngettext
from django.utils.translation import gettext_lazy as _

from conversations.admin.filters import (
    RUN_FILTERS,
    DeletedFilter,
    FeedbackFilter,
    KeysetChangeList,
    LabelFilter,
    ReadOnlyAdmin,
    ReviewFilter,
    as_id,
    run_condition,
    with_word,
)
from conversations.errors import AgentSiteError
from conversations.exports.formats import FORMATS, Download, encode, take_place_to_export
from conversations.exports.source import Conversation, read_conversations
from conversations.models import AuditAction, ChatSession, Review, RunStatus
from conversations.people import accounts
from conversations.queries import session_usage, user_usage
from conversations.review import reviews
from conversations.review.figures import figures_view
from conversations.review.reviews import (
    SessionFacts,
    find_run,
    has_message,
    read_facts,
    read_session_page,
    sessions_with_runs,
)
from conversations.review.timeline import read_replay
from conversations.runs.usage import UsageTotals
from conversations.sessions.search import NEWEST, containing
from conversations.text import clean_text


def describe_usage(totals: UsageTotals) -> str:
    """Return `totals` as one line of text for staff, in the current language."""
    known = totals.cost is not None
    cost = f"{totals.cost:.4f} {totals.currency}" if known else gettext("cost unknown")
    line = gettext(
        "%(runs)s replies: %(input)s tokens in, %(output)s out, %(cost)s "
        "(%(estimated)s estimated, %(unknown)s unknown, %(unpriced)s without a price)"
    )
    counts = {"runs": totals.runs, "input": totals.input_tokens, "output": totals.output_tokens}
    return line % {
        **counts,
        "cost": cost,
        "estimated": totals.estimated,
        "unknown": totals.unknown,
        "unpriced": totals.unpriced,
    }


class ReviewForm(forms.ModelForm):
    """The form of a review: assignee, labels, note, and whether the session is reviewed.

    Do not save it directly: pass `save(commit=False)`, the labels, `mark` and `version` to
    `reviews.save_review`. The hidden `version` tells whether the review was saved meanwhile.
    """

    is_reviewed = forms.BooleanField(label=_("Reviewed"), required=False)
    version = forms.CharField(required=False, widget=forms.HiddenInput)

    class Meta:
        model = Review
        fields = ("assignee", "labels", "note")
        widgets = {
            "labels": forms.CheckboxSelectMultiple,
            "note": forms.Textarea(attrs={"rows": 3}),
        }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.label_suffix = ""
        self.fields["assignee"].queryset = reviews.list_staff()  # type: ignore[attr-defined]
        self.fields["labels"].queryset = reviews.list_labels()  # type: ignore[attr-defined]
        self.fields["labels"].required = False
        # Unticked if the session was active since its review: saving a note must not mark messages
        # as reviewed that came later.
        self.initial["is_reviewed"] = reviews.is_up_to_date(self.instance)
        self.initial["version"] = reviews.version_of(self.instance)
        if self.instance.pk:
            self.initial["labels"] = list(self.instance.labels.all())

    @property
    def mark(self) -> bool | None:
        """Whether to mark the session as reviewed or not; None if the box was not changed.

        Only a form whose `is_valid` has returned True has it.
        """
        changed = "is_reviewed" in self.changed_data
        return bool(self.cleaned_data["is_reviewed"]) if changed else None


class Export:
    """An export in one format: `download` has its file, `session_ids` the sessions in it."""

    def __init__(
        self, sessions: QuerySet[ChatSession], format_name: str, *, staff_id: object
    ) -> None:
        """Write the whole export; the caller must send or close `download`.

        `format_name` is a key of `FORMATS`. Takes one of the export places of `staff_id`; raises
        `AgentSiteError(rate_limited)` if none is free.
        """
        kind = FORMATS[format_name]
        self.session_ids: list[UUID] = []
        self.download = Download(kind, "sessions", take_place_to_export(staff_id))
        pieces = encode(kind.write(self._counted(read_conversations(sessions, for_staff=True))))
        try:
            async_to_sync(self._write)(pieces)
        except BaseException:
            self.download.close()
            raise

    async def _write(self, pieces: Iterator[bytes]) -> None:
        """Write chunk by chunk; between two chunks, a disconnect of the client can cancel it."""
        take = sync_to_async(self.download.take)
        while await take(pieces):
            pass

    def _counted(self, conversations: Iterable[Conversation]) -> Iterator[Conversation]:
        for conversation in conversations:
            self.session_ids.append(UUID(conversation.session["id"]))
            yield conversation


READ = "conversations.read_transcript"
REVIEW = "conversations.change_review"
EXPORT = "conversations.export_transcript"


class SessionChangeList(KeysetChangeList):
    """The change list of sessions; one and the same reply must meet all filters on replies."""

    def get_results(self, request: HttpRequest) -> None:
        """Give each row a `heading`: the title for staff who may read transcripts, else the id."""
        super().get_results(request)
        may_read = request.user.has_perm(READ)
        for row in self.result_list:
            row.heading = _heading(row, may_read=may_read)

    def get_queryset(self, request: HttpRequest, exclude_parameters: Any = None) -> QuerySet[Any]:
        found = super().get_queryset(request, exclude_parameters)
        condition = run_condition(self.filter_specs)
        return found if condition is None else sessions_with_runs(found, condition)


@admin.register(ChatSession)
class ChatSessionAdmin(ReadOnlyAdmin):
    """The list of all users' sessions with its export, the page of one session, and the figures."""

    keyset = "active_at"
    list_display = (
        *("title_shown", "active_shown", "status_shown", "made_by", "tokens_shown", "wait_shown"),
        *("feedback_shown", "review_shown"),
    )
    list_display_links = None
    list_filter = (*RUN_FILTERS, FeedbackFilter, ReviewFilter, LabelFilter, DeletedFilter)
    list_select_related = ("owner", "review__assignee")
    search_fields = ("title",)
    search_help_text = _(
        "Words of a title or of a message (the newest %(newest)s matches count), an id, or @ and a"
        " user's name."
    ) % {"newest": f"{NEWEST:,}"}
    actions = ("assign_to_me", "mark_reviewed")

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        return SessionChangeList

    def complete(self, rows: list[ChatSession]) -> list[ChatSession]:
        """Return `rows`, each with its `facts`, which are read for all rows at once."""
        facts = read_facts(rows)
        for row in rows:
            row.facts = facts.get(row.pk, SessionFacts())  # type: ignore[attr-defined]
        return rows

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        """Find sessions by `@` and a user's name, by id, or by words.

        The name must be whole. A search by words is recorded in the audit log. It reveals text:
        without the permission READ, raises `PermissionDenied`. A blank term finds all.
        """
        if search_term.startswith("@"):
            return queryset.filter(owner__in=_find_owners(search_term)), False
        if (session_id := as_id(search_term)) is not None:
            return queryset.filter(pk=session_id), False
        if _is_by_words(search_term):
            if not request.user.has_perm(READ):
                raise PermissionDenied
            accounts.record(request.user, AuditAction.SEARCHED)
        return containing(queryset, search_term, owner=None), False

    # Columns

    @admin.display(description=_("session"))
    def title_shown(self, session: Any) -> SafeString:
        link = format_html('<a href="{}">{}</a>', _address(session), session.heading)
        count = ngettext("%d message", "%d messages", session.message_count)
        about = f"{session.owner.get_username()} · {count % session.message_count}"
        return format_html('{}<br><span class="quiet">{}</span>', link, about)

    @admin.display(description=_("last reply"))
    def status_shown(self, session: Any) -> Any:
        facts: SessionFacts = session.facts
        if not facts.status:
            return "–"
        word = str(RunStatus(facts.status).label)
        return with_word(word, facts.status, facts.error_code)

    @admin.display(description=_("last activity"))
    def active_shown(self, session: ChatSession) -> str:
        return timezone.localtime(session.active_at).strftime("%Y-%m-%d %H:%M")

    @admin.display(description=_("agent, model"))
    def made_by(self, session: Any) -> str:
        return ", ".join(filter(None, [session.agent, session.facts.model])) or "–"

    @admin.display(description=_("tokens, cost"))
    def tokens_shown(self, session: Any) -> Any:
        facts: SessionFacts = session.facts
        if facts.tokens is None:
            return "–"
        cost = "" if facts.cost is None else f"{facts.cost:.4f}"
        return format_html('{}<br><span class="quiet">{}</span>', f"{facts.tokens:,}", cost)

    @admin.display(description=_("wait, s"))
    def wait_shown(self, session: Any) -> str:
        return "–" if session.facts.first_token_s is None else f"{session.facts.first_token_s:.1f}"

    @admin.display(description=_("feedback"))
    def feedback_shown(self, session: Any) -> Any:
        facts: SessionFacts = session.facts
        if facts.bad:
            return with_word(_("%d bad") % facts.bad, "failed")
        return with_word(_("%d good") % facts.good, "completed") if facts.good else "–"

    @admin.display(description=_("review"))
    def review_shown(self, session: Any) -> Any:
        review = getattr(session, "review", None)
        if review is None:
            return "–"
        if review.reviewed_at and review.reviewed_at >= session.active_at:
            return with_word(_("reviewed"), "completed")
        if review.reviewed_at:
            return with_word(_("went on"), "running")
        return with_word(review.assignee or _("open"), "queued")

    # Actions

    def has_review_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm(REVIEW)

    @admin.action(description=_("Assign to me"), permissions=["review"])
    def assign_to_me(self, request: HttpRequest, queryset: QuerySet[ChatSession]) -> None:
        ids = list(queryset.values_list("pk", flat=True))
        reviews.assign(staff=request.user, session_ids=ids, assignee=request.user)
        messages.success(request, _("Assigned to you: %d") % len(ids))

    @admin.action(description=_("Mark as reviewed"), permissions=["review"])
    def mark_reviewed(self, request: HttpRequest, queryset: QuerySet[ChatSession]) -> None:
        ids = list(queryset.values_list("pk", flat=True))
        reviews.mark_reviewed(staff=request.user, session_ids=ids)
        messages.success(request, _("Marked as reviewed: %d") % len(ids))

    # The page of one session

    def get_urls(self) -> list[URLPattern]:
        own = [
            path(
                "figures/",
                self.admin_site.admin_view(self.figures_view),
                name="conversations_figures",
            ),
            path(
                "export/",
                self.admin_site.admin_view(self.export_view),
                name="conversations_export",
            ),
            path(
                "<uuid:session_id>/review/",
                self.admin_site.admin_view(self.review_view),
                name="conversations_chatsession_review",
            ),
            path(
                "<uuid:session_id>/replay/<uuid:run_id>/",
                self.admin_site.admin_view(self.replay_view),
                name="conversations_chatsession_replay",
            ),
        ]
        return [*own, *super().get_urls()]

    def export_view(self, request: HttpRequest) -> Any:
        """Export the sessions that the filters in the address select, on all pages of the list.

        Only for POST, whose form names the format; else the answer has status 400. Of a search by
        words these are its `NEWEST` matches, as the list says beside the form. The export is
        recorded in the audit log, once and for each session. Raises `PermissionDenied` without both
        permissions READ and EXPORT.
        """
        if not request.user.has_perms((READ, EXPORT)):
            raise PermissionDenied
        name = request.POST.get("export_format", "")
        if request.method != "POST" or name not in FORMATS:
            return HttpResponseBadRequest()
        try:
            found = self.get_changelist_instance(request).queryset
        except IncorrectLookupParameters:
            return HttpResponseBadRequest()
        try:
            export = Export(found, name, staff_id=request.user.pk)
        except AgentSiteError as exc:
            return HttpResponse(exc.info.text, status=exc.info.http_status)
        about: dict[str, Any] = {"format": name, "sha256": export.download.sha256}
        filters = _tell_filters(request.GET.dict())
        count = len(export.session_ids)
        accounts.record(
            request.user, AuditAction.EXPORTED, sessions=count, filters=filters, **about
        )
        accounts.record_each(request.user, AuditAction.EXPORTED, export.session_ids, **about)
        return export.download.response()

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        formats = FORMATS if request.user.has_perms((READ, EXPORT)) else {}
        cut_at = f"{NEWEST:,}" if _is_by_words(request.GET.get(SEARCH_VAR, "")) else ""
        context = {**(extra_context or {}), "formats": formats, "cut_at": cut_at}
        response = super().changelist_view(request, context)
        if isinstance(response, TemplateResponse) and request.user.has_perm(READ):
            shown = (response.context_data or {}).get("cl")
            accounts.record_list(
                request.user, [row.pk for row in shown.result_list] if shown else []
            )
        return response

    def figures_view(self, request: HttpRequest) -> HttpResponse:
        return figures_view(request, self.admin_site)

    def change_view(
        self,
        request: HttpRequest,
        object_id: str,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        session = self._get_session(request, object_id)
        if request.method == "POST":
            raise PermissionDenied
        return self._show(request, session, ReviewForm(instance=reviews.get_review(session)))

    def review_view(self, request: HttpRequest, session_id: UUID) -> HttpResponse:
        """Save the review and redirect to the session's page; on a fault, show the form again.

        Raises `PermissionDenied` unless this is a POST with the permission REVIEW.
        """
        session = self._get_session(request, session_id)
        if request.method != "POST" or not request.user.has_perm(REVIEW):
            raise PermissionDenied
        form = ReviewForm(request.POST, instance=reviews.get_review(session))
        if not form.is_valid():
            return self._show(request, session, form)
        try:
            reviews.save_review(
                staff=request.user,
                review=form.save(commit=False),
                labels=list(form.cleaned_data["labels"]),
                mark=form.mark,
                version=form.cleaned_data["version"],
            )
        except reviews.ReviewChangedError:
            form.add_error(None, _("Somebody else has saved this review meanwhile. Load it again."))
            return self._show(request, session, form)
        messages.success(request, _("Review saved."))
        return HttpResponseRedirect(_address(session))

    def replay_view(self, request: HttpRequest, session_id: UUID, run_id: UUID) -> HttpResponse:
        """Return the data of a reply's replay as JSON, and record that in the audit log.

        Raises `PermissionDenied` without the permission READ, `Http404` for a run elsewhere.
        """
        session = self._get_session(request, session_id)
        if not request.user.has_perm(READ):
            raise PermissionDenied
        run = find_run(session, run_id)
        if run is None:
            raise Http404
        accounts.record(request.user, AuditAction.REPLAYED, session.pk, run=run.number)
        return JsonResponse(read_replay(run))

    def _get_session(self, request: HttpRequest, session_id: str | UUID) -> ChatSession:
        if not self.has_view_permission(request):
            raise PermissionDenied
        session: ChatSession | None = self.get_object(request, str(session_id))
        if session is None:
            raise Http404
        return session

    def _show(self, request: HttpRequest, session: ChatSession, form: ReviewForm) -> HttpResponse:
        until = as_id(request.GET.get("until", ""))
        if until is not None and not has_message(session, until):
            raise Http404
        may_read = request.user.has_perm(READ)
        accounts.record(request.user, AuditAction.VIEWED, session.pk, transcript=may_read)
        context = {
            **self.admin_site.each_context(request),
            "title": _heading(session, may_read=may_read),
            "opts": self.opts,
            "session": session,
            "usage": describe_usage(session_usage(session)),
            "owner_usage": describe_usage(user_usage(session.owner)),
            "page": read_session_page(session, until),
            "is_latest": until is None,
            "form": form,
            "may_read": may_read,
            "may_review": request.user.has_perm(REVIEW),
            "media": self.media,
        }
        return TemplateResponse(request, "admin/conversations/session.html", context)


def _is_by_words(search_term: str) -> bool:
    """Return whether a search is for words; of their matches only the `NEWEST` count."""
    is_other = search_term.startswith("@") or as_id(search_term) is not None
    return bool(search_term.strip()) and not is_other


def _find_owners(search_term: str) -> list[Any]:
    """Return the users whom the search term `@name` means."""
    name = {get_user_model().USERNAME_FIELD: clean_text(search_term[1:].strip())}
    return list(get_user_model()._default_manager.filter(**name))


def _tell_filters(chosen: dict[str, str]) -> dict[str, str]:
    """Return the filters as the audit log keeps them: users by id, search words left out.

    The log outlives accounts, so it must contain no names and no text.
    """
    term = chosen.get(SEARCH_VAR, "")
    if term.startswith("@"):
        chosen[SEARCH_VAR] = " ".join(f"@{owner.pk}" for owner in _find_owners(term))
    elif term and as_id(term) is None:
        chosen[SEARCH_VAR] = "…"
    return {key: value for key, value in chosen.items() if key != PAGE_VAR}


def _heading(session: ChatSession, *, may_read: bool) -> str:
    return (may_read and session.title) or str(session.pk)


def _address(session: ChatSession) -> str:
    return reverse("admin:conversations_chatsession_change", args=[session.pk])
