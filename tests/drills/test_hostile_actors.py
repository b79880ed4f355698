"""Six tenants, two processes, and whatever one can send: a state machine.

Three users, one of them with a cookie, a guest, a program with an API key and one whose sockets are
opened by tickets send valid, invalid and hostile frames, calls and forms, with ids of their own, of
each other and of nobody. Whatever they send, no socket is closed with 1011, no answer is a 5xx or
holds a byte of what another tenant wrote or owns, no call of the model holds what two of them
wrote, no notification reaches an address inside, and the memory of both processes stays flat.

`AGENTSITE_STEPS=10000 make test ARGS=tests/drills/test_hostile_actors.py` takes more steps.
"""

import contextlib
import http.client
import json
import os
import random
import re
import socket as sockets
import sys
from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import parse_qs, quote, urlencode, urlsplit

import hypothesis.strategies as st
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from conversations import webhooks
from conversations.exports.formats import FORMATS
from conversations.models import RunStatus
from realtime import wire_schema
from tests.drills.conftest import drill_site
from tests.support.addresses import routes
from tests.support.conformance import check_frame, frames_of, openapi
from tests.support.machine import STEPS, scaled
from tests.support.provider import Provider, Reply, ToolCall, echo
from tests.support.provider.script import Call
from tests.support.servers import Postgres, Valkey, scratch_dir
from tests.support.site import LOGIN_PATH, Answer, Site, User, prepared_database
from tests.support.variants import variants
from tests.support.waiting import TIMEOUT_S

STEP_COUNT = int(os.environ.get(STEPS, "300"))
STEPS_EACH, STEPS_SURE = 20, 16
"""Steps of one run of the machine, which begins with new sockets: at most, at least on average."""

RATIO = 1.2
"""What a process may hold at the end, by what it held after a tenth of the steps."""

INTERNAL_ERROR = 1011
LAST = 987_654_321
"""Of the last `ping` on a socket."""

STREAM_S = 0.1
"""How long a stream of frames over REST is read before its reader is gone."""

NAMES = ("ann", "ben", "carl", "guest", "kim", "tess")
WRONG = ("", "x", "../", "\0", "%00", "*", "null", "a" * 5_000, "ÄÖ\u202e", "0" * 32, "-1", "'--")
IDS = (
    *("session_id", "run_id", "message_id", "request_id", "share_id", "key_id"),
    *("client_message_id", "token", "word"),
)
MARKS = re.compile("zq[a-z]+qz")
UUIDS = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
IN_KEYS = re.compile(rf"/accounts/keys/({UUIDS.pattern})/revoke/")
IN_DOCUMENT, IN_ROUTE = re.compile(r"{(\w+)}"), re.compile(r"<(?:\w+:)?(\w+)>")
JSON, FORM = "application/json", "application/x-www-form-urlencoded"
PARTS = "multipart/form-data; boundary=x"
TYPES = (FORM, PARTS, "text/plain", f"{JSON}; charset=utf-16", "x")
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS")
AGENTS, BOTH = ("assistant", "specialist"), (False, True)
BROWSER = webhooks._encode(webhooks._point(ec.generate_private_key(ec.SECP256R1())))
SECRET = webhooks._encode(b"0123456789abcdef")
TIMES = ("2020-01-01T00:00:00Z", "2030-01-01")
QUERIES: dict[str, tuple[str, ...]] = {
    "export_format": tuple(FORMATS),
    "state": ("current", "archived", "all", "deleted"),
    "status": tuple(RunStatus.values),
    "agent": AGENTS,
    **dict.fromkeys(("active_after", "active_before", "created_after", "created_before"), TIMES),
    "page_size": ("1", "200"),
    "limit": ("1", "50"),
}
"""What a query may hold."""

FIELDS: dict[str, tuple[Any, ...]] = {
    "agent": AGENTS,
    **dict.fromkeys(("archived", "pinned", "wait", "keeps_going", "push_text"), BOTH),
    "language": ("", "en", "de", "ar"),
    "p256dh": (BROWSER,),
    "auth": (SECRET,),
    "scopes": (["read"], ["read", "write"], ["approve", "share", "export"]),
    "days": (1, 365),
    "position": (1, 2, 1_000),
    "rev": (0, 1, 5, 2**53),
    "epoch": (0, 1, 2),
    "seq": (0, 1, 9, 2**53),
    "ts": (1, 0.5, "now"),
}
"""What a field may hold that has one value in the examples, or none that is taken."""

