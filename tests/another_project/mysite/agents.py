"""The agents of this site, and what they may do."""

from agents import Agent, function_tool
from agents.tool_context import ToolContext

from conversations.queries import get_user
from realtime import dbpool
from realtime.registry import AgentEntry
from realtime.work.run_context import RunContext


@function_tool
async def look_up_account(context: ToolContext[RunContext]) -> str:
    """Find out whom you are talking to."""
    customer = await dbpool.read_first(get_user, context.context.user_id)
    return f"The customer's address is {customer.get_username()}."


AGENTS = [
    AgentEntry(
        Agent[RunContext](
            name="clerk",
            instructions="You help the customers of our shop. Answer briefly.",
            tools=[look_up_account],
        )
    )
]
