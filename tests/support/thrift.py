"""Caches work that frameworks would repeat for each test with the same result."""

import contextlib
import gc
from collections.abc import Iterator
from functools import cache
from typing import Any
from unittest import mock

import httpcore2
from django.core.management.commands import flush
from fasteners import InterProcessLock

from tests.support.machine import shared_dir

DERIVED = {"django_content_type", "auth_permission"}
"""Tables that `migrate` fills from the models; no test changes them."""


@contextlib.contextmanager
def once_a_process() -> Iterator[None]:
    """Read certificates once, and keep rows that `migrate` created when tables are flushed."""
    with (
        mock.patch.object(httpcore2, "default_ssl_context", cache(httpcore2.default_ssl_context)),
        mock.patch.object(flush, "sql_flush", _sql_flush),
        mock.patch.object(flush, "emit_post_migrate_signal"),
    ):
        yield


def _sql_flush(style: Any, connection: Any, **options: Any) -> list[str]:
    names = connection.introspection.django_table_names(only_existing=True, include_views=False)
    statements: list[str] = connection.ops.sql_flush(
        style, [name for name in names if name not in DERIVED], **options
    )
    return statements


@contextlib.contextmanager
def first_alone() -> Iterator[None]:
    """Run the block alone in the first worker of a session, so that others find compiled files."""
    done = shared_dir() / "first.done"
    with contextlib.ExitStack() as stack:
        stack.enter_context(InterProcessLock(shared_dir() / "first.lock"))
        if done.exists():
            stack.close()
        yield
        done.touch()


def keep_for_good() -> None:
    """Exempt all objects that exist now from garbage collection."""
    gc.collect()
    gc.freeze()
