"""Measures pages of the admin and of the API on a large database.

    DEBUG=1 DATABASE_URL=... python manage.py migrate
    DEBUG=1 DATABASE_URL=... python -m benchmarks.sample_data --sessions 100000 --messages 1000000
    python -m benchmarks.pages DATABASE_URL [--requests 60]

Requests are sent one after the other, from another process, as a browser would.
"""

import argparse
import random
import re
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from benchmarks.measure import machine, median, percentile, table
from tests.support.site import DEFAULTS, Site, User, environment, make_users, run_python, run_site

LIST = "/admin/conversations/chatsession/"
RUNS = "/admin/conversations/run/"
WRITER = "sample-00001"
WARM_UP = 3
LIMIT_MS = 300
SETTINGS = {"LOCAL_MODEL": "off", "AGENT_MODEL": "tour", "API_REQUESTS_PER_MINUTE": "100000"}
Get = Callable[[str], str]


@dataclass(frozen=True)
class Page:
    """A kind of page; its `paths` are requested in turn."""

    name: str
    get: Get
    paths: list[str]


def main() -> None:
    options = read_options()
    env = environment(DATABASE_URL=options.database, **SETTINGS)
    run_python("manage.py", "prepare", env=env)
    writer = make_users(env, WRITER)[WRITER]
    with run_site(DATABASE_URL=options.database, **SETTINGS) as site:
        print(machine(), options.database.partition(":")[0], sep="\n", end="\n\n")
        rows = []
        for page in list_pages(site, writer):
            rows.append(measure(page, options.requests))
            print(*rows[-1], file=sys.stderr)
        print(table(["page", "p50 ms", "p95 ms", f"under {LIMIT_MS} ms"], rows))


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("database", help="a DATABASE_URL that benchmarks.sample_data has filled")
    parser.add_argument("--requests", type=int, default=60, help="of each page")
    return parser.parse_args()


def measure(page: Page, requests: int) -> list[str]:
    """Measure one line of the table."""
    times = [timed(page, number) for number in range(-WARM_UP, requests)][WARM_UP:]
    p95 = percentile(times, 0.95)
    verdict = "yes" if p95 < LIMIT_MS else "NO"
    return [page.name, f"{median(times):.0f}", f"{p95:.0f}", verdict]


def timed(page: Page, number: int) -> float:
    """Return the duration of one request, in milliseconds."""
    path = page.paths[number % len(page.paths)]
    started = time.perf_counter()
    page.get(path)
    return (time.perf_counter() - started) * 1000


def list_pages(site: Site, writer: User) -> Iterator[Page]:
    """List the pages of staff, then those of one person with much data."""
    admin = site.login(User("admin", DEFAULTS["DJANGO_SUPERUSER_PASSWORD"], 0, ""))

    def see(path: str) -> str:
        return answer_of(site, path, {"Cookie": admin})

    def call(path: str) -> str:
        return answer_of(site, path, {"Authorization": f"Bearer {writer.token}"})

    yield Page("admin: sessions", see, [LIST])
    yield Page("admin: sessions, page by page to the 30th", see, walk(see, 30))
    for name, query in FILTERS.items():
        yield Page(f"admin: sessions, {name}", see, [LIST + query])
    yield Page("admin: search, a frequent word", see, [f"{LIST}?q={word}" for word in FREQUENT])
    yield Page("admin: search, rare words", see, [f"{LIST}?q={word}" for word in rare(see)])
    yield Page("admin: a session", see, sessions_of(see, LIST))
    yield Page("admin: the longest sessions", see, sessions_of(see, f"{LIST}?tokens=10000"))
    yield Page("admin: replies", see, [RUNS])
    yield Page(
        "admin: replies that failed yesterday", see, [f"{RUNS}?status=failed&asked=yesterday"]
    )
    yield Page("admin: figures of 7 days", see, [f"{LIST}figures/?days=7"])
    yield Page("API: sessions", call, ["/api/sessions/"])
    yield Page("API: search", call, [f"/api/sessions/?search={word}" for word in FREQUENT])
    ids = re.findall(r'"id":\s*"([0-9a-f-]{36})"', call("/api/sessions/?page_size=50"))
    for part in ("", "messages/", "runs/"):
        paths = [f"/api/sessions/{session_id}/{part}" for session_id in ids]
        yield Page(f"API: a session{part and f', its {part[:-1]}'}", call, paths)


FREQUENT = ("the", "time", "invoice", "question+table", "of+to")
FILTERS = {
    "completed": "?status=completed",
    "failed": "?status=failed",
    "failed yesterday": "?status=failed&asked=yesterday",
    "one error": "?error_code=provider_cut",
    "one model, slow to begin": "?model=local-1.7b&wait=5",
    "costly": "?cost=1",
    "10,000 tokens": "?tokens=10000",
    "one user": "?q=@sample-00500",
    "not reviewed": "?review=left",
    "reviewed": "?review=done",
}


def answer_of(site: Site, path: str, headers: dict[str, str]) -> str:
    answer = site.request("GET", path, headers=headers)
    assert answer.status == 200, f"{path}: {answer.status}"
    return answer.body.decode()


def walk(see: Get, pages: int) -> list[str]:
    """Return the addresses of a list's pages, found by following its links."""
    paths = [LIST]
    while len(paths) < pages:
        following = re.search(r'href="(\?[^"]*)" rel="next"', see(paths[-1]))
        assert following, "too few sessions"
        paths.append(LIST + following[1].replace("&amp;", "&"))
    return paths


def sessions_of(see: Get, path: str) -> list[str]:
    """Return the addresses of the sessions on a list."""
    return re.findall(rf"{LIST}[0-9a-f-]{{36}}/change/", see(path))


def rare(see: Get) -> list[str]:
    """Return rare words of titles: there are 20,000 of them."""
    words = set(
        re.findall(r"\b[a-z]{9,}\b", " ".join(re.findall(r"/change/[^>]*>([^<]*)<", see(LIST))))
    )
    return random.Random(1).sample(sorted(words), min(20, len(words)))


if __name__ == "__main__":
    main()
