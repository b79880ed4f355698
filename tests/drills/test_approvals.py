"""Requests for approval on real servers: restarts, deaths, other servers, expiry."""

import asyncio
from pathlib import Path

import pytest

from tests.drills.conftest import Cluster, drill_site
from tests.support.approvals import ask, erase, requests, respond, times_run
from tests.support.client import event
from tests.support.kept import converge, read_history, read_kept
from tests.support.provider import Provider, Reply
from tests.support.site import Site, User
from tests.support.transcript import Transcript

DONE = Reply(["Done", "."])
SAID = "I will erase it.\n\nDone."


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Gets a line for each time that `erase` was run."""
    return tmp_path / "file"


async def test_asked_then_killed_then_approved(
    either_site: Site, provider: Provider, path: Path
) -> None:
    site, ann, tab = either_site, either_site.users["ann"], Transcript()
    async with site.chat(ann, tab) as client:
        accepted = await ask(client, provider, erase(path))
        [asked] = requests(client, accepted["run_id"])
        site.kill()
        await client.wait_closed()
    site.start()
    provider.queue(DONE)
    loaded = read_history(site, ann, accepted["session_id"])
    assert loaded.text(accepted["run_id"]) == "I will erase it."
    async with site.chat(ann, tab) as client, site.chat(ann, loaded) as reader:
        await client.resume(accepted["session_id"])
        await reader.resume(accepted["session_id"])
        told = await respond(client, accepted, asked["request_id"], "approve")
        assert not told["duplicate"]
        end = await client.wait_end(accepted["run_id"])
        again = await client.chat("Go on", accepted["session_id"])
        await client.wait_end(again["run_id"])
        await converge(site, ann, accepted["session_id"], client, reader)
    assert end["content"] == SAID
    assert end["metadata"]["epoch"] == 1
    assert times_run(path) == 1
    assert [call.refusal for call in provider.calls] == [""] * 3


async def test_approved_and_killed_at_once(
    site: Site, ann: User, provider: Provider, path: Path
) -> None:
    """Whether the tool had begun or not: it is run once at most, and the run has one end."""
    async with site.chat(ann) as client:
        accepted = await ask(client, provider, erase(path))
        [asked] = requests(client, accepted["run_id"])
        provider.queue(DONE)
        await respond(client, accepted, asked["request_id"], "approve")
        site.kill()
    site.start()
    async with site.chat(ann) as client:
        await client.resume(accepted["session_id"], rev=0)
        kept = await converge(site, ann, accepted["session_id"], client, within=30)
        again = await client.chat("Go on", accepted["session_id"])
        await client.wait_end(again["run_id"])
    reply = kept.reply(accepted["run_id"])
    assert reply["run_status"] in ("completed", "interrupted")
    assert times_run(path) <= 1
    assert times_run(path) == 1 or reply["run_status"] == "interrupted"
    assert [call.refusal for call in provider.calls if call.refusal] == []


async def test_asked_before_a_deploy_and_rejected_after_it(
    site: Site, ann: User, provider: Provider, path: Path
) -> None:
    async with site.chat(ann) as client:
        accepted = await ask(client, provider, erase(path))
        [asked] = requests(client, accepted["run_id"])
    site.terminate()
    site.start()
    provider.queue(Reply(["Then not."]))
    answer = site.request(
        "POST",
        f"/api/approvals/{asked['request_id']}/",
        user=ann,
        data={"decision": "reject", "message": "I need it"},
    )
    assert answer.status == 200, answer.body
    async with site.chat(ann) as client:
        await client.resume(accepted["session_id"], rev=0)
        kept = await converge(site, ann, accepted["session_id"], client)
    assert kept.reply(accepted["run_id"])["text"] == "I will erase it.\n\nThen not."
    assert times_run(path) == 0


async def test_asked_by_one_server_and_approved_at_the_other(
    cluster: Cluster, provider: Provider, path: Path
) -> None:
    ann = cluster.ann
    async with cluster.one.chat(ann) as near, cluster.two.chat(ann) as far:
        accepted = await ask(near, provider, erase(path))
        await far.resume(accepted["session_id"], rev=0)
        await far.wait_for(event("input.requested"))
        [asked] = requests(far, accepted["run_id"])
        provider.queue(DONE)
        told = await asyncio.gather(
            respond(far, accepted, asked["request_id"], "approve"),
            respond(near, accepted, asked["request_id"], "approve"),
        )
        assert sorted(answer["duplicate"] for answer in told) == [False, True]
        ends = [await tab.wait_end(accepted["run_id"]) for tab in (near, far)]
        await converge(cluster.one, ann, accepted["session_id"], near, far)
    assert ends[0] == ends[1]
    assert ends[0]["content"] == SAID
    assert times_run(path) == 1


async def test_nobody_answers(provider: Provider, path: Path) -> None:
    with drill_site(provider, APPROVAL_EXPIRES_S="0.5") as site:
        ann = site.users["ann"]
        async with site.chat(ann) as client:
            accepted = await ask(client, provider, erase(path))
            end = await client.wait_end(accepted["run_id"])
            assert end["metadata"]["finish_reason"] == "interrupted"
            assert end["metadata"]["reason"] == "approval_expired"
            assert len(provider.calls) == 1
            again = await client.chat("Go on", accepted["session_id"])
            await client.wait_end(again["run_id"])
        kept = read_kept(site, ann, accepted["session_id"])
    [request] = [p for p in kept.reply(accepted["run_id"])["parts"] if p["type"] == "approval"]
    assert request["decision"] == "expired"
    assert times_run(path) == 0
    assert [call.refusal for call in provider.calls] == ["", ""]