UNDECLARED: dict[tuple[str, str], list[Any]] = {("delete", "/api/push/"): [{"endpoint": "x"}]}
"""Bodies that the OpenAPI document leaves out: it gives none to `DELETE`."""

ON_FORMS: dict[str, Any] = {
    "name": "x",
    "scopes": "read",
    "days": "30",
    "language": "de",
    "theme": "dark",
    "enter": "send",
    "instructions": "x",
    "agent": "specialist",
    "keeps_going": "on",
    "push_text": "on",
    "username": "x",
    "password": "x",
    "old_password": "x",
    # Two unlike ones: nobody here gets another account or password.
    "password1": "x",
    "password2": "y",
    "new_password1": "x",
    "new_password2": "y",
    "email": "nobody@example.invalid",
    "next": "https://example.invalid/",
}
"""The fields of all forms for people."""

OWN = (
    *("/api/preferences/", "/api/push/", "/api/usage/", "/api/export/"),
    *("/api/sessions/{session_id}/", "/api/sessions/{session_id}/transcript/"),
)
"""Addresses of what a user has chosen, used, and may take along."""

NEEDED = {
    *("GET /api/preferences/", "PATCH /api/preferences/", "POST /api/push/", "GET /api/usage/"),
    *("DELETE /api/push/", "GET /api/export/", "PATCH /api/sessions/*/", "POST /accounts/keys/"),
    "streams",
}
"""What many steps must have got through with at least once."""

MANY = 3_000
METRICS_TOKEN = "for-tests-only-" * 2
IN_METRICS = re.compile(r'^agentsite_pushes_total{result="(\w+)"} (\d+)', re.MULTILINE)


def templates(schema: Any, schemas: Any) -> list[Any]:
    """Objects of a declared type, with the names of ids in angle brackets in their place."""
    return list(variants(schema, {name: f"<{name}>" for name in IDS}, schemas))


def client_frames() -> list[Any]:
    document = wire_schema.asyncapi()
    schemas = document["components"]["schemas"]
    references = [it["$ref"] for it in document["operations"]["fromClient"]["messages"]]
    found = [
        template
        for reference in references
        for template in templates(schemas[reference.rpartition("/")[2]], schemas)
    ]
    # Both at once is refused, and would be half of all chats.
    both = {"parent_message_id", "regenerate"}
    return [frame for frame in found if not both <= frame.get("metadata", {}).keys()]


def operations() -> list[tuple[str, str, list[str], list[Any]]]:
    """Method, path, the names of what may stand in the query, and bodies."""
    found = []
    for path, methods in openapi()["paths"].items():
        for method, operation in methods.items():
            parameters = operation.get("parameters", ())
            query = [it["name"] for it in parameters if it["in"] == "query"]
            bodies: list[Any] = [None]
            if "requestBody" in operation:
                schema = operation["requestBody"]["content"]["application/json"]["schema"]
                bodies = templates(schema, openapi()["components"]["schemas"])
            bodies = UNDECLARED.get((method, path), bodies)
            found.append((method.upper(), path, query, bodies))
    return found


def pages() -> list[str]:
    """Addresses for people."""
    plain = [route.address for route in routes("/") if not re.search(r"[(^\\]", route.address)]
    others = ("/api/", "/accounts/logout", "/admin/logout")
    return [
        *(path for path in plain if not path.startswith(others)),
        *("/api/schema/", "/api/docs/", "/api/docs/?script=", "/api/asyncapi.json"),
        *("/api/protocol.d.ts", "/picture/?src=https://example.invalid/<word>", "/?search=<word>"),
        *("/s/<uuid:session_id>/?branch=<message_id>", "/s/<session_id>/?before=<message_id>"),
    ]


