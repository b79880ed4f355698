"""An MCP server over standard input and output: `python -m tests.support.mcp_server [FILE]`.

It writes its process id to FILE.
"""

import os
import sys
from pathlib import Path

from mcp.server.mcpserver import Image, MCPServer

server = MCPServer("depth")


@server.tool()
def depth_of(water: str) -> str:
    """How deep a water is."""
    return f"The {water} is {len(water)} metres deep."


@server.tool()
def photo() -> Image:
    """A picture of the water."""
    return Image(data=b"\x89PNG" + bytes(range(256)) * 10, format="png")


@server.tool()
def drain() -> str:
    """Always fails."""
    raise ValueError("the plug is stuck")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        Path(sys.argv[1]).write_text(str(os.getpid()))
    server.run("stdio")
