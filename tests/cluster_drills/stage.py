"""What a drill is given: a cluster, and the model's server behind it."""

import contextlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import cast

from tests.drills.conftest import Cluster as Pair
from tests.support.cluster import Cluster, ClusterValkey
from tests.support.processes import Child
from tests.support.provider import Provider, echo, run_provider
from tests.support.servers import Valkey, scratch_dir
from tests.support.site import ROOT, Site, User

SETTINGS = {
    "DJANGO_SETTINGS_MODULE": "tests.support.drill_settings",
    "AGENT_MODEL": "stand-in",
    "AGENT_API": "chat",
    "API_REQUESTS_PER_MINUTE": "1000000",
    "FRAMES_PER_MINUTE": "10000",
    "RUNS_PER_USER": "10000",
    "TOKENS_PER_DAY": "0",
    "PROVIDER_RETRIES": "0",
    "DRAIN_S": "120",
    # While one of two workers is restarted, the other one has room for all.
    "RUNS_PER_WORKER": "400",
}
"""Only limits differ from the defaults: all clocks run as in production."""

SCRIPTED = {"OUTPUT_TOKENS": "1000000", "PROVIDER_TIMEOUT_S": "10", "SEND_TIMEOUT_S": "5"}
LOSSY = {"DJANGO_SETTINGS_MODULE": "tests.support.lossy_settings"}


@dataclass
class Stage:
    """One running cluster. `provider` is None where the model's server has its own process."""

    cluster: Cluster
    provider: Provider | None = None
    kills: int = 200
    streams: int = 300

    @property
    def site(self) -> Site:
        """The site as its proxy serves it."""
        return self.cluster.site

    @property
    def ann(self) -> User:
        return self.site.users["ann"]

    @property
    def model(self) -> Provider:
        """The scripted model, with nothing left over from the drill before."""
        assert self.provider is not None
        self.provider.forget()
        self.provider.script = echo
        return self.provider

    @property
    def pair(self) -> Pair:
        """The two web processes without the proxy, as the drills of two servers have them."""
        cluster = self.cluster
        return Pair(cluster.web(1), cluster.web(2), cast(Valkey, ClusterValkey(cluster)))


@contextlib.contextmanager
def paced_stage() -> Iterator[Stage]:
    """Its model writes as many words as it is asked for, in a process of its own."""
    with _paced_model() as url, _running(url) as cluster:
        yield Stage(cluster)


@contextlib.contextmanager
def wide_stage() -> Iterator[Stage]:
    """The same with twice as many processes of the site: those that are killed in turn live longer
    than the time after which the cluster starts them again without a pause.
    """
    with _paced_model() as url, _running(url, 4) as cluster:
        yield Stage(cluster)


@contextlib.contextmanager
def lossy_stage() -> Iterator[Stage]:
    """As `paced_stage`, and its channel layer loses, repeats and reorders what is sent."""
    with _paced_model() as url, _running(url, **LOSSY) as cluster:
        yield Stage(cluster)


@contextlib.contextmanager
def scripted_stage() -> Iterator[Stage]:
    """Its model says what the drill scripts, token by token."""
    with run_provider() as provider, _running(provider.base_url, **SCRIPTED) as cluster:
        yield Stage(cluster, provider)


@contextlib.contextmanager
def _paced_model() -> Iterator[str]:
    with scratch_dir("model") as folder:
        model = Child(
            [sys.executable, "-m", "tests.support.provider"], folder / "model.log", cwd=ROOT
        )
        model.start(lambda: model.log)
        try:
            yield f"http://127.0.0.1:{int(model.log.splitlines()[0])}/v1"
        finally:
            model.kill()


@contextlib.contextmanager
def _running(model_url: str, size: int = 2, /, **changes: str) -> Iterator[Cluster]:
    with scratch_dir("cluster") as folder:
        cluster = Cluster(folder, model_url, size, **SETTINGS | changes)
        try:
            cluster.start()
            yield cluster
        finally:
            cluster.process.kill()