class Actor:
    """A tenant: how it signs in, what it has been told of, and the mark in all that it writes."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.mark = f"zq{name}qz"
        self.headers: dict[str, str] = {}
        self.cookie = ""
        self.known: dict[str, deque[str]] = defaultdict(lambda: deque(maxlen=30))
        self.owned: set[str] = set()
        self.sent = ""
        self.sockets: dict[int, ClientConnection] = {}

    def learn(self, value: Any) -> None:
        """Remember the ids in an answer."""
        if isinstance(value, list):
            for part in value:
                self.learn(part)
        elif isinstance(value, dict):
            for name, part in value.items():
                if name in IDS and isinstance(part, str) and part:
                    self.known[name].append(part)
                if name in ("next", "previous") and isinstance(part, str):
                    self.known["cursor"] += parse_qs(urlsplit(part).query).get("cursor", [])
                self.learn(part)

    def own(self, *ids: str) -> None:
        """Take ids for what nobody else is to be told of."""
        assert all(map(UUIDS.fullmatch, ids)), ids
        self.owned.update(ids)


class World:
    """The two processes, and all who come to them."""

    def __init__(self, sites: list[Site], users: list[User], inside: sockets.socket) -> None:
        self.sites = sites
        port = inside.getsockname()[1]
        public = [f"https://localhost:{port}/{number}" for number in range(6)]
        hosts = ("127.0.0.1", "[::1]", "[::ffff:127.0.0.1]", "2130706433", "x:y@localhost")
        private = [f"https://{host}:{port}/" for host in hosts]
        others = [f"http://localhost:{port}/", f"https://localhost:{'9' * 9}/", "https://[/"]
        self.fields = FIELDS | {"endpoint": (*public, *private, *others)}
        self.actors = {name: Actor(name) for name in NAMES}
        self.steps = 0
        self.statuses: dict[int, int] = defaultdict(int)
        self.closes: dict[int, int] = defaultdict(int)
        self.frames: dict[str, int] = defaultdict(int)
        self.succeeded: dict[str, int] = defaultdict(int)
        self.instructed = 0
        self.mixed: list[str] = []
        self.early: list[int] = []
        for user in users:
            self.actors[user.username].headers = {"Authorization": f"Bearer {user.token}"}
        self._sign_in_guest()
        self._sign_in_by_form(next(user for user in users if user.username == "ben"))
        self._take_key()
        for number, actor in enumerate(self.actors.values()):
            own = json.dumps({"instructions": f"{actor.mark} Be brief."}).encode()
            self.request(actor, number % 2, "PATCH", "/api/preferences/", own)
            keys = {"p256dh": BROWSER, "auth": SECRET}
            browser = json.dumps({"endpoint": public[number], "keys": keys}).encode()
            self.request(actor, number % 2, "POST", "/api/push/", browser)
            for content in ("hello", "please erase it"):
                body = json.dumps({"content": f"{actor.mark} {content}"}).encode()
                self.request(actor, number % 2, "POST", "/api/chat/", body)

    def _sign_in_guest(self) -> None:
        site, guest = self.sites[0], self.actors["guest"]
        csrf = site.request("GET", LOGIN_PATH).cookies["csrftoken"]
        headers = {"Cookie": f"csrftoken={csrf}", "X-CSRFToken": csrf}
        made = site.request("POST", "/accounts/guest/", headers=headers)
        assert made.status == 200, made
        csrf = made.cookies.get("csrftoken", csrf)
        guest.cookie = f"sessionid={made.cookies['sessionid']}; csrftoken={csrf}"
        guest.headers = {"Cookie": guest.cookie, "X-CSRFToken": csrf}

    def _sign_in_by_form(self, user: User) -> None:
        actor = self.actors[user.username]
        csrf = self.sites[0].request("GET", LOGIN_PATH).cookies["csrftoken"]
        actor.cookie = f"{self.sites[0].login(user)}; csrftoken={csrf}"
        actor.headers = {"Cookie": actor.cookie, "X-CSRFToken": csrf}

    def _take_key(self) -> None:
        kim = self.actors["kim"]
        body = {"name": kim.mark, "scopes": ["read", "write", "export", "approve", "share"]}
        made = self.sites[0].request("POST", "/api/keys/", headers=kim.headers, data=body)
        assert made.status == 201, made
        kim.headers = {"Authorization": f"Bearer {made.json()['key']}"}

    # Sending

    def _headers(self, actor: Actor, server: int, path: str, body: bytes) -> dict[str, str]:
        actor.sent += f"{path} {body.decode(errors='replace')}"
        return actor.headers | ({"Origin": self.sites[server].origin} if actor.cookie else {})

    def request(
        self,
        actor: Actor,
        server: int,
        method: str,
        path: str,
        body: bytes | None = None,
        kind: str = JSON,
    ) -> Answer:
        """Ask, and check the answer."""
        headers = self._headers(actor, server, path, body or b"")
        if body is not None:
            headers["Content-Type"] = kind
        answer = self.sites[server].request(method, path, data=body, headers=headers)
        self.statuses[answer.status] += 1
        if answer.status < 300:
            self.succeeded[f"{method} {UUIDS.sub('*', urlsplit(path).path)}"] += 1
        assert answer.status < 500, (actor.name, method, path, body, answer)
        self.check_text(actor, answer.body.decode(errors="replace"))
        if answer.body and answer.headers.get("Content-Type", "").startswith(JSON):
            told = answer.json()
            actor.learn(told)
            self._own(actor, path, answer.status, told)
        made = IN_KEYS.findall(answer.body.decode(errors="replace"))
        actor.known["key_id"] += made
        actor.own(*made)
        return answer

    def stream(self, actor: Actor, server: int, path: str, body: bytes) -> None:
        """Ask for a reply's frames over REST; check those that come, and be gone."""
        headers = self._headers(actor, server, path, body)
        headers |= {"Content-Type": JSON, "Accept": "text/event-stream"}
        wait_s, text = scaled(TIMEOUT_S), b""
        asked = http.client.HTTPConnection("127.0.0.1", self.sites[server].port, timeout=wait_s)
        with contextlib.closing(asked):
            asked.request("POST", path, body, headers)
            answer = asked.getresponse()
            self.statuses[answer.status] += 1
            assert answer.status < 500, (actor.name, path, body)
            if asked.sock:
                asked.sock.settimeout(STREAM_S)
            with contextlib.suppress(TimeoutError):
                while piece := answer.read1():
                    text += piece
        self.check_text(actor, text.decode(errors="replace"))
        if answer.headers.get_content_type() == "text/event-stream":
            self.succeeded["streams"] += 1
            for frame in frames_of(text[: text.rindex(b"\n\n") + 2]):
                self._take(actor, json.dumps(frame))

    def _own(self, actor: Actor, path: str, status: int, told: Any) -> None:
        made = {"shares": "share_id", "keys": "key_id", "sessions": "session_id"}
        name = made.get(urlsplit(path).path.rstrip("/").rpartition("/")[2])
        if status == 201 and name:
            actor.known[name].append(told["id"])
            actor.own(told["id"])
        if isinstance(told, dict) and path.startswith("/api/chat/") and "session_id" in told:
            actor.own(told["session_id"], told["run"]["run_id"], told["message"]["message_id"])

    def socket(self, actor: Actor, server: int) -> ClientConnection:
        """The actor's socket at one of the processes."""
        if server not in actor.sockets:
            site, headers = self.sites[server], dict(actor.headers)
            url = site.ws_url
            if actor.name == "tess":
                answer = self.request(actor, server, "POST", "/api/ws-tickets/")
                url, headers = f"{url}?token={answer.json()['ticket']}", {}
            if actor.cookie:
                headers = {"Cookie": actor.cookie, "Origin": site.origin}
            actor.sockets[server] = connect(
                url,
                additional_headers=headers,
                compression=None,
                ping_interval=None,
                proxy=None,
                max_size=None,
            )
        return actor.sockets[server]

    def send(self, actor: Actor, server: int, text: str | bytes) -> None:
        """Say something on a socket, and take in what has come on all of them."""
        actor.sent += text if isinstance(text, str) else text.decode(errors="replace")
        with contextlib.suppress(ConnectionClosed):
            self.socket(actor, server).send(text)
        self.drain()

    def drain(self) -> None:
        """Take in what has come, and check it."""
        for actor in self.actors.values():
            for server, socket in list(actor.sockets.items()):
                try:
                    with contextlib.suppress(TimeoutError):
                        while True:
                            self._take(actor, socket.recv(timeout=0))
                except ConnectionClosed:
                    self.forget(actor, server)

    def _take(self, actor: Actor, text: str | bytes) -> None:
        frame = json.loads(text)
        check_frame(frame)
        told = frame["metadata"].get("event") or frame["metadata"].get("code") or frame["type"]
        self.frames[told] += 1
        assert frame["metadata"].get("code") != "internal", frame
        actor.learn(frame)
        if frame["metadata"].get("event") == "accepted":
            names = ("run_id", "message_id", "user_message_id")
            actor.own(frame["session_id"], *(frame["metadata"][name] for name in names))
        self.check_text(actor, str(text))

    def leave(self, actor: Actor, server: int) -> None:
        """Wait for the answers to all that was sent on a socket, and close it."""
        socket = actor.sockets[server]
        with contextlib.suppress(ConnectionClosed):
            socket.send(json.dumps({"type": "ping", "metadata": {"ts": LAST}}))
            text = ""
            while f'"ts":{LAST}' not in text.replace(" ", ""):
                text = str(socket.recv(timeout=scaled(TIMEOUT_S)))
                self._take(actor, text)
        self.forget(actor, server)

    def forget(self, actor: Actor, server: int) -> None:
        """A socket has ended, or is to."""
        socket = actor.sockets.pop(server)
        with contextlib.suppress(TimeoutError, ConnectionClosed):
            socket.close()
        code = socket.close_code or 0
        self.closes[code] += 1
        assert code != INTERNAL_ERROR, actor.name

    def check_text(self, actor: Actor, text: str) -> None:
        """Raises `AssertionError` if it holds what is another tenant's."""
        told = set(UUIDS.findall(text))
        for other in self.actors.values():
            if other is not actor:
                assert other.mark not in text, (actor.name, text[:2_000])
                ids = [it for it in told & other.owned if it not in actor.sent]
                assert ids == [], (actor.name, text[:2_000])

    def watch(self, script: Callable[[Call], Reply]) -> Callable[[Call], Reply]:
        """The same script, which notes whose texts the model is given."""

        def watched(call: Call) -> Reply:
            marks = set(MARKS.findall(json.dumps(call.body)))
            if len(marks) > 1:
                self.mixed.append(f"{marks}: {json.dumps(call.body)[:2_000]}")
            texts = [it.get("content") for it in call.input if it.get("role") == "system"]
            told = json.dumps([call.body.get("instructions"), texts])
            self.instructed += bool(MARKS.search(told))
            return script(call)

        return watched

    # Filling in

    def fill(self, actor: Actor, template: Any, whose: str, text: str, pick: random.Random) -> Any:
        """A template with ids in it, and with texts of the actor's."""
        if isinstance(template, dict):
            named = {"client_message_id": "<client_message_id>"}
            return {
                name: pick.choice(self.fields[name])
                if name in self.fields and whose != "hostile"
                else self.fill(actor, named.get(name, part), whose, text, pick)
                for name, part in template.items()
            }
        if isinstance(template, list):
            return [self.fill(actor, part, whose, text, pick) for part in template]
        if template == "x":
            return f"{actor.mark} {text}"
        if template == "echo":
            return "assistant"
        if isinstance(template, str) and template[:1] == "<":
            return self.an_id(actor, template[1:-1], whose, pick)
        return template

    def an_id(self, actor: Actor, name: str, whose: str, pick: random.Random) -> str:
        """One of the actor's own, of somebody else's, of nobody's, or none."""
        if name == "word":
            return actor.mark
        if name == "client_message_id" and whose != "hostile":
            return f"{actor.mark}{pick.randrange(50)}"
        others = [other for other in self.actors.values() if other is not actor]
        known = {
            "own": actor.known[name],
            # A link is for whoever has its token.
            "foreign": pick.choice(others).known[name] if name != "token" else [],
            "unknown": [f"{pick.getrandbits(128):032x}"],
            "hostile": WRONG,
        }[whose]
        return pick.choice(list(known)) if known else f"{pick.getrandbits(128):032x}"

    def ask(self, actor: Actor, name: str, whose: str, pick: random.Random) -> str:
        """A value for a name in the query."""
        if name == "branch":
            return self.an_id(actor, "message_id", whose, pick)
        known = actor.known["cursor"] if name == "cursor" else QUERIES.get(name)
        if known and whose != "hostile":
            return pick.choice(list(known))
        return pick.choice((actor.mark, "1", "all", "x", "", "\0"))

    def pushes(self) -> dict[str, int]:
        """How many attempts at notifications there were, by their result."""
        found: dict[str, int] = defaultdict(int)
        for site in self.sites:
            headers = {"Authorization": f"Bearer {METRICS_TOKEN}"}
            told = site.request("GET", "/metrics/", headers=headers).body.decode()
            for result, number in IN_METRICS.findall(told):
                found[result] += int(number)
        return found

    def count(self, wanted: int) -> None:
        """One more step; remembers the memory after a tenth of them."""
        self.steps += 1
        if self.steps == max(1, wanted // 10):
            self.early = self.memory()

    def memory(self) -> list[int]:
        """Resident bytes of each process."""
        texts = [Path(f"/proc/{site.process.pid}/status").read_text() for site in self.sites]
        return [int(text.split("VmRSS:")[1].split()[0]) * 1_024 for text in texts]


FRAMES, OPERATIONS, PAGES = client_frames(), operations(), pages()
CALLED = st.sampled_from([it for it in OPERATIONS for _ in range(4 if it[1] in OWN else 1)])
CHATS = [operation for operation in OPERATIONS if operation[1].endswith("/chat/")]
KINDS = sorted({frame["type"] for frame in FRAMES})
DECLARED = st.sampled_from(KINDS).flatmap(
    lambda kind: st.sampled_from([frame for frame in FRAMES if frame["type"] == kind])
)
"""Every type as often as any other, however many forms it has."""
ACTORS, SERVERS = st.sampled_from(NAMES), st.sampled_from((0, 1))
PEOPLE = st.sampled_from((*NAMES, *["ben", "guest"] * 4))
"""More often those with a cookie, as pages know nobody else."""
WHOSE = st.sampled_from((*["own"] * 6, "foreign", "foreign", "unknown", "hostile"))
TEXTS = st.one_of(
    st.sampled_from(("hello", "please erase it", "tokens", "<script>", "", "a" * 40_000)),
    st.text(max_size=30),
)
SEEDS = st.integers(0, 2**32)
JUNK = st.one_of(
    st.text(max_size=50),
    st.binary(max_size=50),
    st.sampled_from(("[" * 3_000, "{}", "null", "1e999", '{"type":"chat"', "x" * 70_000)),
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=10),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner),
        max_leaves=8,
    ).map(json.dumps),
)


