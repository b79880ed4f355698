"""`manage.py chat`, as people and scripts use it."""

import io
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from agentsite.client.events import Disconnected, Reconnected
from agentsite.terminal import Screen
from tests.client.terminal import (
    CHAT,
    ENVIRONMENT,
    MANAGE_CHAT,
    as_user,
    begin_chat,
    run_chat,
    terminal,
)
from tests.support import provider as stand_in
from tests.support.approvals import erase, times_run
from tests.support.machine import scaled
from tests.support.provider import Gate, Provider, ToolCall, words
from tests.support.site import ROOT, Site, User, environment

ALONE = """
import runpy, sys

class NoDjango:
    def find_spec(name, *_):
        assert not name.startswith("django")

sys.meta_path.insert(0, NoDjango)
sys.argv[0] = "chat"
runpy.run_module("agentsite.terminal", run_name="__main__")
"""
CTRL_C, CTRL_D = "\x03", "\x04"


def session_in(remarks: str) -> str:
    found = re.search(r"conversation ([0-9a-f-]{36})", remarks)
    assert found, remarks
    return found[1]


class TestPiped:
    def test_a_message_and_another(self, site: Site, ann: User) -> None:
        asked = ["--url", site.origin, "--user", "ann"]
        done = run_chat(*asked, env=as_user(ann), said="hello\nyou\n", command=MANAGE_CHAT)
        assert (done.returncode, done.stdout) == (0, "You said: hello\nyou\n")
        session_id = session_in(done.stderr)
        again = run_chat(*asked, "--session", session_id, env=as_user(ann), said="and now?")
        assert (again.returncode, again.stdout) == (0, "You said: and now?\n")
        listed = run_chat(*asked, "--list", env=as_user(ann))
        assert re.search(rf"^{session_id}  \S+  hello", listed.stdout, re.MULTILINE)

    def test_what_goes_wrong_is_told_in_a_line(
        self, site: Site, ann: User, provider: Provider
    ) -> None:
        wrong = environment(AGENTSITE_PASSWORD="wrong")
        done = run_chat("--url", site.origin, "--user", "ann", env=wrong, said="hello")
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr == "· That name and password are not known here.\n"
        done = run_chat("--url", "http://127.0.0.1:1", env=wrong, said="hello")
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr == "· http://127.0.0.1:1 cannot be reached: connection refused\n"
        provider.queue(stand_in.Reply(error_status=400))
        asked = ["--url", site.origin, "--user", "ann"]
        done = run_chat(*asked, env=as_user(ann), said="hello")
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.startswith("· The model refused the request.\n· conversation ")
        done = run_chat(*asked, env=as_user(ann))
        assert (done.returncode, done.stderr) == (1, "· there is nothing to say\n")

    def test_nobody_can_approve(
        self, site: Site, ann: User, provider: Provider, tmp_path: Path
    ) -> None:
        provider.queue(stand_in.Reply(["I will."], tool_calls=[erase(tmp_path / "file")]))
        asked = ["--url", site.origin, "--user", "ann"]
        done = run_chat(*asked, env=as_user(ann), said="erase it")
        assert (done.returncode, done.stdout) == (1, "I will.\n")
        assert "· erase needs your approval. Erase a file." in done.stderr
        assert "· answer it on the page, or at a keyboard with --session" in done.stderr
        assert times_run(tmp_path / "file") == 0

    def test_a_terminal_obeys_no_model(self, site: Site, ann: User, provider: Provider) -> None:
        hostile = "\x1b]0;owned\x07\x1b[2J\x9b2J\rgone\u202eback\x00"
        call = ToolCall("look_up", json.dumps({"word": hostile}))
        first = stand_in.Reply([hostile, " "], tool_calls=[call], hang_after=1)
        provider.queue(first, stand_in.Reply([hostile]))
        asked = ("--url", site.origin, "--user", "ann")
        with begin_chat(*asked, env=as_user(ann), said="hello") as process:
            # Whoever is late is given a snapshot, which has no progress of a tool.
            begun = process.stdout.read(1)
            first.open()
            rest, notes = process.communicate()
        assert process.returncode == 0
        shown, noted = (begun + rest).decode(), notes.decode()
        assert "owned" in shown
        assert "Looking for" in noted
        assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", shown + noted)

    def test_what_is_too_long_is_told_at_once(self, site: Site, ann: User) -> None:
        asked = ["--url", site.origin, "--user", "ann"]
        for size in (70_000, 140_000, 3_000_000):
            done = run_chat(*asked, env=as_user(ann), said="x" * size)
            assert (done.returncode, done.stdout) == (1, "")
            assert done.stderr == "· The message is too long: this site takes 64 KB at most.\n"
        # Each of these signs counts three bytes, not six.
        done = run_chat(*asked, env=as_user(ann), said="字" * 15_000)
        assert done.returncode == 0, done.stderr

    def test_lines_and_marks_of_direction_stay_as_they_are(
        self, site: Site, ann: User, provider: Provider
    ) -> None:
        said = "one\r\n\u200fשלום\u200e two\r\n\u061cdone"
        provider.queue(stand_in.Reply(["one\r", said[4:12], said[12:]]))
        done = subprocess.run(
            [*CHAT, "--url", site.origin, "--user", "ann"],
            input=b"first\r\nsecond",
            env=as_user(ann) | {"PYTHONIOENCODING": "utf-8"},
            cwd=ROOT,
            check=False,
            capture_output=True,
        )
        assert done.stdout.decode() == said + "\n"
        assert provider.calls[-1].prompt == "first\r\nsecond"

    def test_who_stops_reading_is_no_error(self, site: Site, ann: User, provider: Provider) -> None:
        provider.queue(stand_in.Reply([f"{number}\n" for number in range(50_000)]))
        chat = subprocess.Popen(
            [*CHAT, "--url", site.origin, "--user", "ann"],
            env=as_user(ann),
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert chat.stdin
        assert chat.stdout
        assert chat.stderr
        chat.stdin.write(b"count")
        chat.stdin.close()
        assert chat.stdout.readline() == b"0\n"
        chat.stdout.close()
        told = chat.stderr.read().decode()
        assert chat.wait(scaled(60)) == 141
        assert "Traceback" not in told
        assert "Broken" not in told
        chat.stderr.close()

    def test_without_django_and_without_the_site(
        self, site: Site, ann: User, tmp_path: Path
    ) -> None:
        shutil.copytree(ROOT / "agentsite/client", tmp_path / "agentsite/client")
        shutil.copy(ROOT / "agentsite/terminal.py", tmp_path / "agentsite")
        done = subprocess.run(
            [sys.executable, "-c", ALONE, "--url", site.origin, "--user", "ann"],
            input="hello",
            env=as_user(ann) | {"PYTHONPATH": str(tmp_path)},
            cwd=tmp_path,
            check=False,
            capture_output=True,
            text=True,
        )
        assert (done.returncode, done.stdout) == (0, "You said: hello\n"), done.stderr


class TestExports:
    def test_to_a_file_and_to_the_next_program(self, site: Site, ann: User, tmp_path: Path) -> None:
        asked = ["--url", site.origin, "--user", "ann"]
        session_id = session_in(run_chat(*asked, env=as_user(ann), said="to be kept").stderr)
        one = [*asked, "--session", session_id, "--export"]
        piped = run_chat(*one, "text", env=as_user(ann))
        assert piped.returncode == 0
        assert "You said: to be kept" in piped.stdout
        file = tmp_path / "kept.json"
        filed = run_chat(*one, "json", "--output", str(file), env=as_user(ann))
        size = f"{file.stat().st_size:,}"
        assert (filed.stdout, filed.stderr) == ("", f"· {size} bytes in {file}\n")
        assert json.loads(file.read_text())["session"]["id"] == session_id
        nowhere = tmp_path / "nowhere" / "kept.json"
        failed = run_chat(*one, "json", "--output", str(nowhere), env=as_user(ann))
        assert (failed.returncode, failed.stderr.count("\n")) == (1, 1)
        assert "No such file or directory" in failed.stderr

    def test_by_a_key(self, site: Site, ann: User) -> None:
        made = {"name": "backup", "scopes": ["export"]}
        key = site.request("POST", "/api/keys/", user=ann, data=made).json()["key"]
        env = environment(AGENTSITE_KEY=key)
        done = run_chat("--url", site.origin, "--export", "jsonl", env=env)
        assert (done.returncode, done.stderr) == (0, "")
        assert all(json.loads(line) for line in done.stdout.splitlines())
        refused = run_chat("--url", site.origin, "--list", env=env)
        assert (refused.returncode, refused.stderr) == (1, "· That is not allowed.\n")


def test_a_lost_connection_is_told_in_few_lines() -> None:
    err = io.StringIO()
    screen = Screen(io.StringIO(), err)
    for event in (Disconnected(0.2), Disconnected(1.6), Reconnected(), Disconnected(0.4)):
        screen.show(event)
    assert err.getvalue().splitlines() == [
        "· connection lost, reconnecting",
        "· no connection yet, trying again in 2 s",
        "· reconnected",
        "· connection lost, reconnecting",
    ]


class TestTerminal:
    def test_a_visit(self, site: Site, provider: Provider) -> None:
        said = stand_in.Reply(words(30), gate=Gate(3))
        provider.queue(said)
        env = environment(**ENVIRONMENT)
        with terminal("--url", site.origin, env=env, command=MANAGE_CHAT) as screen:
            screen.sees("Ctrl-C stops a reply, Ctrl-D leaves")
            screen.sees("> ")
            screen.types("tell me\n")
            screen.sees("the river bends")
            screen.types(CTRL_C)
            screen.sees("stopping; Ctrl-C again leaves")
            screen.sees("stopped")
            screen.sees("> ")
            screen.types("hello\n")
            screen.sees("You said: hello")
            screen.sees("> ")
            screen.types(CTRL_D)
            assert screen.ends() == 0
            assert "go on with --session " in screen.shown
            assert "Traceback" not in screen.shown

    def test_an_approval_and_a_reply_that_is_gone_on_with(
        self, site: Site, ann: User, provider: Provider, tmp_path: Path
    ) -> None:
        file = tmp_path / "file"
        provider.queue(
            stand_in.Reply(["I will."], tool_calls=[erase(file)]),
            stand_in.Reply(["It is ", "gone."], hold=Gate()),
        )
        env = {name: value for name, value in as_user(ann).items() if name != "AGENTSITE_PASSWORD"}
        asked = ["--url", site.origin, "--user", "ann"]
        with terminal(*asked, env=env) as screen:
            screen.sees("Password of ann: ")
            screen.types(f"{ann.password}\n")
            screen.sees("> ")
            screen.types("erase it\n")
            screen.sees("erase needs your approval")
            screen.sees(str(file))
            screen.sees("Approve? [y/N] ")
            screen.types("y\n")
            screen.sees("approved by ann")
            screen.sees("used erase")
            os.killpg(screen.process.pid, 9)
            assert ann.password not in screen.shown
        assert times_run(file) == 1
        listed = run_chat(*asked, "--list", env=as_user(ann)).stdout
        session_id = next(line for line in listed.splitlines() if "(running)" in line).split()[0]
        with terminal(*asked, "--session", session_id, env=as_user(ann)) as screen:
            screen.sees("> erase it")
            screen.sees("I will.")
            provider.calls[-1].reply.open()
            screen.sees("It is gone.")
            screen.sees("> ")
            screen.types(CTRL_C)
            assert screen.ends() == 0


@pytest.mark.parametrize("given", [["--export", "pdf"], ["--list", "--export", "json"]])
def test_options_that_are_wrong(given: list[str]) -> None:
    done = run_chat(*given, env=environment())
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
