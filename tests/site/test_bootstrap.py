"""scripts/: what `make` does before the project itself runs."""

import ast
import json
import os
import re
import runpy
import shutil
import socket
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import bundling
import libraries
import npm
import pytest
from bootstrap import complaint_about
from chromium import find_chromium
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from playwright.sync_api import sync_playwright
from supply import LOCKED
from tasks import main
from venvs import SetupError, Venv

from tests.support.processes import free_port
from tests.support.site import ROOT


@pytest.fixture
def checkout(tmp_path):
    """What of the project the set-up needs, elsewhere."""
    shutil.copytree(ROOT / "scripts", tmp_path / "scripts")
    for path in [*ROOT.glob("*.txt"), ROOT / "Makefile"]:
        shutil.copy(path, tmp_path)
    return tmp_path


def bootstrap(checkout: Path, *arguments: str, python: str = sys.executable, **names: str):
    """The set-up without any settings for pip but these."""
    return subprocess.run(
        [python, "scripts/bootstrap.py", *arguments],
        check=False,
        cwd=checkout,
        env={"PATH": os.environ["PATH"], "PIP_CONFIG_FILE": os.devnull, **names},
        capture_output=True,
        text=True,
    )


def test_which_pythons_will_do():
    assert complaint_about((3, 11, 0)) is None
    assert complaint_about((4, 0, 0)) is None
    assert "3.11 or newer is needed, this is 3.10" in complaint_about((3, 10, 14))


def test_any_python_can_read_the_first_file():
    tree = ast.parse((ROOT / "scripts" / "bootstrap.py").read_text())
    modern = (ast.JoinedStr, ast.AnnAssign, ast.NamedExpr, ast.Match, ast.AsyncFunctionDef)
    assert not [node for node in ast.walk(tree) if isinstance(node, modern)]
    assert not [node for node in ast.walk(tree) if getattr(node, "annotation", None)]


def test_an_old_python_is_told_in_one_line(monkeypatch):
    monkeypatch.setattr(sys, "version_info", (3, 9, 1))
    with pytest.raises(SystemExit, match=r"^agentsite: Python 3\.11 or newer is needed, .*$"):
        runpy.run_path(str(ROOT / "scripts" / "bootstrap.py"), run_name="__main__")


@pytest.mark.parametrize("task", ["run", "cluster"])
def test_a_port_in_use_is_told_before_anything_else(checkout, task):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = bootstrap(checkout, task, PORT=str(port))
    assert done.returncode == 1
    assert done.stderr == (
        f"agentsite: cannot listen on 127.0.0.1:{port}: Address already in use; "
        f"try make {task} PORT=8001\n"
    )
    assert not (checkout / ".venv").exists()


def test_no_network_is_told_in_one_line(checkout):
    index = f"http://127.0.0.1:{free_port()}/simple/"
    done = bootstrap(
        checkout, "run", PORT="0", PIP_INDEX_URL=index, PIP_RETRIES="1", PIP_NO_CACHE_DIR="1"
    )
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith(
        "agentsite: installing requirements.txt failed: "
        "the package index cannot be reached; check the network; see "
    )
    assert "NewConnectionError" in Path(line.rpartition("; see ")[2]).read_text()


def test_an_unknown_task():
    assert main(["dance"]) == 2


@pytest.fixture(scope="module")
def venv(tmp_path_factory) -> Venv:
    """Made where another Python's was."""
    venv = Venv(tmp_path_factory.mktemp("checkout") / ".venv" / "3.x")
    venv.home.mkdir(parents=True)
    (venv.home / "made-by").write_text("another Python")
    (venv.home / "leftover").touch()
    venv.create()
    return venv


class TestVenv:
    def test_of_another_python_is_replaced(self, venv):
        assert venv.python.exists()
        assert not (venv.home / "leftover").exists()

    def test_is_made_once(self, venv):
        marker = venv.home / "marker"
        marker.touch()
        venv.create()
        assert marker.exists()

    def test_pip_runs_only_when_something_changed(self, venv, tmp_path, capfd):
        wanted = tmp_path / "wanted.txt"
        for text, runs in [("", 1), ("", 0), ("# changed\n", 1), ("# changed\n", 0)]:
            wanted.write_text(text)
            venv.install(wanted)
            assert capfd.readouterr().out.count("installing") == runs

    def test_a_missing_package_is_named(self, venv, tmp_path, monkeypatch):
        wanted = tmp_path / "wanted.txt"
        wanted.write_text("agentsite-no-such-package==1\n")
        monkeypatch.setenv("PIP_NO_INDEX", "1")
        with pytest.raises(Exception, match="No matching distribution found for agentsite-no-such"):
            venv.install(wanted)


