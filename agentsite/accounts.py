"""Sign-up, sign-in and guests; a guest who signs up or in takes the conversations along."""

from math import ceil
from typing import Any

from django.conf import settings
from django.contrib import admin
from django.contrib.auth import get_user_model, login, views
from django.contrib.auth.forms import AuthenticationForm, BaseUserCreationForm, UserCreationForm
from django.db import IntegrityError, transaction
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect, JsonResponse
from django.http.response import HttpResponseBase
from django.middleware.csrf import get_token
from django.shortcuts import render
from django.urls import path
from django.utils.decorators import method_decorator
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_POST

from conversations.api_errors import error_body
from conversations.errors import AgentSiteError, ErrorCode
from conversations.guests import adopt_guest, create_guest, is_guest
from conversations.sign_in_limits import allow_again, limit_mail, limit_sign_in, limit_sign_up

UserModel = get_user_model()
BACKEND = settings.AUTHENTICATION_BACKENDS[0]


class SignUpForm(UserCreationForm):
    """A name, an address to reset the password with, and a password."""

    class Meta(BaseUserCreationForm.Meta):
        model = UserModel
        fields = (UserModel.USERNAME_FIELD, UserModel.get_email_field_name())


class LimitedMixin:
    """A form that may be sent only so often; above that, a page that says when to come back."""

    def limit(self, request: HttpRequest) -> None:
        """Raises `AgentSiteError(rate_limited)`."""
        raise NotImplementedError

    def post(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        try:
            self.limit(request)
        except AgentSiteError as exc:
            return refuse(request, exc)
        answer: HttpResponse = super().post(request, *args, **kwargs)  # type: ignore[misc]
        return answer


def refuse(request: HttpRequest, exc: AgentSiteError) -> HttpResponse:
    """The page that says when to come back, for an `AgentSiteError(rate_limited)`."""
    seconds = exc.retry_after or 0
    answer = render(request, "429.html", {"minutes": ceil(seconds / 60)}, status=429)
    answer["Retry-After"] = f"{seconds:.0f}"
    return answer


class LoginView(LimitedMixin, views.LoginView):
    """Django's own; it knows when a guest comes."""

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
    """Makes an account and signs it in."""

    template_name = "registration/signup.html"
    authentication_form = SignUpForm  # type: ignore[assignment]

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        """A page that is not there, where staff alone make accounts."""
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
        except IntegrityError:  # the form was sent twice at once, or somebody was faster
            name = UserModel.USERNAME_FIELD
            form.add_error(name, form.instance.unique_error_message(UserModel, (name,)))
            return self.form_invalid(form)  # type: ignore[arg-type]
        sign_in(self.request, user)
        return HttpResponseRedirect(self.get_success_url())


class PasswordResetView(LimitedMixin, views.PasswordResetView):
    """Django's own; it fills nobody's mailbox."""

    def limit(self, request: HttpRequest) -> None:
        limit_mail(request, request.POST.get("email", ""))


class PasswordChangeView(LimitedMixin, views.PasswordChangeView):
    """Django's own; who has found an open browser does not guess the password there."""

    def limit(self, request: HttpRequest) -> None:
        limit_sign_in(request, request.user.get_username())

    def form_valid(self, form: Any) -> HttpResponse:
        allow_again(self.request, self.request.user.get_username())
        return super().form_valid(form)


def admin_password_change(request: HttpRequest) -> HttpResponse:
    """The admin's own page, where guessing ends as it does on the site's."""
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
    """The admin's own page, where guessing ends as it does on the site's."""
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
    """Sign `user` in; what this browser did as a guest becomes theirs."""
    if request.user.is_authenticated and is_guest(request.user):
        adopt_guest(request.user, user)
    login(request, user, backend=BACKEND)


@require_POST
@never_cache
def guest(request: HttpRequest) -> JsonResponse:
    """Make the visitor a guest, at their first message: `{"user", "csrf_token"}`."""
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
