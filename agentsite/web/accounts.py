"""Views of sign-up, sign-in, guests, passwords, a person's settings and API keys."""

import logging
import zoneinfo
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, tzinfo
from functools import cache, wraps
from math import ceil
from threading import BoundedSemaphore
from typing import Any
from uuid import UUID

from django import forms
from django.conf import settings
from django.contrib import admin, messages
from django.contrib.auth import forms as auth_forms
from django.contrib.auth import get_user_model, login, views
from django.contrib.auth.decorators import login_required
from django.contrib.auth.forms import AuthenticationForm, BaseUserCreationForm, UserCreationForm
from django.contrib.auth.views import redirect_to_login
from django.db import IntegrityError, transaction
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect, JsonResponse
from django.http.response import HttpResponseBase
from django.middleware.csrf import get_token
from django.middleware.locale import LocaleMiddleware
from django.shortcuts import redirect, render, resolve_url
from django.urls import path
from django.utils import timezone, translation
from django.utils.decorators import method_decorator
from django.utils.functional import SimpleLazyObject
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods, require_POST

from agentsite.web.view_models import list_cards
from conversations.api.base import error_body
from conversations.errors import AgentSiteError, ErrorCode
from conversations.models import (
    INSTRUCTIONS_LENGTH,
    ApiKey,
    EnterKey,
    Preferences,
    Scope,
    Theme,
)
from conversations.people.accounts import (
    adopt_guest,
    create_guest,
    create_key,
    get_preferences,
    is_guest,
    list_keys,
    revoke_key,
    save_preferences,
)
from conversations.people.sign_ins import allow_again, limit_mail, limit_sign_in, limit_sign_up
from conversations.runs.usage import read_budget, read_user_totals
from conversations.webhooks import has_push, push_public_key
from realtime.sockets.viewer import chat_limits
from realtime.tasks import describe

logger = logging.getLogger(__name__)

UserModel = get_user_model()
BACKEND = settings.AUTHENTICATION_BACKENDS[0]


class SignUpForm(UserCreationForm):
    """The sign-up form: user name, email address (to reset the password) and password, twice.

    `save` creates the user. Whether the address may be empty is up to the user model.
    """

    class Meta(BaseUserCreationForm.Meta):
        model = UserModel
        fields = (UserModel.USERNAME_FIELD, UserModel.get_email_field_name())

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # The labels say it all.
        self.fields[UserModel.USERNAME_FIELD].help_text = ""
        self.fields["password2"].help_text = ""


