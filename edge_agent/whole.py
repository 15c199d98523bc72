"""Files that are whole or were never touched, also after a kill or a power cut."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Final

UNFINISHED: Final = ".part"


@contextmanager
def whole(path: Path) -> Iterator[BinaryIO]:
    """What is written stands at ``path`` once all of it is on the disk; raises OSError with the file as it was.

    A kill in the middle leaves ``.<name>.<pid>.part`` behind, which nobody reads.
    """
    fresh = path.with_name(f".{path.name}.{os.getpid()}{UNFINISHED}")
    try:
        with fresh.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
    finally:
        fresh.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
