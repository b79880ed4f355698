"""Serves until it is stopped; the first line of its output is the port.

A prompt such as `tokens=400 rate=50` is answered by that many words at that rate a second; any
other is echoed.
"""

import argparse
import asyncio
import sys

from tests.support.provider.script import paced
from tests.support.provider.server import Provider


async def serve(port: int) -> None:
    provider = Provider(paced)
    async with provider.serving(port):
        sys.stdout.write(f"{provider.port}\n")
        sys.stdout.flush()
        await asyncio.Event().wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=0)
    asyncio.run(serve(parser.parse_args().port))


if __name__ == "__main__":
    main()
