"""Six tenants, two processes, and whatever one can send: a state machine.

Three users, a guest, a program with an API key and one whose sockets are opened by tickets send
valid, invalid and hostile frames and calls, with ids of their own, of each other and of nobody.
Whatever they send, no socket is closed with 1011, no answer is a 5xx or holds a byte of what
another tenant wrote or owns, and the memory of both processes stays flat.

`AGENTSITE_STEPS=10000 make test ARGS=tests/drills/test_hostile_actors.py` takes more steps.
"""

import contextlib
import json
import os
import random
import re
import sys
from collections import defaultdict, deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import quote, urlencode

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from realtime import wire_schema
from tests.drills.conftest import drill_site
from tests.support.addresses import routes
from tests.support.conformance import check_frame, openapi
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

NAMES = ("ann", "ben", "carl", "guest", "kim", "tess")
WRONG = ("", "x", "../", "\0", "%00", "*", "null", "a" * 5_000, "ÄÖ\u202e", "0" * 32, "-1", "'--")
IDS = (
    *("session_id", "run_id", "message_id", "request_id", "share_id", "key_id"),
    *("client_message_id", "token", "word"),
)
IN_DOCUMENT, IN_ROUTE = re.compile(r"{(\w+)}"), re.compile(r"<(?:\w+:)?(\w+)>")
JSON = {"Content-Type": "application/json"}


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
            found.append((method.upper(), path, query, bodies))
    return found


def pages() -> list[str]:
    """Addresses for people."""
    plain = [route.address for route in routes("/") if not re.search(r"[(^\\]", route.address)]
    others = ("/api/", "/accounts/logout", "/admin/logout")
    return [path for path in plain if not path.startswith(others)]


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
                self.learn(part)


class World:
    """The two processes, and all who come to them."""

    def __init__(self, sites: list[Site], users: list[User]) -> None:
        self.sites = sites
        self.actors = {name: Actor(name) for name in NAMES}
        self.steps = 0
        self.statuses: dict[int, int] = defaultdict(int)
        self.closes: dict[int, int] = defaultdict(int)
        self.frames: dict[str, int] = defaultdict(int)
        self.early: list[int] = []
        for user in users:
            self.actors[user.username].headers = {"Authorization": f"Bearer {user.token}"}
        self._sign_in_guest()
        self._take_key()
        for number, actor in enumerate(self.actors.values()):
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

    def _take_key(self) -> None:
        kim = self.actors["kim"]
        body = {"name": kim.mark, "scopes": ["read", "write", "export", "approve", "share"]}
        made = self.sites[0].request("POST", "/api/keys/", headers=kim.headers, data=body)
        assert made.status == 201, made
        kim.headers = {"Authorization": f"Bearer {made.json()['key']}"}

    # Sending

    def request(
        self, actor: Actor, server: int, method: str, path: str, body: bytes | None = None
    ) -> Answer:
        """Ask, and check the answer."""
        actor.sent += f"{path} {(body or b'').decode(errors='replace')}"
        headers = {**actor.headers, **(JSON if body is not None else {})}
        if actor.cookie:
            headers["Origin"] = self.sites[server].origin
        answer = self.sites[server].request(method, path, data=body, headers=headers)
        self.statuses[answer.status] += 1
        assert answer.status < 500, (actor.name, method, path, body, answer)
        self.check_text(actor, answer.body.decode(errors="replace"))
        if answer.headers.get("Content-Type", "").startswith("application/json"):
            told = answer.json()
            actor.learn(told)
            self._own(actor, path, answer.status, told)
        return answer

    def _own(self, actor: Actor, path: str, status: int, told: Any) -> None:
        if status == 201 and path.endswith(("/shares/", "/keys/")):
            name = "share_id" if path.endswith("/shares/") else "key_id"
            actor.known[name].append(told["id"])
            actor.owned.add(told["id"])
        if isinstance(told, dict) and path.startswith("/api/chat/") and "session_id" in told:
            actor.owned |= {told["session_id"], told["run"]["run_id"]}

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
            actor.owned |= {frame["session_id"], frame["metadata"]["run_id"]}
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
        for other in self.actors.values():
            if other is not actor:
                assert other.mark not in text, (actor.name, text[:2_000])
                ids = [it for it in other.owned if it in text and it not in actor.sent]
                assert ids == [], (actor.name, text[:2_000])

    # Filling in

    def fill(self, actor: Actor, template: Any, whose: str, text: str, pick: random.Random) -> Any:
        """A template with ids in it, and with texts of the actor's."""
        if isinstance(template, dict):
            named = {"client_message_id": "<client_message_id>"}
            return {
                name: self.fill(actor, named.get(name, part), whose, text, pick)
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
KINDS = sorted({frame["type"] for frame in FRAMES})
DECLARED = st.sampled_from(KINDS).flatmap(
    lambda kind: st.sampled_from([frame for frame in FRAMES if frame["type"] == kind])
)
"""Every type as often as any other, however many forms it has."""
ACTORS, SERVERS = st.sampled_from(NAMES), st.sampled_from((0, 1))
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
        """A frame as it is declared."""
        it, pick = self.world.actors[actor], random.Random(seed)
        filled = self.world.fill(it, frame, whose, text, pick)
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

    @rule(actor=ACTORS, server=SERVERS, operation=st.sampled_from(OPERATIONS), whose=WHOSE,
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
        address = IN_DOCUMENT.sub(
            lambda name: quote(self.world.an_id(it, name[1], whose, pick), safe=""), path
        )
        asked = {name: pick.choice((it.mark, "1", "all", "x", "", "\0")) for name in query}
        if query and pick.random() < 0.5:
            address += "?" + urlencode(dict(pick.choices(list(asked.items()))))
        body = self.world.fill(it, pick.choice(bodies), whose, text, pick)
        if body is not None and pick.random() < 0.2:
            body = garbled(body, pick)
        sent = None if body is None else json.dumps(body).encode()
        if sent and pick.random() < 0.05:
            sent = sent[: pick.randrange(len(sent))]
        self.world.request(it, server, method, address, sent)
        self.world.drain()

    @rule(actor=ACTORS, server=SERVERS, page=st.sampled_from(PAGES), whose=WHOSE, seed=SEEDS)
    def visit(self, actor: str, server: int, page: str, whose: str, seed: int) -> None:
        """A page."""
        it, pick = self.world.actors[actor], random.Random(seed)
        address = IN_ROUTE.sub(
            lambda name: quote(self.world.an_id(it, name[1], whose, pick), safe=""), page
        )
        self.world.request(it, server, "GET", address)

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
            drill_site(provider, postgres, **changes) as one,
            drill_site(provider, postgres, **changes) as two,
        ):
            users = one.make_users(*(name for name in NAMES if name != "guest"))
            yield World([one, two], users)
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
    sys.stdout.write(f"{world.steps} steps: {told}, {world.early} and {late} bytes\n")
    for before, after in zip(world.early, late, strict=True):
        assert after < before * RATIO, (world.early, late)
