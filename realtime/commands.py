"""What people ask for, from the database to the worker: the same over a socket and over REST."""

import asyncio
from uuid import UUID

from conversations import actions
from conversations.actions import NewChat, Posted, Stopped
from conversations.errors import AgentSiteError, ErrorCode
from conversations.models import Outcome
from conversations.queries import User
from realtime import dbpool, registry
from realtime.process import Process
from realtime.viewer import Viewer


async def chat(process: Process, viewer: Viewer, new: NewChat) -> Posted:
    """Store a chat, have its reader follow it, and begin to work; raises `AgentSiteError`.

    What is stored is begun, also if the caller is cancelled before it is told.
    """
    if new.agent is not None and new.agent not in registry.agent_names():
        raise AgentSiteError(ErrorCode.UNKNOWN_AGENT)
    work = asyncio.create_task(_chat(process, viewer, new), name="chat")
    return await asyncio.shield(work)


async def _chat(process: Process, viewer: Viewer, new: NewChat) -> Posted:
    with process.gate.asking():
        posted = await viewer.chat(new, process.executor.make_claim())
        if posted.outcome == Outcome.QUEUED:
            process.gate.wake()
    if posted.outcome == Outcome.INTERRUPTING:
        process.executor.interrupt(posted.session_id)
    if posted.claimed is not None:
        process.executor.work_on(posted.claimed)
    return posted


async def cancel(
    process: Process,
    user: User,
    *,
    session_id: str,
    run_id: str | None = None,
    client_message_id: str | None = None,
) -> Stopped:
    """Stop a reply at once; raises `AgentSiteError(not_found)`."""
    stopped = await dbpool.write(
        actions.cancel_run,
        user=user,
        session_id=session_id,
        run_id=run_id,
        client_message_id=client_message_id,
    )
    process.executor.cancel(UUID(stopped.run.run_id))
    if stopped.next_run is not None:
        process.executor.start(stopped.next_run)
    return stopped
