"""The environment of in-process tests, made before Django reads it."""

import atexit
import contextlib
import os
import shutil
import sys
import tempfile
from pathlib import Path

import libraries
from venvs import Venv

from tests.support import machine
from tests.support.machine import FULL_CROWDS, SHARED_DIR, STEPS
from tests.support.servers import ON_SERVERS, POSTGRES_URL, start_for_session
from tests.support.site import INHERITED

WORK_DIR = tempfile.mkdtemp(prefix="agentsite-tests-")
atexit.register(shutil.rmtree, WORK_DIR, ignore_errors=True)

# Settings that a developer has for a site of their own stay out of the tests.
BROUGHT = ("AGENTSITE_CHROMIUM", "AGENTSITE_AIMOCK")
KEPT = (*INHERITED, SHARED_DIR, FULL_CROWDS, STEPS, ON_SERVERS, POSTGRES_URL, *BROUGHT, "CI")
for name in set(os.environ).difference(KEPT):
    if not name.startswith(("PYTEST_", "PIP_", "npm_", "SSL_", "LC_")):
        del os.environ[name]

os.environ |= {
    "DJANGO_SETTINGS_MODULE": "tests.support.inprocess_settings",
    "DEBUG": "1",
    "SECRET_KEY": "for-tests-only-" * 4,
    "DATABASE_URL": f"sqlite:///{WORK_DIR}/db.sqlite3",
    "LOG_LEVEL": "WARNING",
    # Nothing is fetched by accident.
    "AGENT_MODEL": "tour",
    "API_REQUESTS_PER_MINUTE": "1000000",
}
SERVERS = contextlib.ExitStack()
atexit.register(SERVERS.close)
os.environ |= start_for_session(SERVERS)

# Sites that are started find the page's libraries in place.
if "PYTEST_XDIST_WORKER" not in os.environ:
    libraries.bring(Venv(Path(sys.prefix)))

with machine.measuring():
    import agents  # noqa: F401
    import django

    django.setup()

from collections import defaultdict  # noqa: E402
from collections.abc import AsyncIterator, Generator, Iterator  # noqa: E402

import hypothesis  # noqa: E402
import pytest  # noqa: E402

from realtime.process import Process, get_process  # noqa: E402
from tests.support import thrift  # noqa: E402
from tests.support.processes import describe_children  # noqa: E402

# A busy machine is no failure, and the same examples come each time, so that a change is not judged
# by luck. `make test ARGS="--hypothesis-profile=explore"` looks for new ones.
hypothesis.settings.register_profile("explore", deadline=None, derandomize=False)
hypothesis.settings.register_profile("same", deadline=None, derandomize=True, database=None)
hypothesis.settings.load_profile("same")

pytest_plugins = ["tests.support.fixtures", "tests.support.agent_site"]

TEST_TIMEOUT_S = 120


def pytest_configure(config: pytest.Config) -> None:
    """Before there are workers, which find the directory by the environment."""
    machine.shared_dir()
    if os.environ.get(ON_SERVERS):
        # Nothing is dropped, since connections of threads remain; the server ends with the session.
        config.option.reuse_db = True


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip, on servers, what is about SQLite or the layer in memory."""
    if os.environ.get(ON_SERVERS) and (marked := item.get_closest_marker("in_process")):
        pytest.skip(marked.args[0])


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Test files are rewritten by one worker, and read by the others."""
    with thrift.first_alone():
        collected = yield
    thrift.keep_for_good()
    return collected


@pytest.fixture(scope="session", autouse=True)
def work_is_done_once() -> Iterator[None]:
    with thrift.once_a_process():
        yield


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Scale what each test may take; crowds come last."""
    for item in items:
        marked = item.get_closest_marker("timeout")
        seconds = marked.args[0] if marked else TEST_TIMEOUT_S
        item.add_marker(pytest.mark.timeout(machine.scaled(seconds)), append=False)
    items.sort(key=is_crowd)


def is_crowd(item: pytest.Item) -> bool:
    return item.get_closest_marker("crowd") is not None


@pytest.hookimpl(tryfirst=True, wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, bool, bool]:
    """What loads the machine on purpose has it for itself; waiting for it is not timed."""
    with machine.turn(item.nodeid, alone=is_crowd(item)):
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A failure tells what the machine was doing."""
    report = yield
    if report.failed:
        report.sections.append(("machine", f"{machine.describe()}\n{describe_children()}"))
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """The time of the tests by folder, added up over all workers."""
    spent: dict[str, float] = defaultdict(float)
    for reports in terminalreporter.stats.values():
        for report in reports:
            if isinstance(report, pytest.TestReport):
                spent[str(Path(report.nodeid.partition("::")[0]).parent)] += report.duration
    terminalreporter.section("time by folder")
    for folder, seconds in sorted(spent.items(), key=lambda entry: -entry[1]):
        terminalreporter.write_line(f"{seconds:7.0f}s {folder}")


@pytest.fixture
async def process(transactional_db: None) -> AsyncIterator[Process]:
    """The background services of this test's event loop."""
    running = get_process()
    yield running
    await running.drain(0)
    await running.stop()
