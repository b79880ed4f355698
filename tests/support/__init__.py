"""Real parts for tests and benchmarks: servers, a stand-in for the model, strict clients."""

import sys
from pathlib import Path

# Benchmarks are run without pytest, which has `scripts` on its path.
if (scripts := str(Path(__file__).resolve().parents[2] / "scripts")) not in sys.path:
    sys.path.append(scripts)