class Actors(RuleBasedStateMachine):
    """What they do; the world outlives the runs of the machine."""

    world: ClassVar[World]
    has_begun = False

    @rule(actor=ACTORS, server=SERVERS, frame=DECLARED, whose=WHOSE, text=TEXTS,
          seed=SEEDS)  # fmt: skip
    def say(self, actor: str, server: int, frame: Any, whose: str, text: str, seed: int) -> None:
        """A frame as it is declared, or without some of its parts."""
        it, pick = self.world.actors[actor], random.Random(seed)
        filled = self.world.fill(it, frame, whose, text, pick)
        if pick.random() < 0.2:
            filled = thinned(filled, pick) | {"type": frame["type"]}
        self.world.send(it, server, json.dumps(filled))

    @rule(actor=ACTORS, server=SERVERS, frame=DECLARED, whose=WHOSE, seed=SEEDS)
    def garble(self, actor: str, server: int, frame: Any, whose: str, seed: int) -> None:
        """A frame with one part of another shape."""
        it, pick = self.world.actors[actor], random.Random(seed)
        filled = self.world.fill(it, frame, whose, "text", pick)
        self.world.send(it, server, json.dumps(garbled(filled, pick)))

    @rule(actor=ACTORS, server=SERVERS, text=JUNK)
    def babble(self, actor: str, server: int, text: str | bytes) -> None:
        """What is no frame."""
        self.world.send(self.world.actors[actor], server, text)

    @rule(actor=ACTORS, server=SERVERS, operation=CALLED, whose=WHOSE,
          text=TEXTS, seed=SEEDS)  # fmt: skip
    def call(
        self, actor: str, server: int, operation: Any, whose: str, text: str, seed: int
    ) -> None:
        """An operation of the API, whole or broken."""
        it, pick, (method, path, query, bodies) = (
            self.world.actors[actor],
            random.Random(seed),
            operation,
        )
        if (
            it.name != "kim"
            and path == "/api/keys/"
            and method == "POST"
            and len(it.known["key_id"]) > 5
        ):
            return
        address = self._address(it, path, whose, pick)
        asked = {name: self.world.ask(it, name, whose, pick) for name in query}
        if query and pick.random() < 0.5:
            some = pick.choices(list(asked.items()), k=pick.randint(1, 2))
            address += "?" + urlencode(dict(some))
        body = self.world.fill(it, pick.choice(bodies), whose, text, pick)
        if body is not None and pick.random() < 0.3:
            body = thinned(body, pick)
        if body is not None and pick.random() < 0.2:
            body = garbled(body, pick)
        sent = None if body is None else json.dumps(body).encode()
        if sent and pick.random() < 0.05:
            sent = sent[: pick.randrange(len(sent))]
        if pick.random() < 0.05:
            method = pick.choice(METHODS)
        kind = pick.choice(TYPES) if pick.random() < 0.05 else JSON
        self.world.request(it, server, method, address, sent, kind)
        self.world.drain()

    @rule(actor=ACTORS, server=SERVERS, operation=st.sampled_from(CHATS), whose=WHOSE, text=TEXTS,
          seed=SEEDS)  # fmt: skip
    def listen(
        self, actor: str, server: int, operation: Any, whose: str, text: str, seed: int
    ) -> None:
        """A chat whose frames are read for a moment."""
        it, pick, (_, path, _, bodies) = self.world.actors[actor], random.Random(seed), operation
        address = self._address(it, path, whose, pick)
        body = self.world.fill(it, pick.choice(bodies), whose, text, pick)
        self.world.stream(it, server, address, json.dumps(thinned(body, pick)).encode())
        self.world.drain()

    def _address(self, it: Actor, path: str, whose: str, pick: random.Random) -> str:
        """A path of the document or of a route, with ids in it."""
        for names in (IN_DOCUMENT, IN_ROUTE):
            path = names.sub(
                lambda name: quote(self.world.an_id(it, name[1], whose, pick), safe=""), path
            )
        return path

    @rule(actor=PEOPLE, server=SERVERS, page=st.sampled_from(PAGES), whose=WHOSE, text=TEXTS,
          seed=SEEDS)  # fmt: skip
    def visit(self, actor: str, server: int, page: str, whose: str, text: str, seed: int) -> None:
        """A page, or a form that is sent to it, which may have another or none."""
        it, pick = self.world.actors[actor], random.Random(seed)
        if pick.random() < 0.5:
            self.world.request(it, server, "GET", self._address(it, page, whose, pick))
            return
        # Half of them to the two that everybody has.
        own = pick.choice(("/accounts/settings/", "/accounts/keys/"))
        address = self._address(it, own if pick.random() < 0.5 else page, whose, pick)
        fields = {
            name: self.world.fill(it, part, whose, text, pick) for name, part in ON_FORMS.items()
        }
        if pick.random() < 0.3:
            fields = thinned(fields, pick)
        self.world.request(it, server, "POST", address, urlencode(fields).encode(), FORM)

    @rule(actor=ACTORS, server=SERVERS)
    def leave(self, actor: str, server: int) -> None:
        """The end of a socket; the next frame opens another."""
        it = self.world.actors[actor]
        if server in it.sockets:
            self.world.leave(it, server)

    def check_invariants(self, *args: Any, **kwargs: Any) -> None:
        """After each step."""
        super().check_invariants(*args, **kwargs)
        if self.has_begun:
            self.world.count(STEP_COUNT)
        self.has_begun = True

    def teardown(self) -> None:
        """The next run begins with sockets of its own."""
        for actor in self.world.actors.values():
            for server in list(actor.sockets):
                self.world.leave(actor, server)


