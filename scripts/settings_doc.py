"""Describes every setting in Markdown, from the class that reads the environment."""

from collections.abc import Iterable
from typing import Any

from schema_words import describe, table

from agentsite.settings import Environment
from realtime.conf import RealtimeSettings


def site_settings() -> str:
    """Return a table of the site's own settings."""
    return settings_table(set(Environment.model_fields) - set(RealtimeSettings.model_fields))


def realtime_settings() -> str:
    """Return a table of time constants and limits."""
    return settings_table(RealtimeSettings.model_fields)


def settings_table(names: Iterable[str]) -> str:
    wanted = set(names)
    rows = [
        (f"`{name.upper()}`", describe(schema), shown_default(schema), schema["description"])
        for name, schema in Environment.model_json_schema()["properties"].items()
        if name in wanted
    ]
    return table(("name", "value", "default", "meaning"), rows)


def shown_default(schema: dict[str, Any]) -> str:
    default = schema["default"]
    if isinstance(default, bool):
        default = int(default)
    return "" if default in (None, "", []) else f"`{default}`"
