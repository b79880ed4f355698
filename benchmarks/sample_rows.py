"""Generates sample conversations, the same ones for the same seed."""

import random
import uuid
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from itertools import accumulate, islice
from typing import Any

from django.contrib.auth import get_user_model
from django.contrib.auth.hashers import make_password
from django.db import DEFAULT_DB_ALIAS, connections, transaction
from django.db.models import Model

from conversations.models import (
    ChatSession,
    EndReason,
    Item,
    Message,
    Role,
    Run,
    RunEvent,
    RunStatus,
    SessionUsage,
    UsageSource,
)
from conversations.runs.usage import sum_counters

COMMON = (
    "the of and to a in is it you that for on are with as be this at have from or one can all"
    " there use an each which do how their if will up other about out many then them these so some"
    " would make like time has look more write see number way could people than first been call who"
    " now find long day did get come made may part order invoice delivery report meeting customer"
    " plan price date question answer list table code error file data summary letter draft"
)
SYLLABLES = (
    "ba be bi bo bu da de di do du ka ke ki ko ku la le li lo lu ma me mi mo mu na ne ni no nu"
    " ra re ri ro ru sa se si so su ta te ti to tu va ve vi vo zan tor mel fin gar pol ster"
)
RARE_WORDS = 20_000


class Texts:
    """Generates texts from one source of random numbers."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self._syllables = SYLLABLES.split()
        rare = [self._rare_word() for _ in range(RARE_WORDS)]
        self._words = [*COMMON.split(), *rare]
        # Zipf's law: the n-th word is about 1/n as frequent as the first.
        self._weights = list(accumulate(1 / (rank + 3) for rank in range(len(self._words))))

    def title(self) -> str:
        return self._phrase(self._chance.randint(2, 6))

    def question(self) -> str:
        return self._phrase(self._chance.randint(4, 25)) + "?"

    def reply(self) -> str:
        """Return one to three paragraphs, the last one sometimes a list."""
        paragraphs = [
            self._phrase(self._chance.randint(10, 40)) + "."
            for _ in range(self._chance.randint(1, 3))
        ]
        if self._chance.random() < 0.2:
            paragraphs.append("\n".join(f"- {self._phrase(4)}" for _ in range(4)))
        return "\n\n".join(paragraphs)

    def _rare_word(self) -> str:
        return "".join(self._chance.choices(self._syllables, k=self._chance.randint(2, 4)))

    def _phrase(self, length: int) -> str:
        words = self._chance.choices(self._words, cum_weights=self._weights, k=length)
        return " ".join(words).capitalize()


SESSIONS_A_BATCH = 500
AGENTS = ("assistant", "assistant", "assistant", "researcher", "writer")
# Name, median of the first token in seconds, tokens a second.
MODELS = (("gpt-5.4-mini", 0.5, 90), ("gpt-5.4-mini", 0.5, 90), ("local-1.7b", 1.4, 25))
ENDINGS = (
    *[(RunStatus.COMPLETED, "", "")] * 92,
    *[(RunStatus.CANCELLED, EndReason.USER, "")] * 3,
    (RunStatus.CANCELLED, EndReason.REDIRECT, ""),
    (RunStatus.INTERRUPTED, EndReason.WORKER_LOST, ""),
    (RunStatus.FAILED, "", "provider_rate_limited"),
    (RunStatus.FAILED, "", "provider_unavailable"),
    (RunStatus.FAILED, "", "provider_cut"),
)


@dataclass(frozen=True)
class Plan:
    """The amount of data; `messages` is rounded to whole turns, at least one per session."""

    sessions: int
    messages: int
    users: int
    days: int
    seed: int
    until: datetime


def make_sample_data(plan: Plan) -> Iterator[int]:
    """Write the data in batches; yields the number of sessions so far after each."""
    chance = random.Random(plan.seed)
    owners = _make_users(plan)
    maker = _Maker(chance, owners, plan)
    turns = iter(_spread(chance, plan))
    done = 0
    while batch := list(islice(turns, SESSIONS_A_BATCH)):
        with transaction.atomic():
            _insert_all(row for count in batch for row in maker.session(count))
        done += len(batch)
        yield done


def _make_users(plan: Plan) -> list[Any]:
    """Create people who cannot sign in; those from an earlier call are used again."""
    model = get_user_model()
    names = [f"sample-{number:05}" for number in range(1, plan.users + 1)]
    password = make_password(None)
    rows = [model(**{model.USERNAME_FIELD: name, "password": password}) for name in names]
    users = model._default_manager
    users.bulk_create(rows, batch_size=SESSIONS_A_BATCH, ignore_conflicts=True)
    found = users.filter(**{f"{model.USERNAME_FIELD}__startswith": "sample-"})
    return list(found.order_by("pk").values_list("pk", flat=True)[: plan.users])


def _spread(chance: random.Random, plan: Plan) -> list[int]:
    """Return the number of turns of each session: most are short, some are long."""
    turns = [1] * plan.sessions
    weights = [chance.paretovariate(1.3) for _ in turns]
    more = max(0, plan.messages // 2 - plan.sessions)
    for place in chance.choices(range(plan.sessions), weights, k=more):
        turns[place] += 1
    return turns


class _Maker:
    """Generates the rows of one session after the other."""

    def __init__(self, chance: random.Random, owners: Sequence[Any], plan: Plan) -> None:
        self.chance = chance
        self.texts = Texts(chance)
        self.owners = owners
        self.plan = plan
        # A few people write much more than others.
        self.weights = [1 / (place + 10) for place in range(len(owners))]

    def session(self, turns: int) -> Iterator[Model]:
        """Yield the session's row, then those of its turns."""
        moment = self.plan.until - timedelta(days=self.chance.random() * self.plan.days)
        session = ChatSession(
            id=self._id(),
            owner_id=self.chance.choices(self.owners, self.weights)[0],
            title=self.texts.title(),
            agent=self.chance.choice(AGENTS),
            rev=3 * turns,
            message_count=2 * turns,
            run_count=turns,
            created_at=moment,
        )
        rows: list[Model] = []
        runs: list[Run] = []
        leaf: Message | None = None
        for number in range(1, turns + 1):
            turn = _Turn(self, session, number, moment, leaf)
            rows += turn.rows
            runs.append(turn.run)
            leaf, moment = turn.reply, turn.ended_at
            moment += timedelta(seconds=self.chance.expovariate(1 / 90))
        session.active_leaf_id = leaf.pk if leaf else None
        session.active_at = min(moment, self.plan.until)
        yield session
        yield from rows
        yield SessionUsage(session=session, **sum_counters(runs))

    def _id(self) -> uuid.UUID:
        return uuid.UUID(int=self.chance.getrandbits(128), version=4)