class LimitedMixin:
    """A rate limit on POST for a form view, to be its first base; beyond it, answers with 429.

    Requests are counted before the form is checked, by `limit`, which each view defines.
    """

    def limit(self, request: HttpRequest) -> None:
        """Count the request; to be overridden, here it raises `NotImplementedError`.

        Raises `AgentSiteError(rate_limited)` if it is one too many.
        """
        raise NotImplementedError

    def post(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        try:
            self.limit(request)
        except AgentSiteError as exc:
            return refuse(request, exc)
        answer: HttpResponse = super().post(request, *args, **kwargs)  # type: ignore[misc]
        return answer


def refuse(request: HttpRequest, exc: AgentSiteError) -> HttpResponse:
    """Return the page for an `AgentSiteError(rate_limited)`, which says when to try again.

    Its status is 429, and `Retry-After` is set, to 0 if `exc` names no time.
    """
    seconds = exc.retry_after or 0
    answer = render(request, "429.html", {"minutes": ceil(seconds / 60)}, status=429)
    answer["Retry-After"] = f"{seconds:.0f}"
    return answer


class LoginView(LimitedMixin, views.LoginView):
    """Django's sign-in with a rate limit; what the browser's guest wrote moves to the account."""

    def limit(self, request: HttpRequest) -> None:
        limit_sign_in(request, request.POST.get("username", ""))

    def get_context_data(self, **kwargs: Any) -> dict[str, Any]:
        about = {"is_guest": is_guest(self.request.user), "may_sign_up": settings.ALLOW_SIGN_UP}
        return super().get_context_data(**about, **kwargs)

    def form_valid(self, form: AuthenticationForm) -> HttpResponse:
        allow_again(self.request, form.get_user().get_username())
        sign_in(self.request, form.get_user())
        return HttpResponseRedirect(self.get_success_url())


class SignUpView(LoginView):
    """Creates an account and signs the user in; what the browser's guest wrote moves there.

    404 unless ALLOW_SIGN_UP is on.
    """

    template_name = "registration/signup.html"
    authentication_form = SignUpForm  # type: ignore[assignment]

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        """Answer 404 unless ALLOW_SIGN_UP is on."""
        if not settings.ALLOW_SIGN_UP:
            raise Http404
        return super().dispatch(request, *args, **kwargs)

    def limit(self, request: HttpRequest) -> None:
        limit_sign_up(request)

    def get_form_kwargs(self) -> dict[str, Any]:
        kwargs = super().get_form_kwargs()
        del kwargs["request"]
        return kwargs

    @method_decorator(transaction.atomic)
    def form_valid(self, form: SignUpForm) -> HttpResponse:  # type: ignore[override]
        try:
            with transaction.atomic():
                user = form.save()
        except IntegrityError:  # the name was taken after the form was checked
            name = UserModel.USERNAME_FIELD
            form.add_error(name, form.instance.unique_error_message(UserModel, (name,)))
            return self.form_invalid(form)  # type: ignore[arg-type]
        sign_in(self.request, user)
        return HttpResponseRedirect(self.get_success_url())


MAILS = ThreadPoolExecutor(1, "mails")
"""Sends mails behind the answers to requests; the process waits for it at its end."""

MAILS_WAITING = 100
mail_places = BoundedSemaphore(MAILS_WAITING)


class PasswordResetForm(auth_forms.PasswordResetForm):
    """Django's form, without waiting for the mail: its time would show that there is an account."""

    def send_mail(self, *args: Any, **kwargs: Any) -> None:
        """Have the mail sent by `MAILS`; if `MAILS_WAITING` mails wait, it is only logged."""
        places = mail_places
        if not places.acquire(blocking=False):
            logger.error("a mail was not sent: %d wait", MAILS_WAITING)
            return
        sending = MAILS.submit(super().send_mail, *args, **kwargs)
        sending.add_done_callback(lambda sent: _end_mail(sent, places))


def _end_mail(sent: Future[None], places: BoundedSemaphore) -> None:
    places.release()
    if (exc := sent.exception()) is not None:
        logger.error("a mail was not sent: %s", describe(exc, is_private=True))


class PasswordResetView(LimitedMixin, views.PasswordResetView):
    """Django's password reset, with limits on the mails to one mailbox and from one client.

    Requests for a mailbox that no account has are counted too, and answered alike.
    """

    form_class = PasswordResetForm

    def limit(self, request: HttpRequest) -> None:
        limit_mail(request, request.POST.get("email", ""))


class PasswordChangeView(LimitedMixin, views.PasswordChangeView):
    """Django's password change, with a limit on wrong guesses of the current password.

    It is the limit on signing in as this user, which counts each attempt; a change that succeeds
    resets it.
    """

    def limit(self, request: HttpRequest) -> None:
        limit_sign_in(request, request.user.get_username())

    def form_valid(self, form: Any) -> HttpResponse:
        allow_again(self.request, self.request.user.get_username())
        return super().form_valid(form)


def admin_password_change(request: HttpRequest) -> HttpResponse:
    """The admin's password change, with the limit on attempts that `PasswordChangeView` has."""
    if request.method != "POST" or not request.user.is_authenticated:
        return admin.site.admin_view(admin.site.password_change)(request)
    try:
        limit_sign_in(request, request.user.get_username())
    except AgentSiteError as exc:
        return refuse(request, exc)
    answer = admin.site.admin_view(admin.site.password_change)(request)
    if answer.status_code == 302:
        allow_again(request, request.user.get_username())
    return answer


def admin_login(request: HttpRequest) -> HttpResponse:
    """The admin's sign-in, with the limit that `LoginView` has.

    Unlike that, it does not move a guest's conversations to the account.
    """
    if request.method != "POST":
        return admin.site.login(request)
    try:
        limit_sign_in(request, request.POST.get("username", ""))
    except AgentSiteError as exc:
        return refuse(request, exc)
    answer = admin.site.login(request)
    if answer.status_code == 302:
        allow_again(request, request.user.get_username())
    return answer


def sign_in(request: HttpRequest, user: Any) -> None:
    """Sign `user` in, after moving what the browser's guest has to the account.

    The guest is deleted. A user other than a guest who was signed in before is signed out.
    """
    if request.user.is_authenticated and is_guest(request.user):
        adopt_guest(request.user, user)
    login(request, user, backend=BACKEND)


@require_POST
@never_cache
def guest(request: HttpRequest) -> JsonResponse:
    """Sign a visitor in as a new guest; return `{"user", "csrf_token"}`, the user by id.

    Users and guests who are signed in stay so. Answers 401 if the site has no guests, 429 beyond
    the limit on new accounts from one address.
    """
    if not request.user.is_authenticated:
        if not settings.ALLOW_GUESTS:
            return JsonResponse(error_body(ErrorCode.NOT_AUTHENTICATED), status=401)
        try:
            limit_sign_up(request)
        except AgentSiteError as exc:
            return JsonResponse(error_body(exc.code), status=exc.info.http_status)
        login(request, create_guest(), backend=BACKEND)
    return JsonResponse({"user": str(request.user.pk), "csrf_token": get_token(request)})


urlpatterns = [
    path("accounts/login/", LoginView.as_view(), name="login"),
    path("accounts/logout/", views.LogoutView.as_view(), name="logout"),
    path("accounts/signup/", SignUpView.as_view(), name="signup"),
    path("accounts/guest/", guest, name="guest"),
    path(
        "accounts/password/change/",
        PasswordChangeView.as_view(),
        name="password_change",
    ),
    path(
        "accounts/password/changed/",
        views.PasswordChangeDoneView.as_view(),
        name="password_change_done",
    ),
    path("accounts/password/reset/", PasswordResetView.as_view(), name="password_reset"),
    path(
        "accounts/password/reset/sent/",
        views.PasswordResetDoneView.as_view(),
        name="password_reset_done",
    ),
    path(
        "accounts/password/reset/<uidb64>/<token>/",
        views.PasswordResetConfirmView.as_view(),
        name="password_reset_confirm",
    ),
    path(
        "accounts/password/reset/done/",
        views.PasswordResetCompleteView.as_view(),
        name="password_reset_complete",
    ),
]


View = Callable[..., HttpResponse]

SCOPES = [
    (Scope.READ.value, gettext_lazy("Read conversations")),
    (Scope.WRITE.value, gettext_lazy("Write messages and change conversations")),
    (Scope.EXPORT.value, gettext_lazy("Export transcripts")),
    (Scope.APPROVE.value, gettext_lazy("Approve tool calls in your place")),
    (Scope.SHARE.value, gettext_lazy("Share conversations by link")),
]
TERMS = [
    (30, gettext_lazy("30 days")),
    (90, gettext_lazy("90 days")),
    (365, gettext_lazy("A year")),
]


class KeyForm(forms.Form):
    """The form of a new key: its name, scopes (at least one) and lifetime in days."""

    name = forms.CharField(
        label=gettext_lazy("Name"),
        max_length=ApiKey._meta.get_field("name").max_length,
        help_text=gettext_lazy("The program or computer it is for, such as “backup”."),
    )
    scopes = forms.MultipleChoiceField(
        label=gettext_lazy("It may"),
        choices=SCOPES,
        initial=[Scope.READ.value],
        widget=forms.CheckboxSelectMultiple,
    )
    days = forms.TypedChoiceField(
        label=gettext_lazy("It is good for"), choices=TERMS, coerce=int, initial=365
    )


def for_accounts(view: View) -> View:
    """Return `view` for users with an account only.

    Visitors are redirected to sign in and guests to sign up, and from there to the page of keys.
    """

    @wraps(view)
    def checked(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        back = resolve_url("keys")
        if not request.user.is_authenticated:
            return redirect_to_login(back)
        if is_guest(request.user):
            return redirect_to_login(back, resolve_url("signup"))
        return view(request, *args, **kwargs)

    return checked


@require_http_methods(["GET", "HEAD", "POST"])
@never_cache
@for_accounts
def keys(request: HttpRequest) -> HttpResponse:
    """Show the user's valid API keys and the form of a new one; a POST of the form creates it.

    Only the answer to that POST contains the new key's full text.
    """
    form = KeyForm(request.POST or None)
    if request.method == "POST" and form.is_valid() and (text := _make(request, form)):
        return _show(request, KeyForm(), made=text)
    return _show(request, form)


def _make(request: HttpRequest, form: KeyForm) -> str:
    """Create a key and return its full text, or add an error to the form and return ""."""
    try:
        return create_key(user=request.user, **form.cleaned_data)[1]
    except AgentSiteError:
        form.add_error(None, _("You have as many keys as one may have. Revoke one first."))
        return ""


def _show(request: HttpRequest, form: KeyForm, made: str = "") -> HttpResponse:
    held = [
        (key, [label for scope, label in SCOPES if scope in key.scopes])
        for key in list_keys(request.user)
    ]
    return render(request, "keys.html", {"form": form, "held": held, "made": made})


@require_POST
@for_accounts
def revoke(request: HttpRequest, key_id: UUID) -> HttpResponse:
    """Revoke one of the user's keys and redirect to their list; 404 if it is not a valid one."""
    try:
        revoke_key(user=request.user, key_id=str(key_id))
    except AgentSiteError as exc:
        raise Http404 from exc
    messages.success(request, _("The key is revoked. Programs that used it are refused now."))
    return redirect("keys")


class OwnLocaleMiddleware(LocaleMiddleware):
    """Chooses the language of a page, and the time zone that it is rendered in.

    The language is that of the account, else the one that the browser asks for; the zone is the one
    that `static/theme.js` keeps in the cookie `ZONE_COOKIE`, else UTC. The REST API speaks the
    language that the request asks for, and its times are in UTC. `request.preferences` are the
    user's own settings, read when they are needed.
    """

    def process_request(self, request: Any) -> None:
        super().process_request(request)
        request.preferences = SimpleLazyObject(lambda: get_preferences(request.user))
        if request.path_info.startswith("/api/"):
            timezone.activate(UTC)
            return
        own = request.preferences.language
        if own in dict(settings.LANGUAGES):
            translation.activate(own)
            request.LANGUAGE_CODE = own
        timezone.activate(_find_zone(request.COOKIES.get(ZONE_COOKIE, "")))


ZONE_COOKIE = "agentsite_zone"


@cache
def _list_zones() -> set[str]:
    return zoneinfo.available_timezones()


def _find_zone(name: str) -> tzinfo:
    return zoneinfo.ZoneInfo(name) if name in _list_zones() else UTC


LANGUAGES = [("", gettext_lazy("As the browser asks")), *settings.LANGUAGES]
AS_THE_SITE = ("", gettext_lazy("As the site chooses"))
THEMES = [("", gettext_lazy("As chosen on each device")), *Theme.choices]
ENTER_KEYS = [
    ("", gettext_lazy("Sends with a keyboard, makes a new line on a touch screen")),
    *EnterKey.choices,
]


class SettingsForm(forms.ModelForm):
    """The form of a user's own settings."""

    language = forms.ChoiceField(label=gettext_lazy("Language"), choices=LANGUAGES, required=False)
    theme = forms.ChoiceField(label=gettext_lazy("Colours"), choices=THEMES, required=False)
    enter = forms.ChoiceField(label=gettext_lazy("Enter key"), choices=ENTER_KEYS, required=False)
    agent = forms.ChoiceField(
        label=gettext_lazy("Agent of new conversations"),
        choices=lambda: [AS_THE_SITE, *((card.name, card.label) for card in list_cards())],
        required=False,
    )

    class Meta:
        model = Preferences
        fields = (
            *("language", "theme", "enter", "agent", "instructions"),
            *("keeps_going", "push_text"),
        )
        help_texts = {
            "instructions": gettext_lazy(
                "What every reply should heed, such as “Answer briefly, in metric units”. The "
                "model is given this with each of your messages; nobody else sees it."
            ),
            "keeps_going": gettext_lazy(
                "Otherwise a reply stops a few minutes after its last page was closed."
            ),
        }
        widgets = {
            "instructions": forms.Textarea(
                {"rows": 4, "dir": "auto", "maxlength": INSTRUCTIONS_LENGTH}
            )
        }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if not has_push():
            del self.fields["push_text"]


@require_http_methods(["GET", "HEAD", "POST"])
@never_cache
@login_required
def own_settings(request: HttpRequest) -> HttpResponse:
    """Show a user's own settings, and what they have used; a POST of the form saves the settings.

    Guests have settings too, which move to the account that they sign up for.
    """
    form = SettingsForm(request.POST or None, instance=get_preferences(request.user))
    if request.method == "POST" and form.is_valid():
        save_preferences(request.user, **form.cleaned_data)
        # Rendered by the next request, in the language that was chosen.
        return redirect(f"{resolve_url('settings')}?saved")
    context = {
        "form": form,
        "saved": "saved" in request.GET and not form.is_bound,
        "push_key": push_public_key(),
        "total": read_user_totals(request.user.pk),
        "day": read_budget(request.user.pk, chat_limits()),
    }
    return render(request, "settings.html", context)


urlpatterns += [
    path("accounts/settings/", own_settings, name="settings"),
    path("accounts/keys/", keys, name="keys"),
    path("accounts/keys/<uuid:key_id>/revoke/", revoke, name="revoke_key"),
]