def thinned(value: dict[str, Any], pick: random.Random) -> dict[str, Any]:
    """The same without some of its parts."""
    return {
        name: thinned(part, pick) if isinstance(part, dict) else part
        for name, part in value.items()
        if pick.random() < 0.7
    }


def garbled(value: dict[str, Any], pick: random.Random) -> Any:
    """The same with something wrong in it."""
    wrong: Any = pick.choice(
        (None, [], {}, 10**30, -1, 0.5, True, "", "\0", "x" * 5_000, [[]], {"a": {}})
    )
    name = pick.choice([*value, "nobody_knows"])
    inner = value.get(name)
    if isinstance(inner, dict) and inner and pick.random() < 0.7:
        return value | {name: garbled(inner, pick)}
    return wrong if pick.random() < 0.1 else value | {name: wrong}


def eraser(folder: Path) -> Any:
    """A model that asks for approval when a prompt speaks of erasing, and repeats any other."""

    def script(call: Call) -> Reply:
        if "erase" not in call.prompt or call.input[-1].get("role") != "user":
            return echo(call)
        path = folder / re.sub(r"\W", "", call.prompt)[:40]
        return Reply(["I will."], tool_calls=[ToolCall("erase", json.dumps({"path": str(path)}))])

    return script


@pytest.fixture
def world(provider: Provider, postgres: Postgres, valkey: Valkey) -> Iterator[World]:
    changes = {
        "DJANGO_SETTINGS_MODULE": "tests.support.two_agents_settings",
        "PUSH_KEY": webhooks.make_push_key(),
        "METRICS_TOKEN": METRICS_TOKEN,
        # Webhooks may go inside then, notifications never.
        "WEBHOOK_PRIVATE": "1",
        "REDIS_URL": valkey.url,
        "ALLOW_GUESTS": "1",
        "API_REQUESTS_PER_MINUTE": "1000000",
        "FRAMES_PER_MINUTE": "1000000",
        "TOKENS_PER_DAY": "0",
        "REST_WAIT_S": "0.05",
    }
    with scratch_dir("erased") as folder, prepared_database(postgres) as url:
        provider.script = eraser(folder)
        changes["DATABASE_URL"] = url
        with (
            sockets.create_server(("127.0.0.1", 0)) as inside,
            drill_site(provider, postgres, **changes) as one,
            drill_site(provider, postgres, **changes) as two,
        ):
            inside.setblocking(False)
            users = one.make_users(*(name for name in NAMES if name != "guest"))
            made = World([one, two], users, inside)
            provider.script = made.watch(provider.script)
            yield made
            with pytest.raises(BlockingIOError):
                inside.accept()
            for site in (one, two):
                assert "Traceback" not in site.log


