"""Why there is no model, as the child tells it to its parent."""

from enum import StrEnum
from typing import Any


class Fault(StrEnum):
    """Each is told to people by one line of `words.FAULTS`, with the values named there."""

    UNREACHABLE = "unreachable"
    MIRROR_OFF = "mirror_off"
    WRONG_HASH = "wrong_hash"
    NO_ROOM = "no_room"
    NO_FOLDER = "no_folder"
    NO_MEMORY = "no_memory"
    NO_AVX2 = "no_avx2"
    NO_RUNTIME = "no_runtime"
    NOT_A_MODEL = "not_a_model"
    CRASHES = "crashes"


class LocalModelError(Exception):
    """There will be no model for that reason; sizes among `values` are in bytes."""

    def __init__(self, fault: Fault, **values: Any) -> None:
        super().__init__(fault.value)
        self.fault = fault
        self.values = values


class SourceError(Exception):
    """One source does not give the file, or not all of it; another one may."""