class TestLocks:
    def test_everything_has_a_version_and_hashes(self):
        for name, *_ in LOCKED:
            for line in locked_lines(name):
                requirement, *hashes = line.split(" --hash=")
                assert exact_version(Requirement(requirement)), line
                assert hashes, line
                assert all(re.fullmatch(r"sha256:[0-9a-f]{64}", it) for it in hashes), line

    def test_pip_finds_nothing_but_them(self):
        """No option names an index or allows what has no hash."""
        for path in ROOT.glob("requirements*.txt"):
            assert path.name in {name for name, *_ in LOCKED}
            assert not [line for line in path.read_text().splitlines() if line.startswith("-")]

    @pytest.mark.parametrize(
        ("name", "groups"),
        [
            ("requirements.txt", ["site"]),
            ("requirements-build.txt", ["build"]),
            ("requirements-servers.txt", ["servers"]),
            ("requirements-dev.txt", ["site", "build", "servers", "dev"]),
            ("requirements-weights.txt", ["weights"]),
            ("requirements-tools.txt", ["tools"]),
        ],
    )
    def test_they_hold_what_is_asked_for(self, name, groups):
        """After a change of pyproject.toml: `make lock`."""
        project = tomllib.loads((ROOT / "pyproject.toml").read_text())
        asked = {"site": project["project"]["dependencies"], **project["dependency-groups"]}
        wanted = [line for group in groups for line in asked[group] if isinstance(line, str)]
        held = locked(name)
        for requirement in map(Requirement, wanted):
            assert exact_version(requirement), requirement
            assert exact_version(requirement) in held[canonicalize_name(requirement.name)]

    def test_they_agree(self):
        held = locked("requirements-dev.txt")
        for name in ("requirements.txt", "requirements-build.txt", "requirements-servers.txt"):
            assert locked(name).items() <= held.items()

    def test_what_was_changed_on_the_way_is_not_installed(self, venv, tmp_path, monkeypatch):
        """A wheel of the right name and version with other bytes."""
        [line] = [it for it in locked_lines("requirements.txt") if it.startswith("asgiref==")]
        [version] = locked("requirements.txt")["asgiref"]
        with zipfile.ZipFile(tmp_path / f"asgiref-{version}-py3-none-any.whl", "w") as archive:
            about = f"asgiref-{version}.dist-info"
            archive.writestr(
                f"{about}/METADATA", f"Metadata-Version: 2.1\nName: asgiref\nVersion: {version}\n"
            )
            archive.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
            archive.writestr(f"{about}/RECORD", "")
        wanted = tmp_path / "wanted.txt"
        wanted.write_text(line)
        monkeypatch.setenv("PIP_NO_INDEX", "1")
        monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
        with pytest.raises(SetupError):
            venv.install(wanted)
        assert "THESE PACKAGES DO NOT MATCH THE HASHES" in (venv.home / "pip.log").read_text()


def locked_lines(name: str) -> list[str]:
    """A lock's entries, each in one line."""
    text = (ROOT / name).read_text().replace(" \\\n   ", "")
    return [line for line in text.splitlines() if not line.startswith("#")]


def locked(name: str) -> dict[str, set[str]]:
    """The versions of each package: several where that depends on the machine."""
    found: dict[str, set[str]] = {}
    for line in locked_lines(name):
        requirement = Requirement(line.partition(" --hash=")[0])
        versions = found.setdefault(canonicalize_name(requirement.name), set())
        versions.add(exact_version(requirement))
    return found


def exact_version(requirement: Requirement) -> str:
    """The one version that is allowed, else an empty text."""
    found = re.fullmatch(r"==([\w.]+)", str(requirement.specifier))
    return found[1] if found else ""


def assert_portable(path: Path) -> None:
    """A lock of npm that says what, and not from where."""
    packages = [e for name, e in json.loads(path.read_text())["packages"].items() if name]
    assert packages
    assert all(entry["integrity"].startswith("sha512-") for entry in packages)
    assert not [entry for entry in packages if "resolved" in entry]


class TestChromium:
    def test_lock_has_hashes_and_no_hosts(self):
        assert_portable(ROOT / "tests" / "browser" / "package-lock.json")

    def test_without_npm_the_systems_own_is_taken(self, tmp_path, monkeypatch, capsys):
        system = tmp_path / "bin" / "chromium"
        system.parent.mkdir()
        system.write_text("#!/bin/sh\n")
        system.chmod(0o755)
        monkeypatch.delenv("AGENTSITE_CHROMIUM", raising=False)
        monkeypatch.setenv("PATH", str(system.parent))
        monkeypatch.setenv("npm_config_registry", f"http://127.0.0.1:{free_port()}/")
        monkeypatch.setenv("npm_config_cache", str(tmp_path / "npm"))
        monkeypatch.setattr(npm, "PAUSE_S", 0.1)
        found = find_chromium(
            Venv(Path(sys.prefix)), ROOT / "tests" / "browser", tmp_path / "cache"
        )
        assert found == str(system)
        assert npm.UNREACHABLE in capsys.readouterr().out

    def test_the_one_that_was_brought_draws(self):
        path = os.environ.get("AGENTSITE_CHROMIUM")
        if not path:
            pytest.skip("no Chromium; `make test` brings one")
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
            page = browser.new_page(viewport={"width": 40, "height": 30})
            page.set_content("<body bgcolor='#00f'><script>document.title = 6 * 7</script>")
            assert page.title() == "42"
            assert page.screenshot().startswith(b"\x89PNG")
            browser.close()