@pytest.mark.timeout(60 + STEP_COUNT)
def test_nothing_fails_and_nothing_leaks(world: World) -> None:
    Actors.world = world
    run_state_machine_as_test(
        Actors,
        settings=settings(
            max_examples=STEP_COUNT // STEPS_SURE + 1,
            stateful_step_count=STEPS_EACH,
            derandomize=True,
            deadline=None,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        ),
    )
    assert world.steps >= STEP_COUNT
    late = world.memory()
    told = dict(world.statuses), dict(world.closes), dict(world.frames)
    assert {200, 201, 404} <= world.statuses.keys(), told
    assert {"pong", "resumed"} <= world.frames.keys(), told
    assert world.mixed == []
    assert world.instructed, "nobody's instructions have come to the model"
    assert STEP_COUNT < MANY or world.succeeded.keys() >= NEEDED, dict(world.succeeded)
    pushes = dict(world.pushes())
    assert "delivered" not in pushes
    assert pushes.keys() & {"failed", "given_up"}, "no notification was tried"
    sys.stdout.write(f"{world.steps} steps: {told}, {world.early} and {late} bytes\n")
    sys.stdout.write(f"{dict(world.succeeded)}, {pushes}, {world.instructed} instructed\n")
    for before, after in zip(world.early, late, strict=True):
        assert after < before * RATIO, (world.early, late)
