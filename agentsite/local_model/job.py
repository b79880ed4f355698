"""What a child is told to do, by the first line of its standard input."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from agentsite.local_model.weights import Weights


@dataclass(frozen=True)
class Job:
    """`key` is what clients must show; it is in no argument and no log."""

    weights: Weights
    folder: Path
    mirror: bool
    key: str

    def encode(self) -> bytes:
        """One line."""
        given: dict[str, Any] = {**asdict(self), "folder": str(self.folder)}
        return json.dumps(given).encode() + b"\n"


def decode(line: bytes) -> Job:
    """The job in a line."""
    given = json.loads(line)
    weights = Weights(**{**given["weights"], "parts": tuple(given["weights"]["parts"])})
    return Job(weights, Path(given["folder"]), given["mirror"], given["key"])
