"""Every language that is offered has every text, and pages are in the reader's language."""

from collections.abc import Iterator
from typing import Any

import pytest
import translations
from django.conf import settings
from django.test import Client
from django.utils import timezone, translation
from django.utils.translation import gettext, ngettext, to_locale

from agentsite.web import view_models
from tests.support.chats import make_user

FOLDERS = translations.list_languages()


@pytest.fixture(autouse=True)
def english_again() -> Iterator[None]:
    """A request in this thread leaves its language and zone behind."""
    yield
    translation.activate(settings.LANGUAGE_CODE)
    timezone.deactivate()


def test_every_language_but_that_of_the_texts_has_a_catalogue() -> None:
    offered = {to_locale(code) for code, _name in settings.LANGUAGES}
    assert offered == {folder.name for folder in FOLDERS} | {"en"}


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_a_catalogue_is_complete_and_compiled(folder: Any) -> None:
    """See docs/development.md; `scripts/translations.py missing` lists the faults."""
    catalogue = translations.read_catalogue(folder)
    assert list(translations.list_faults(catalogue, translations.list_texts())) == []
    compiled = (folder / "LC_MESSAGES" / "django.mo").read_bytes()
    assert compiled == translations.compile_catalogue(catalogue)


def test_faults_are_found() -> None:
    catalogue = translations.read_catalogue(FOLDERS[0])
    one, many = "%(n)s page", "%(n)s pages"
    catalogue.add("Page {n}", "Seite")
    catalogue.add((one, many), ["", *["x %(n)s"] * (catalogue.num_plurals - 1)])
    catalogue.add("Gone", "Weg")
    found = list(translations.list_faults(catalogue, {"Page {n}", "New", (one, many)}))
    assert "other placeholders: 'Page {n}'" in found
    assert "missing: 'New'" in found
    assert f"missing: {(one, many)!r}" in found
    assert "not used: 'Gone'" in found


def test_plurals_are_those_of_the_language() -> None:
    with translation.override("ar"):
        forms = {ngettext("%d message", "%d messages", n) for n in (0, 1, 2, 3, 11, 100)}
    assert len(forms) == 5  # 11 and 100 messages are written alike.
    with translation.override("zh-hans"):
        assert ngettext("%d message", "%d messages", 1) == "%d 条消息"


@pytest.mark.django_db
def test_a_visitors_pages_are_in_the_language_of_the_browser() -> None:
    for asked, lang, text in (
        ("de-AT,en;q=0.5", "de", "Anmelden"),
        ("ar", "ar", "تسجيل الدخول"),
        ("zh-CN", "zh-hans", "登录"),
        ("tlh", "en", "Sign in"),
    ):
        page = Client(headers={"Accept-Language": asked}).get("/accounts/login/")
        html = page.content.decode()
        assert f'<html lang="{lang}" dir="{"rtl" if lang == "ar" else "ltr"}"' in html
        assert text in html
        assert "Accept-Language" in page["Vary"]


@pytest.mark.django_db
def test_texts_of_the_pages_script_are_translated() -> None:
    client = Client(headers={"Accept-Language": "fr"})
    client.force_login(make_user("ann"))
    assert "Vous avez arr\\u00eat\\u00e9 cette r\\u00e9ponse." in client.get("/").content.decode()
    with translation.override("es"):
        assert str(view_models.STATES["thinking"]) == gettext("thinking…") == "pensando…"
