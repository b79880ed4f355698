from django.conf import settings
from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render

from conversations.queries import list_sessions
from conversations.sessions.history import get_history
from conversations.sessions.rendering import read_joined_html


@login_required
def help_page(request: HttpRequest) -> HttpResponse:
    """The customer's latest conversation, or an empty one."""
    session = next(iter(list_sessions(request.user, 1)), None)
    history = get_history(session) if session else None
    run = history.run if history else None
    cursor = {"rev": history.rev} if history else {}
    if run:
        cursor |= {"run_id": run.run_id, "epoch": run.epoch, "seq": run.seq}
    data = {
        "socket": settings.SOCKET_PATH,
        "session_id": str(session.pk) if session else "",
        "cursor": cursor,
    }
    shown = history.messages if history else []
    html = read_joined_html(shown)
    messages = [(message, html.get(message.message_id, "")) for message in shown]
    return render(request, "mysite/help.html", {"messages": messages, "data": data})
