"""An MCP server over standard input and output: `python -m tests.support.mcp_server [FILE]`.

It writes its process id to FILE.
"""

import os
import sys
from pathlib import Path

from mcp.server.mcpserver import MCPServer

server = MCPServer("depth")


@server.tool()
def depth_of(water: str) -> str:
    """How deep a water is."""
    return f"The {water} is {len(water)} metres deep."


if __name__ == "__main__":
    if len(sys.argv) > 1:
        Path(sys.argv[1]).write_text(str(os.getpid()))
    server.run("stdio")
