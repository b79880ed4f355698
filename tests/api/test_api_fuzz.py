"""Schemathesis against a running site: whatever it sends, no 5xx and no answer that is not told."""

from collections.abc import Iterator
from typing import Any

import pytest
import requests
import schemathesis
from drf_spectacular.generators import SchemaGenerator
from hypothesis import HealthCheck, Phase, settings
from schemathesis.checks import not_a_server_error
from schemathesis.core.parameters import ParameterLocation
from schemathesis.generation.meta import TestPhase
from schemathesis.schemas import BaseSchema
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.support.site import Site, run_site

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with run_site(
        DJANGO_SETTINGS_MODULE="tests.support.drill_settings",
        API_REQUESTS_PER_MINUTE="1000000",
        REST_WAIT_S="0.2",
    ) as running:
        yield running


@pytest.fixture(scope="module")
def http(site: Site) -> Iterator[requests.Session]:
    """Ann's one connection."""
    with requests.Session() as session:
        session.headers["Authorization"] = f"Bearer {site.users['ann'].token}"
        yield session


@pytest.fixture(scope="module")
def known(site: Site) -> dict[str, str]:
    """Ids that there are."""
    ann = site.users["ann"]
    made = site.request("POST", "/api/chat/", user=ann, data={"content": "hello"}).json()
    return {
        "session_id": made["session_id"],
        "run_id": made["run"]["run_id"],
        "message_id": made["message"]["message_id"],
    }


@pytest.fixture
def document(request: pytest.FixtureRequest) -> BaseSchema:
    """What is told."""
    # Schemathesis reads the name of the test where pytest had it before.
    request.node._nodeid = request.node.nodeid
    return schemathesis.openapi.from_dict(SchemaGenerator().get_schema(public=True))


@pytest.mark.timeout(600)
@settings(
    max_examples=4,
    derandomize=True,
    deadline=None,
    database=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
# One test for all operations: several workers run what has the same name only once.
@schemathesis.pytest.from_fixture("document").parametrize()
def test_every_answer_is_told(
    case: Any, site: Site, http: requests.Session, known: dict[str, str]
) -> None:
    """With ids that nobody has, and with such that there are; one of both where all else is told.

    What is tried of a query or a body tells little behind an address that there is not.
    """
    there = known.keys() & (case.path_parameters or {}).keys()
    is_coverage = case.meta.phase.name is TestPhase.COVERAGE
    is_of_address = case.meta.phase.data.parameter_location is ParameterLocation.PATH
    if not there or not is_coverage or is_of_address:
        case.call_and_validate(base_url=site.origin, session=http, checks=CHECKS)
    if there and not (is_coverage and is_of_address):
        case.path_parameters |= {name: known[name] for name in there}
        case.call_and_validate(base_url=site.origin, session=http, checks=CHECKS)
