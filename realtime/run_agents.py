"""The agents of one run: copies, so that what every run sets changes nothing of the site's own."""

import copy
import weakref
from typing import Any

from agents import Agent, Handoff

from realtime.tool_servers import handoff_target


def copy_agent(agent: Agent[Any]) -> Agent[Any]:
    """A copy of an agent and of all that it may hand over to, with tools and guardrails copied.

    Models, tool servers and agents that are tools are shared. Input guardrails of the copies go
    before the model: beside it they would let tokens out before they have decided.
    """
    return _Copies().agent(agent)


class _Copies:
    """One copy of each agent, by the identity of the original: handoffs may go in a circle."""

    def __init__(self) -> None:
        self._made: dict[int, Agent[Any]] = {}

    def agent(self, original: Agent[Any]) -> Agent[Any]:
        if (known := self._made.get(id(original))) is not None:
            return known
        made = self._made[id(original)] = copy.copy(original)
        # What a handoff makes is asked for again when it has been copied already.
        self._made[id(made)] = made
        made.tools = [copy.copy(tool) for tool in original.tools]
        made.input_guardrails = [copy.copy(guardrail) for guardrail in original.input_guardrails]
        for guardrail in made.input_guardrails:
            guardrail.run_in_parallel = False
        made.handoffs = [self._handoff(handoff) for handoff in original.handoffs]
        return made

    def _handoff(self, original: Any) -> Any:
        if isinstance(original, Agent):
            return self.agent(original)
        made: Handoff[Any, Any] = copy.copy(original)

        async def invoke(context: Any, arguments: str) -> Agent[Any]:
            return self.agent(await original.on_invoke_handoff(context, arguments))

        made.on_invoke_handoff = invoke
        if (target := handoff_target(original)) is not None:
            # The copies outlive this reference: `invoke` holds on to all of them.
            made._agent_ref = weakref.ref(self.agent(target))
        return made
