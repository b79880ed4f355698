"""Schemathesis against a running site: whatever it sends, no 5xx and no answer that is not told."""

from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from drf_spectacular.generators import SchemaGenerator
from hypothesis import HealthCheck, Phase, settings
from schemathesis.checks import not_a_server_error
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
REAL = ("session_id", "run_id", "message_id")


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with run_site(
        DJANGO_SETTINGS_MODULE="tests.support.drill_settings",
        API_REQUESTS_PER_MINUTE="1000000",
        REST_WAIT_S="0.2",
    ) as running:
        yield running


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


api = schemathesis.openapi.from_dict(SchemaGenerator().get_schema(public=True))


@api.parametrize()
@settings(
    max_examples=4,
    derandomize=True,
    deadline=None,
    database=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
def test_every_answer_is_told(case: Any, site: Site, known: dict[str, str]) -> None:
    """Both with ids that nobody has and with such that there are."""
    headers = {"Authorization": f"Bearer {site.users['ann'].token}"}
    case.call_and_validate(base_url=site.origin, headers=headers, checks=CHECKS)
    if set(REAL) & set(case.path_parameters or ()):
        case.path_parameters |= {
            name: value for name, value in known.items() if name in case.path_parameters
        }
        case.call_and_validate(base_url=site.origin, headers=headers, checks=CHECKS)
