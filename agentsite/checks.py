"""System checks for what would work at first and fail later."""

from collections.abc import Sequence
from typing import Any

from django.apps import AppConfig
from django.contrib.staticfiles import finders
from django.core.checks import CheckMessage, Error, Tags, register

Apps = Sequence[AppConfig] | None


@register(Tags.staticfiles)
def check_libraries(app_configs: Apps, **kwargs: Any) -> list[CheckMessage]:
    """They are not part of the sources: without them the chat page is dead."""
    if finders.find("vendor/markdown-it.js"):
        return []
    hint = "Run: pip install -r requirements-build.txt && python scripts/libraries.py"
    return [Error("The libraries of the chat page are missing.", hint=hint, id="agentsite.E003")]
