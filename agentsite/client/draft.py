"""A file that is there whole or not at all."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import IO


@contextlib.contextmanager
def draft_of(file: Path) -> Iterator[IO[bytes]]:
    """To be written to; takes its name, and the place of what has it, at the end of the block."""
    with NamedTemporaryFile(dir=file.parent, prefix=f".{file.name}.", delete=False) as draft:
        try:
            yield draft
        except BaseException:
            Path(draft.name).unlink()
            raise
    Path(draft.name).replace(file)
