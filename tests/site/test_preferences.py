"""Settings of one's own: their page, their API, and what they do."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from agents import Agent, function_tool
from agents.testing import ScriptedModel, assistant_message, function_call
from django.contrib.auth.models import User
from django.core.cache import cache
from django.test import AsyncClient, Client
from django.utils import timezone, translation

from conversations.exports.formats import FORMATS
from conversations.models import INSTRUCTIONS_LENGTH, ChatSession, Preferences
from conversations.people.accounts import (
    adopt_guest,
    create_guest,
    get_preferences,
    save_preferences,
)
from conversations.people.privacy import erase_user, read_account
from conversations.runs import states
from conversations.runs.usage import ChatLimits, TokenUsage, read_budget
from realtime.process import Process
from realtime.registry import AgentEntry, unwatched_agents
from tests.support.agent_site import Serve
from tests.support.approvals import respond
from tests.support.chats import ask, begin, finish, make_user, talk
from tests.support.client import event
from tests.support.downloads import download
from tests.support.inprocess import open_chat_here
from tests.support.threads import in_thread

PAGE = "/accounts/settings/"
API = "/api/preferences/"
ADMIN = "/admin/conversations/chatsession/"
FORM = {"language": "", "theme": "", "enter": "", "agent": "", "instructions": ""}


@pytest.fixture(autouse=True)
def english_again() -> Iterator[None]:
    """A request in this thread leaves its language and zone behind."""
    yield
    translation.activate("en")
    timezone.deactivate()


@pytest.fixture
def ann(db: None) -> Any:
    cache.clear()
    return make_user("ann")


@pytest.fixture
def hers(client: Client, ann: Any) -> Client:
    client.force_login(ann)
    return client


def test_the_page_saves_them_and_other_devices_have_them(hers: Client, ann: Any) -> None:
    saved = hers.post(
        PAGE, FORM | {"language": "ar", "theme": "dark", "enter": "newline", "keeps_going": "on"}
    )
    assert saved["Location"] == f"{PAGE}?saved"
    other = Client()
    other.force_login(ann)
    html = other.get("/").content.decode()
    assert '<html lang="ar" dir="rtl" data-own-theme="dark"' in html
    assert '"enter": "newline"' in html
    assert get_preferences(ann).keeps_going
    assert "data-own-theme" not in Client().get("/accounts/login/").content.decode()


def test_what_is_not_offered_is_refused(hers: Client, ann: Any) -> None:
    for name, wrong in (("language", "tlh"), ("agent", "root"), ("instructions", "x" * 4_001)):
        assert hers.post(PAGE, FORM | {name: wrong}).status_code == 200, name
    for name, wrong in (
        ("language", "tlh"),
        ("theme", "pink"),
        ("instructions", "x" * 4_001),
        ("agent", "root"),
    ):
        answer = hers.patch(API, {name: wrong}, content_type="application/json")
        assert answer.status_code == 400, name
        assert [fault["field"] for fault in answer.json()["error"]["fields"]] == [name]
    assert INSTRUCTIONS_LENGTH == 4_000
    assert not Preferences.objects.exists()


def test_the_api_changes_what_is_given(hers: Client, ann: Any) -> None:
    hers.patch(API, {"instructions": "Be brief"}, content_type="application/json")
    hers.patch(API, {"theme": "light"}, content_type="application/json")
    told = hers.get(API).json()
    assert (told["theme"], told["enter"], told["language"]) == ("light", "", "")
    assert "Be brief" in told["instructions"]


@pytest.mark.django_db(transaction=True)
async def test_they_are_shown_to_nobody_else(ann: Any, settings: Any) -> None:
    settings.ALLOWED_HOSTS = ["*"]
    await in_thread(save_preferences, ann, instructions="CANARY of ann")
    session = await in_thread(talk, ann, ("hi", "hello"))
    ben = await in_thread(make_user, "ben")
    root = await in_thread(make_user, "root", is_staff=True, is_superuser=True)
    exports = [f"/api/export/?export_format={name}" for name in FORMATS]
    own = [API, PAGE, "/", *exports]
    staff = [f"{ADMIN}{session.pk}/change/", f"/admin/auth/user/{ann.pk}/change/", "/admin/"]
    reader = AsyncClient()
    for user, addresses in ((ann, exports), (ben, own), (root, [*own, *staff])):
        await reader.aforce_login(user)
        for address in addresses:
            answer = await download(reader, address)
            assert answer.status_code == 200, address
            assert b"CANARY" not in answer.body, address
    for name in FORMATS:
        answer = await download(reader, f"{ADMIN}export/", form={"export_format": name})
        assert answer.status_code == 200
        assert b"CANARY" not in answer.body, name
    answer = await download(reader, f"/admin/conversations/preferences/{ann.pk}/change/")
    assert answer.status_code == 404
    for user, text in ((ann, "CANARY of ann"), (root, "")):
        told = await in_thread(read_account, user)
        assert told["preferences"]["instructions"] == text


def test_they_move_with_a_guest_and_go_with_the_account(ann: Any) -> None:
    guest = create_guest()
    save_preferences(guest, theme="dark")
    adopt_guest(guest, ann)
    assert get_preferences(ann).theme == "dark"
    other = create_guest()
    save_preferences(other, theme="light")
    adopt_guest(other, ann)
    assert get_preferences(ann).theme == "dark"
    erase_user(ann)
    assert not Preferences.objects.exists()


async def test_instructions_go_to_the_model_in_ones_own_runs(
    process: Process, serve_agents: Serve, ada: User
) -> None:
    model = ScriptedModel([[assistant_message(text)] for text in ("one", "two", "three")])
    serve_agents(Agent(name="desk", instructions="You help.", model=model))
    await in_thread(save_preferences, ada, instructions="Answer in rhymes.")
    ben = await in_thread(make_user, "ben")
    async with open_chat_here(ada) as client:
        accepted = await client.chat("hi")
        await client.wait_end(accepted["run_id"])
        accepted = await client.chat("again", session_id=accepted["session_id"])
        await client.wait_end(accepted["run_id"])
    async with open_chat_here(ben) as client:
        accepted = await client.chat("hi")
        await client.wait_end(accepted["run_id"])
    given = [str(call.system_instructions) for call in model.calls]
    assert [text.startswith("You help.") for text in given] == [True] * 3
    assert ["Answer in rhymes." in text for text in given] == [True, True, False]


async def test_they_are_ones_own_too_where_a_reply_goes_on_after_an_approval(
    process: Process, serve_agents: Serve, ada: User
) -> None:
    model = ScriptedModel(
        [[function_call("erase", {}, call_id="call_1")], [assistant_message("Done")]]
    )
    erase = function_tool(lambda: "erased", name_override="erase", needs_approval=True)
    serve_agents(Agent(name="desk", instructions="You help.", model=model, tools=[erase]))
    await in_thread(save_preferences, ada, instructions="Answer in rhymes.")
    ben = await in_thread(make_user, "ben")
    await in_thread(save_preferences, ben, instructions="Be brief.")
    async with open_chat_here(ben) as client:
        accepted = await client.chat("erase it")
        asked = await client.wait_for(event("input.requested"))
        await respond(client, accepted, asked["metadata"]["request_id"], "approve")
        await client.wait_end(accepted["run_id"])
    given = [str(call.system_instructions) for call in model.calls]
    assert ["Be brief." in text for text in given] == [True, True]
    assert ["Answer in rhymes." in text for text in given] == [False, False]


def test_replies_go_on_where_their_user_or_agent_wants_it(
    ann: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for user in (ann, make_user("ben")):
        begin(ask(user, "hi"))
    ChatSession.objects.update(viewed_until=timezone.now() - timedelta(minutes=1))
    assert len(states.list_unwatched(timedelta(0))) == 2
    assert states.list_unwatched(timedelta(0), ["assistant"]) == []
    save_preferences(ann, keeps_going=True)
    assert len(states.list_unwatched(timedelta(0))) == 1
    entries = [AgentEntry(Agent(name="slow"), keeps_going=True), AgentEntry(Agent(name="quick"))]
    monkeypatch.setattr("realtime.registry.list_entries", lambda: entries)
    assert unwatched_agents() == ("slow",)


def test_usage_and_what_is_left_are_shown(hers: Client, ann: Any, settings: Any) -> None:
    settings.REALTIME = {**settings.REALTIME, "tokens_per_day": 1_500, "guest_tokens_per_day": 99}
    finish(ask(ann, "hi"), "Hello", usage=TokenUsage(1_000, 234))
    told = hers.get("/api/usage/").json()
    assert told["day"] == {"used": 1_234, "limit": 1_500, "left": 266}
    assert told["total"]["input_tokens"] == 1_000
    assert "266 of 1,500" in hers.get(PAGE).content.decode()
    limits = ChatLimits(tokens_a_day=1_500, guest_tokens_a_day=99)
    assert read_budget(create_guest().pk, limits).left == 99
    assert read_budget(ann.pk, ChatLimits()).left is None


def test_dates_are_in_the_zone_of_the_browser(hers: Client, ann: Any) -> None:
    for zone, offset in (("Asia/Kolkata", "+05:30"), ("../etc/passwd", "+00:00")):
        hers.cookies["agentsite_zone"] = zone
        html = hers.get(f"/s/{talk(ann, ('hi', 'hello')).pk}/").content.decode()
        assert offset in html


def test_times_of_the_api_are_in_no_zone_of_the_browser(hers: Client, ann: Any) -> None:
    ask(ann, "hi")
    hers.cookies["agentsite_zone"] = "Asia/Kolkata"
    hers.get("/")
    [session] = hers.get("/api/sessions/").json()["results"]
    assert session["active_at"].endswith("Z")


def test_the_agent_of_new_conversations_may_be_left_to_the_site(hers: Client, ann: Any) -> None:
    shown = hers.get(PAGE).content.decode()
    assert '<option value="" selected>As the site chooses</option>' in shown
