"""Writes the parts of docs/ that are generated from the code."""

import os
import re
import sys
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BLOCK = re.compile(r"(<!-- from the code: ([\w -]+) -->\n).*?(<!-- end -->)", re.DOTALL)
PAGES = ("docs/architecture.md", "docs/protocol.md", "docs/operations.md")


def blocks() -> dict[str, Callable[[], str]]:
    """Return the generators of blocks, by the name in the marker."""
    import metrics_doc
    import modules_doc
    import protocol_doc
    import settings_doc

    return {
        "packages": modules_doc.packages,
        "modules": modules_doc.modules,
        "frames": protocol_doc.frames,
        "error codes": protocol_doc.error_codes,
        "metrics": metrics_doc.metrics,
        "site settings": settings_doc.site_settings,
        "real-time settings": settings_doc.realtime_settings,
    }


def render(text: str) -> str:
    """Return a page with every block generated again; raises `KeyError` for an unknown block."""
    made = blocks()
    return BLOCK.sub(lambda found: f"{found[1]}\n{made[found[2]]()}\n\n{found[3]}", text)


def outdated() -> list[str]:
    """Return the pages that differ from what the code generates."""
    return [page for page in PAGES if render(read(page)) != read(page)]


def read(page: str) -> str:
    return (ROOT / page).read_text()


def main() -> None:
    sys.path.insert(0, str(ROOT))
    os.environ.setdefault("DEBUG", "1")
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "agentsite.settings")
    import django

    django.setup()
    for page in outdated():
        (ROOT / page).write_text(render(read(page)))
        print(f"agentsite: wrote {page}")


if __name__ == "__main__":
    main()
