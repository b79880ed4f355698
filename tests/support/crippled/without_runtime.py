"""A platform without builds of llama.cpp."""

import sys

from agentsite.local_model import child

if __name__ == "__main__":
    sys.modules["xllamacpp"] = None  # type: ignore[assignment]
    child.main()
