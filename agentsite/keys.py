"""The page on which people make and revoke the API keys of their programs."""

from collections.abc import Callable
from functools import wraps
from typing import Any
from uuid import UUID

from django import forms
from django.contrib import messages
from django.contrib.auth.views import redirect_to_login
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render, resolve_url
from django.urls import path
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods, require_POST

from conversations.api_keys import create_key, list_keys, revoke_key
from conversations.errors import AgentSiteError
from conversations.guests import is_guest
from conversations.models import ApiKey, Scope

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
    """What a new key is called, and what it may do."""

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
    """Who is not signed in is sent to do so; a guest, to make an account."""

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
    """Those that hold, and a form for another; its text is in the answer to that alone."""
    form = KeyForm(request.POST or None)
    if request.method == "POST" and form.is_valid() and (text := _make(request, form)):
        return _show(request, KeyForm(), made=text)
    return _show(request, form)


def _make(request: HttpRequest, form: KeyForm) -> str:
    """The new key's text; "" where that was refused, which the form tells of."""
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
    """End one of the user's keys."""
    try:
        revoke_key(user=request.user, key_id=str(key_id))
    except AgentSiteError as exc:
        raise Http404 from exc
    messages.success(request, _("The key is revoked. Programs that used it are refused now."))
    return redirect("keys")


urlpatterns = [
    path("accounts/keys/", keys, name="keys"),
    path("accounts/keys/<uuid:key_id>/revoke/", revoke, name="revoke_key"),
]
