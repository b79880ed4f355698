"""Measures what a shared conversation costs the server: first view, later views, and revalidation.

    python -m benchmarks.shared [--messages 2000] [--rounds 5]

All pages of the conversation are requested one after the other, without an account. The first view
renders Markdown, since nobody has read these replies before. Linux only.
"""

import argparse
import os
import re
import sys

import django

from benchmarks.measure import cpu_ms, machine, median, table
from tests.support.site import Site, run_python, run_site

PARAGRAPH = (
    "Here is **some** text with `code`, a [link](https://example.org/x) and more words to fill "
    "a line of it.\n\n- one\n- two\n\n```python\nx = 1\n```\n\n"
)
REPLY_CHARS = 2_048
WARM_UP = "/accounts/login/"
"""Requested first, so that the process has loaded what every page needs."""

NEXT = re.compile(r'rel="next" href="([^"]*)"')
Pages = dict[str, str]


def main() -> None:
    options = read_options()
    if options.fill:
        sys.stdout.write(fill(options.fill, options.messages))
        return
    rows = []
    for _ in range(options.rounds):
        with run_site() as site:
            rows.append(measure(site, share(site, options.messages)))
    print(machine(), end="\n\n")
    head = [f"{options.messages:,} messages", "requests", "bytes", "CPU ms"]
    print(table(head, [summed(found) for found in zip(*rows, strict=True)]))


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--messages", type=int, default=2_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--fill", type=int, help=argparse.SUPPRESS)
    return parser.parse_args()


def share(site: Site, messages: int) -> str:
    """Return the address behind a share link to a long conversation, created by another process."""
    owner = str(site.users["ann"].pk)
    arguments = ("--fill", owner, "--messages", str(messages))
    token = run_python("-m", "benchmarks.shared", *arguments, env=site.env)
    site.request("GET", WARM_UP)
    return f"/shared/{token}/"


Row = tuple[str, int, int, float]


def measure(site: Site, address: str) -> list[Row]:
    """Run the views in turn; returns each one's name, requests, bytes and CPU milliseconds."""
    tags: Pages = {}
    rows = [
        ("first view", *view(site, address, {}, tags)),
        ("second view", *view(site, address, {}, {})),
        ("asked again with `If-None-Match`", *view(site, address, tags, {})),
    ]
    site.terminate()
    site.start()
    site.request("GET", WARM_UP)
    return [*rows, ("first view by another process", *view(site, address, {}, {}))]


def view(site: Site, address: str, known: Pages, seen: Pages) -> tuple[int, int, float]:
    """Request every page: `known` ones by ETag, else along links; `seen` collects ETags."""
    before, size, count = cpu_ms(site.process.pid), 0, 0
    waiting = list(known) or [address]
    while waiting:
        path = waiting.pop()
        headers = {"If-None-Match": known[path]} if path in known else {}
        answer = site.request("GET", path, headers=headers)
        assert answer.status == (304 if headers else 200), f"{path}: {answer.status}"
        seen[path] = answer.headers.get("ETag", "")
        size, count = size + len(answer.body), count + 1
        if link := NEXT.search(answer.body.decode()):
            waiting.append(address + link[1])
    return count, size, cpu_ms(site.process.pid) - before


def summed(found: tuple[Row, ...]) -> list[str]:
    """Return a line of the table: the median CPU time of all rounds."""
    name, count, size, _ = found[0]
    return [name, f"{count}", f"{size:,}", f"{median([row[3] for row in found]):,.0f}"]


def fill(owner_id: int, count: int) -> str:
    """Create a conversation with `count` messages, half of them replies; returns a link's token."""
    os.environ["DJANGO_SETTINGS_MODULE"] = "agentsite.settings"
    django.setup()
    from conversations.models import ChatSession, Message, Role, Run, RunStatus
    from conversations.queries import get_user
    from conversations.sessions.sharing import create_share

    session = ChatSession.objects.create(owner_id=owner_id, title="long", message_count=count)
    text = (PARAGRAPH * (REPLY_CHARS // len(PARAGRAPH) + 1))[:REPLY_CHARS]
    messages: list[Message] = []
    for number in range(1, count + 1):
        is_reply = number % 2 == 0
        role = Role.ASSISTANT if is_reply else Role.USER
        message = Message(session=session, number=number, role=role, rev=1)
        message.parts = [{"type": "text", "text": text if is_reply else "a question"}]
        message.parent = messages[-1] if messages else None
        messages.append(message)
    Message.objects.bulk_create(messages, batch_size=500)
    pairs = zip(messages[::2], messages[1::2], strict=False)
    runs = [
        Run(
            session=session,
            owner_id=owner_id,
            number=number,
            status=RunStatus.COMPLETED,
            prompt=prompt,
            reply=reply,
        )
        for number, (prompt, reply) in enumerate(pairs, 1)
    ]
    Run.objects.bulk_create(runs, batch_size=500)
    session.active_leaf = messages[-1]
    session.save()
    _, token = create_share(user=get_user(owner_id), session_id=str(session.pk))
    return token


if __name__ == "__main__":
    main()