class _Turn:
    """A question, its reply, the run, and the rows that the run left."""

    def __init__(
        self, maker: _Maker, session: ChatSession, number: int, asked: datetime, leaf: Any
    ) -> None:
        chance, texts = maker.chance, maker.texts
        self.session, self.number = session, number
        status, reason, error = chance.choice(ENDINGS)
        model, first, speed = chance.choice(MODELS)
        text = "" if error and chance.random() < 0.7 else texts.reply()
        tool = chance.random() < 0.2
        tokens = len(text) // 4
        claimed = asked + timedelta(milliseconds=chance.uniform(2, 40))
        first_token = claimed + timedelta(seconds=first * chance.lognormvariate(0, 0.4))
        self.ended_at = first_token + timedelta(seconds=tokens / speed)
        self.prompt = self._message(maker, Role.USER, leaf, asked, texts.question())
        self.reply = self._message(maker, Role.ASSISTANT, self.prompt, asked, text)
        self.run = Run(
            id=maker._id(),
            session=session,
            owner_id=session.owner_id,
            number=number,
            status=status,
            agent=session.agent,
            model=model,
            prompt=self.prompt,
            reply=self.reply,
            claim=1,
            epoch=1,
            cancel_requested_at=self.ended_at - timedelta(milliseconds=chance.uniform(20, 400))
            if status == RunStatus.CANCELLED
            else None,
            reason=reason,
            error_code=error,
            input_tokens=300 + 120 * number,
            output_tokens=tokens,
            cached_input_tokens=0,
            reasoning_tokens=0,
            usage_source=UsageSource.MEASURED,
            cost=round(Decimal(300 + 120 * number + 8 * tokens) / 4_000_000, 6),
            created_at=asked,
            queued_at=asked,
            claimed_at=claimed,
            first_token_at=first_token if text else None,
            last_token_at=self.ended_at if text else None,
            stopped_at=self.ended_at if status == RunStatus.CANCELLED else None,
            ended_at=self.ended_at,
            folded=True,
            sketch=self._sketch(asked, first_token, len(text)),
        )
        events = list(self._events(claimed, first_token, tool, texts))
        self.run.last_seq = events[-1].seq
        self.rows = [self.prompt, self.reply, self.run, *events, *self._items(text)]

    def _sketch(self, asked: datetime, first_token: datetime, size: int) -> list[list[int]]:
        """Sketch of a text that arrived evenly."""
        start, end = (
            (m - asked) // timedelta(milliseconds=1) for m in (first_token, self.ended_at)
        )
        steps = min(20, size)
        return [
            [start + (end - start) * place // steps, size * place // steps]
            for place in range(1, steps + 1)
        ]

    def _message(
        self, maker: _Maker, role: Role, parent: Any, moment: datetime, text: str
    ) -> Message:
        is_reply = role == Role.ASSISTANT
        return Message(
            id=maker._id(),
            session=self.session,
            number=2 * self.number - (not is_reply),
            role=role,
            parts=[{"type": "text", "text": text}] if text else [],
            parent=parent,
            rev=3 * self.number,
            created_at=moment,
        )

    def _events(
        self, claimed: datetime, first_token: datetime, tool: bool, texts: Texts
    ) -> Iterator[RunEvent]:
        """Yield the events that remain after folding; folded ones had numbers in `seq` too."""
        yield self._event(1, "run.started", {"agent": self.run.agent}, claimed)
        seq = 1
        if tool:
            call = {"tool_call_id": f"call_{self.number}", "name": "search"}
            asked = call | {"arguments": f'{{"words": "{texts.title()}"}}'}
            yield self._event(2, "tool.started", asked, claimed)
            found = call | {"output": texts.question()}
            yield self._event(3, "tool.finished", found, first_token)
            seq = 3
            self.reply.parts.insert(0, {"type": "tool", "status": "finished", **asked, **found})
        last = seq + 1 + (self.run.output_tokens or 0) // 4
        if self.run.status == RunStatus.FAILED:
            payload = {"code": self.run.error_code, "retry_after": None}
            yield self._event(last, "error", payload, self.ended_at)
        else:
            payload = {"finish_reason": str(self.run.status), "reason": self.run.reason or None}
            yield self._event(last, "complete", payload, self.ended_at)

    def _event(self, seq: int, kind: str, payload: dict[str, Any], moment: datetime) -> RunEvent:
        return RunEvent(
            run_id=self.run.pk, epoch=1, seq=seq, kind=kind, payload=payload, created_at=moment
        )

    def _items(self, text: str) -> Iterator[Item]:
        if text:
            payload = {"role": "assistant", "content": text}
            yield Item(run_id=self.run.pk, position=0, payload=payload)


def _insert_all(rows: Iterable[Model]) -> None:
    """Insert all rows of each table at once; tables in the order of their first rows."""
    tables: dict[type[Model], list[Model]] = {}
    for row in rows:
        tables.setdefault(type(row), []).append(row)
    for model, found in tables.items():
        _insert(model, found)


def _insert(model: type[Model], rows: Sequence[Model]) -> None:
    """Insert rows unchanged: `bulk_create` would replace the times."""
    # Not the `connection` proxy: its look-up for each value would cost as much as all the rest.
    database = connections[DEFAULT_DB_ALIAS]
    fields = [field for field in model._meta.concrete_fields if not _is_given(field)]
    columns = ", ".join(database.ops.quote_name(str(field.column)) for field in fields)
    places = ", ".join(["%s"] * len(fields))
    table = database.ops.quote_name(model._meta.db_table)
    with database.cursor() as cursor:
        cursor.executemany(
            f"INSERT INTO {table} ({columns}) VALUES ({places})",
            [
                [field.get_db_prep_save(getattr(row, field.attname), database) for field in fields]
                for row in rows
            ],
        )


def _is_given(field: Any) -> bool:
    """Whether the database assigns the value."""
    return bool(field.get_internal_type() == "BigAutoField")
