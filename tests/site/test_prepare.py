"""`manage.py prepare`: tables, static files, the first admin."""

import hashlib
import io
import json
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from django.contrib.auth import authenticate, get_user_model
from django.contrib.staticfiles.finders import get_finder
from django.core.management import CommandError, call_command

from agentsite.management.commands import prepare
from tests.support.processes import run_warm
from tests.support.servers import scratch_dir
from tests.support.site import ROOT, environment, run_python

pytestmark = pytest.mark.django_db


def users():
    return get_user_model()._default_manager


def signs_in(username: str, password: str) -> bool:
    """Whether these open the admin."""
    user = authenticate(username=username, password=password)
    return user is not None and user.is_staff and user.is_superuser


def test_first_admin_is_made_once_and_shown_once(settings):
    settings.DEBUG = True
    said = prepare.ensure_admin()
    shown = re.fullmatch(
        r'admin account "admin" created, password: (\S+) \(shown only once\)', said
    )
    assert shown
    assert signs_in("admin", shown[1])
    assert prepare.ensure_admin() == 'admin account "admin" exists'
    assert users().count() == 1


def test_a_container_keeps_no_password_in_its_log(settings, tmp_path):
    settings.DEBUG, settings.STATIC_ROOT = False, tmp_path / "var/static"
    said = prepare.ensure_admin()
    path = tmp_path / "var/admin_password"
    assert (
        said
        == f'admin account "admin" created, password: in {path} (delete the file after reading it)'
    )
    assert path.stat().st_mode & 0o777 == 0o600
    assert signs_in("admin", path.read_text().strip())


def test_given_name_and_password(settings):
    settings.DJANGO_SUPERUSER_USERNAME = "root"
    settings.DJANGO_SUPERUSER_PASSWORD = "correct horse"
    assert (
        prepare.ensure_admin()
        == 'admin account "root" created, password: as set in DJANGO_SUPERUSER_PASSWORD'
    )
    assert signs_in("root", "correct horse")


def test_an_admin_by_another_name_is_enough():
    users().create_superuser("chief", password="x")
    assert prepare.ensure_admin() == 'admin account "chief" exists'


def test_an_ordinary_account_is_never_promoted():
    users().create_user("admin", password="x")
    with pytest.raises(CommandError, match="DJANGO_SUPERUSER_USERNAME"):
        prepare.ensure_admin()
    assert not users().filter(is_superuser=True).exists()


@pytest.fixture
def production(settings, tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    (source / "a.js").write_text('import { b } from "./b.js";\n')
    (source / "b.js").write_text("export const b = 1;\n")
    settings.STATICFILES_DIRS = [source]
    settings.STATICFILES_FINDERS = ["django.contrib.staticfiles.finders.FileSystemFinder"]
    settings.STATIC_ROOT = tmp_path / "root"
    settings.STORAGES = settings.STORAGES | {
        "staticfiles": {"BACKEND": "agentsite.apps.HashedFiles"}
    }
    return source


def collected(root: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in root.iterdir()}


def test_modules_import_hashed_names(production, settings):
    prepare.collect_static()
    root = Path(settings.STATIC_ROOT)
    (module,) = root.glob("b.*.js")
    (importer,) = root.glob("a.*.js")
    assert f'"./{module.name}"' in importer.read_text()


def test_static_files_are_collected_again_only_when_they_change(production, settings):
    root = Path(settings.STATIC_ROOT)
    prepare.collect_static()
    first = collected(root)
    prepare.collect_static()
    assert collected(root) == first
    (production / "b.js").write_text("export const b = 22;\n")
    prepare.collect_static()
    assert len(list(root.glob("b.*.js"))) == 2


def forget_finders() -> None:
    get_finder.cache_clear()  # type: ignore[attr-defined]


@pytest.fixture
def bundled(production, settings):
    """A source, and a bundle that was made from it."""
    settings.BASE_DIR = production.parent
    settings.STATICFILES_FINDERS = ["agentsite.apps.BundleFinder", *settings.STATICFILES_FINDERS]
    bundle = settings.BASE_DIR / "bundle"
    bundle.mkdir()
    (bundle / "a.js").write_text("bundled;\n")
    digest = hashlib.sha256((production / "b.js").read_bytes()).hexdigest()
    (bundle / ".inputs.json").write_text(json.dumps({"source/b.js": digest}))
    forget_finders()
    yield production
    forget_finders()


def collected_text(settings) -> str:
    prepare.collect_static()
    root = Path(settings.STATIC_ROOT)
    names = json.loads((root / "staticfiles.json").read_text())["paths"]
    return (root / str(names["a.js"])).read_text()


def test_a_bundle_of_these_sources_is_collected(bundled, settings):
    assert collected_text(settings) == "bundled;\n"
    assert not list(Path(settings.STATIC_ROOT).glob(".inputs*"))
    (bundled / "b.js").write_text("export const b = 22;\n")
    assert "import" in collected_text(settings)


def test_two_at_once_collect_once(production, settings):
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: prepare.collect_static(), range(8)))
    assert len(list(Path(settings.STATIC_ROOT).glob("*.js"))) == 4


def test_debug_serves_the_sources(client, settings, monkeypatch):
    settings.DEBUG = settings.SERVESTATIC_USE_FINDERS = True
    monkeypatch.setattr(prepare, "collect_static", pytest.fail)
    call_command("prepare", stdout=io.StringIO())
    answer = client.get("/static/admin/css/base.css")
    assert answer.status_code == 200
    assert answer["Content-Type"] == 'text/css; charset="utf-8"'


def test_a_new_database_from_nothing():
    with scratch_dir("prepare") as path:
        env = environment(
            DATABASE_URL=f"sqlite:///{path}/db.sqlite3",
            DEBUG="1",
            DJANGO_SUPERUSER_PASSWORD="",
        )
        first = run_python("-W", "error", "manage.py", "prepare", env=env)
        assert re.fullmatch(r'agentsite: admin account "admin" created, password: \S+ .*\n', first)
        second = run_warm("manage.py", "prepare", env=env, cwd=ROOT)
        assert second == 'agentsite: admin account "admin" exists\n'
