"""An old processor, by its description in the system."""

import tempfile
from pathlib import Path

from agentsite.local_model import child, weights

if __name__ == "__main__":
    with tempfile.NamedTemporaryFile("w") as info:
        info.write("flags\t\t: fpu sse sse2 ssse3 avx\n")
        info.flush()
        weights.CPU_INFO = Path(info.name)
        child.main()
