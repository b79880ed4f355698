"""Fills the running totals from what is there, a few sessions at a time.

Not atomic, so that no batch keeps others from writing for longer than it takes. What it writes is
computed anew for each session: it may be run again after it was interrupted.
"""

from collections import Counter
from datetime import timedelta
from typing import Any

from django.db import migrations, transaction
from django.utils import timezone

BATCH = 500
SLOT_S = 600

TAKEN = """
    SELECT session_id, {runs} AS runs,
        COALESCE(input_tokens, 0) AS input_tokens,
        COALESCE(output_tokens, 0) AS output_tokens,
        COALESCE(cached_input_tokens, 0) AS cached_input_tokens,
        COALESCE(reasoning_tokens, 0) AS reasoning_tokens,
        CASE WHEN usage_source = 'estimated' THEN 1 ELSE 0 END AS estimated,
        CASE WHEN usage_source = 'unknown' THEN 1 ELSE 0 END AS unknown,
        CASE WHEN cost IS NULL THEN 0 ELSE 1 END AS priced,
        CASE WHEN cost IS NULL THEN 1 ELSE 0 END AS unpriced,
        CAST(ROUND(COALESCE(cost, 0) * 1000000) AS BIGINT) AS cost_micros
    FROM {table} WHERE session_id IN ({ids}) {condition}
"""
COUNTERS = (
    *("runs", "input_tokens", "output_tokens", "cached_input_tokens", "reasoning_tokens"),
    *("estimated", "unknown", "priced", "unpriced", "cost_micros"),
)


def fill_sessions(apps: Any, editor: Any) -> None:
    sessions = apps.get_model("conversations", "ChatSession").objects.order_by("pk")
    last = None
    while True:
        rest = sessions if last is None else sessions.filter(pk__gt=last)
        ids = list(rest.values_list("pk", flat=True)[:BATCH])
        if not ids:
            return
        fill_batch(apps, editor, ids)
        last = ids[-1]


def fill_batch(apps: Any, editor: Any, ids: list[Any]) -> None:
    field = apps.get_model("conversations", "ChatSession")._meta.pk
    values = [field.get_db_prep_value(pk, editor.connection) for pk in ids]
    places = ", ".join(["%s"] * len(values))
    replies = TAKEN.format(
        runs=1, table="conversations_run", ids=places, condition="AND ended_at IS NOT NULL"
    )
    others = TAKEN.format(runs=0, table="conversations_sidecall", ids=places, condition="")
    sums = ", ".join(f"SUM({name})" for name in COUNTERS)
    changes = ", ".join(f"{name} = excluded.{name}" for name in COUNTERS)
    with transaction.atomic(using=editor.connection.alias), editor.connection.cursor() as cursor:
        cursor.execute(
            f"INSERT INTO conversations_sessionusage (session_id, {', '.join(COUNTERS)})"
            f" SELECT session_id, {sums} FROM ({replies} UNION ALL {others}) AS taken"
            f" WHERE true GROUP BY session_id"
            f" ON CONFLICT (session_id) DO UPDATE SET {changes}",
            [*values, *values],
        )


def fill_users(apps: Any, editor: Any) -> None:
    """By when a run was asked for: when its tokens were spent is kept nowhere."""
    since = timezone.now() - timedelta(days=1, seconds=SLOT_S)
    rows = (
        apps.get_model("conversations", "Run")
        .objects.filter(created_at__gt=since, input_tokens__isnull=False)
        .values_list("owner_id", "created_at", "input_tokens", "output_tokens")
    )
    spent: Counter[tuple[Any, int]] = Counter()
    for owner, moment, given, made in rows.iterator(chunk_size=2_000):
        spent[owner, int(moment.timestamp() // SLOT_S)] += given + (made or 0)
    usage = apps.get_model("conversations", "UserUsage")
    usage.objects.bulk_create(
        [usage(user_id=user, slot=slot, tokens=n) for (user, slot), n in spent.items()],
        batch_size=BATCH,
        update_conflicts=True,
        unique_fields=["user", "slot"],
        update_fields=["tokens"],
    )


class Migration(migrations.Migration):
    atomic = False
    dependencies = [("conversations", "0016_usage_totals")]
    operations = [
        migrations.RunPython(fill_sessions, migrations.RunPython.noop),
        migrations.RunPython(fill_users, migrations.RunPython.noop),
    ]