class TestModelServer:
    def test_lock_has_hashes_and_no_hosts(self):
        assert_portable(ROOT / "tests" / "model_servers" / "aimock" / "package-lock.json")

    def test_is_fetched_once(self, tmp_path, monkeypatch):
        calls = []
        monkeypatch.setattr(npm, "install", lambda *arguments: calls.append(arguments))
        for _ in range(2):
            npm.bring(Venv(tmp_path), tmp_path, tmp_path / "aimock-1.2", "it")
        assert len(calls) == 1
        assert (tmp_path / "aimock-1.2").is_dir()


class TestLibraries:
    def test_lock_has_hashes_and_no_hosts(self):
        assert_portable(ROOT / "package-lock.json")

    def test_are_fetched_once(self, tmp_path, monkeypatch):
        calls = []

        def install(venv, sources, target, log):
            calls.append(target)
            for source in libraries.SERVED.values():
                path = target / "node_modules" / source
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text("let a;\n//# sourceMappingURL=a.map\n")

        monkeypatch.setattr(npm, "install", install)
        monkeypatch.setattr(libraries, "TARGET", tmp_path / "vendor")
        for _ in range(2):
            libraries.bring(Venv(tmp_path))
        assert len(calls) == 1
        assert (tmp_path / "vendor" / "markdown-it.js").read_text() == "// @ts-nocheck\nlet a;\n"

    @pytest.mark.parametrize("answers", [True, False], ids=["silent", "closed"])
    def test_a_registry_out_of_reach_is_told_soon(self, tmp_path, monkeypatch, answers):
        monkeypatch.setattr(libraries, "TARGET", tmp_path / "vendor")
        monkeypatch.setenv("npm_config_cache", str(tmp_path / "npm"))
        monkeypatch.setattr(npm, "ANSWER_S", 1)
        monkeypatch.setattr(npm, "PAUSE_S", 0.1)
        with socket.create_server(("127.0.0.1", 0), backlog=50) as silent:
            port = silent.getsockname()[1] if answers else free_port()
            monkeypatch.setenv("npm_config_registry", f"http://127.0.0.1:{port}/")
            with pytest.raises(SetupError) as told:
                libraries.bring(Venv(Path(sys.prefix)))
        assert str(told.value).startswith(
            f"downloading the JavaScript libraries failed: {npm.UNREACHABLE}; see "
        )
        assert "\n" not in str(told.value)
        assert not (tmp_path / "vendor").exists()

    def test_npm_itself_is_not_waited_for_without_end(self, tmp_path, monkeypatch):
        monkeypatch.setattr(libraries, "TARGET", tmp_path / "vendor")
        monkeypatch.setenv("npm_config_cache", str(tmp_path / "npm"))
        monkeypatch.setattr(npm, "LIMIT_S", 1)
        with socket.create_server(("127.0.0.1", 0), backlog=50) as silent:
            address = f"http://127.0.0.1:{silent.getsockname()[1]}/"
            monkeypatch.setenv("npm_config_registry", address)
            with pytest.raises(SetupError, match="registry does not answer"):
                libraries.bring(Venv(Path(sys.prefix)))

    def test_the_bundle_is_made_anew_only_if_it_changes(self, tmp_path, monkeypatch):
        monkeypatch.setattr(bundling, "TARGET", tmp_path / "bundle")
        bundling.build()
        first = tmp_path.joinpath("bundle/chat/main.js").stat().st_ino
        bundling.build()
        assert tmp_path.joinpath("bundle/chat/main.js").stat().st_ino == first
        tmp_path.joinpath("bundle/chat/main.js").write_text("")
        bundling.build()
        assert tmp_path.joinpath("bundle/chat/main.js").stat().st_size > 10_000

    def test_without_esbuild_there_is_no_bundle(self, tmp_path, monkeypatch):
        monkeypatch.setattr(bundling, "TARGET", tmp_path / "bundle")
        monkeypatch.setattr(bundling, "program", lambda: tmp_path / "esbuild")
        bundling.build()
        assert not (tmp_path / "bundle").exists()

    def test_what_the_page_imports_is_served(self):
        script = (ROOT / "static" / "chat" / "markdown" / "finish" / "languages.js").read_text()
        imported = set(re.findall(r"vendor/languages/(\w+)\.js", script))
        assert imported == set(libraries.LANGUAGES)
