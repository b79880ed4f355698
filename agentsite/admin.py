"""The admin of users, where deleting a user erases all data of that person."""

from typing import Any

from django.contrib import admin, messages
from django.contrib.admin.utils import unquote
from django.contrib.auth import get_user_model
from django.contrib.auth.admin import UserAdmin
from django.core.exceptions import PermissionDenied
from django.db.models import ProtectedError, RestrictedError
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.utils.translation import gettext as _

from conversations.people.privacy import erase_user
from conversations.sessions.lists import all_of
from realtime.conf import is_deferring

UserModel = get_user_model()
CHANGE_LIST = "admin:auth_user_changelist"


class PersonAdmin(UserAdmin):
    """Django's user admin, which deletes one user at a time, as `manage.py erase_user` does."""

    def get_actions(self, request: HttpRequest) -> Any:
        """Return Django's actions without the bulk deletion, which would load every related row."""
        actions = super().get_actions(request)
        actions.pop("delete_selected", None)
        return actions

    def get_deleted_objects(self, objs: Any, request: HttpRequest) -> Any:
        """Return names and counts for the confirmation page, instead of every related object.

        The counts are those of users and of their sessions, deleted ones included. The last
        two values, missing permissions and protected rows, are always empty.
        """
        counts = {str(UserModel._meta.verbose_name_plural): len(objs)}
        counts[_("sessions")] = sum(all_of(user).count() for user in objs)
        return [str(user) for user in objs], counts, set(), []

    def delete_view(
        self, request: HttpRequest, object_id: str, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """Erase the user by `erase_user` on POST; else show a page that asks for confirmation.

        Works in small transactions, so that other writers are not blocked. An account that rows of
        another app protect stays, disabled and without its name; a message says that it stays. If
        runs are jobs, so is the erasure: here the account is only disabled.
        Raises `PermissionDenied`, and `Http404` for a user that does not exist.
        """
        if request.method != "POST":
            return super().delete_view(request, object_id, extra_context)
        user = self.get_object(request, unquote(object_id))
        if not self.has_delete_permission(request, user):
            raise PermissionDenied
        if user is None:
            raise Http404
        if is_deferring():
            # Import here: Procrastinate's Django app is installed with this executor only.
            from realtime.work.procrastinate_executor import defer_erasure

            defer_erasure(user, by=request.user)  # type: ignore[arg-type]
            messages.success(request, _("The account is disabled. A worker is erasing it."))
            return redirect(CHANGE_LIST)
        try:
            erase_user(user, by=request.user)  # type: ignore[arg-type]
        except (ProtectedError, RestrictedError):
            messages.error(request, _("All but the account, which is disabled, is erased."))
        else:
            messages.success(request, _("The account and all that it held is erased."))
        return redirect(CHANGE_LIST)


admin.site.unregister(UserModel)
admin.site.register(UserModel, PersonAdmin)
