"""A stand-in for an OpenAI-compatible server: in a thread, or by `-m tests.support.provider`."""

from tests.support.provider.script import Call, Gate, Reply, Script, ToolCall, echo, paced, words
from tests.support.provider.server import Provider, run_provider

__all__ = [
    "Call",
    "Gate",
    "Provider",
    "Reply",
    "Script",
    "ToolCall",
    "echo",
    "paced",
    "run_provider",
    "words",
]
