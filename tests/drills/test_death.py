"""The only server dies as by `kill -9`, and is started again."""

import asyncio
from pathlib import Path

from tests.drills.conftest import TAKEOVER_S, WRITTEN_ANEW, begin_behind_a_tool
from tests.support.approvals import times_run
from tests.support.client import event
from tests.support.kept import converge, read_kept
from tests.support.provider import Call, Gate, Provider, Reply, words
from tests.support.site import Site, User
from tests.support.transcript import Transcript

"""A lease and a sweep, and what two busy cores may add."""


async def test_what_was_shown_is_kept_and_the_rest_is_answered(
    site: Site, ann: User, provider: Provider, tmp_path: Path
) -> None:
    """Of four runs one has shown text, one waits behind it, one waits for its first token.

    The fourth is writing behind a tool.
    """
    cut = Reply(words(30), gate=Gate(5))
    unheard = Reply(words(5), hold=Gate())
    shown = cut.start(5)
    file = tmp_path / "file"
    talk, quiet = Transcript(), Transcript()
    async with site.chat(ann, talk) as client, site.chat(ann, quiet) as other:
        behind = await begin_behind_a_tool(other, provider, file)
        provider.queue(cut)
        working = await client.chat("Tell me of the mill")
        await client.resume(working["session_id"])
        await client.wait_text(working["run_id"], shown)
        waiting = await client.chat("And then?", working["session_id"])
        provider.queue(unheard)
        silent = await other.chat("Are you there?")
        await other.resume(silent["session_id"])
        await provider.until(lambda provider: len(provider.calls) == 4)
        site.kill()
        await asyncio.gather(client.wait_closed(), other.wait_closed())
    site.start()
    async with site.chat(ann, talk) as client, site.chat(ann, quiet) as other:
        before = read_kept(site, ann, working["session_id"])
        assert before.prompts == ["Tell me of the mill", "And then?"]
        assert before.reply(working["run_id"])["text"].startswith(shown)
        await client.resume(working["session_id"])
        await other.resume(silent["session_id"])
        await other.resume(behind["session_id"])
        end = await client.wait_end(working["run_id"], within=TAKEOVER_S)
        assert end["content"] == shown
        assert end["metadata"]["finish_reason"] == "interrupted"
        assert end["metadata"]["reason"] == "worker_lost"
        # What had shown nothing is answered by itself, as a second try.
        await other.wait_for(event("run.reset", run_id=silent["run_id"]), within=TAKEOVER_S)
        answer = await other.wait_end(silent["run_id"])
        assert answer["content"] == "You said: Are you there?"
        assert answer["metadata"]["epoch"] == 2
        whole = await other.wait_end(behind["run_id"], within=TAKEOVER_S)
        assert whole["content"] == WRITTEN_ANEW
        assert times_run(file) == 1
        await converge(site, ann, behind["session_id"], other)
        again = await client.chat("Go on", working["session_id"])
        await client.wait_end(again["run_id"])
        kept = await converge(site, ann, working["session_id"], client)
        await converge(site, ann, silent["session_id"], other)
    assert kept.reply(working["run_id"])["reason"] == "worker_lost"
    assert kept.reply(waiting["run_id"])["text"] == "You said: And then?"
    assert [call.refusal for call in provider.calls if call.refusal] == []
    assert said_by_assistant(provider.calls[-1])[0] == shown


def said_by_assistant(call: Call) -> list[str]:
    return [item["content"] for item in call.input if item["role"] == "assistant"]
