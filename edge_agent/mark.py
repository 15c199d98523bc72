"""One byte that outlives a process: who was being asked when it ended.

The parent makes it and passes it on; whoever judges over there writes a number before asking somebody and 0
afterwards. When the process crashed or had to be killed, the byte says whose fault it was.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

NOBODY: Final = 0
LARGEST: Final = 255


class Mark:
    """One end of it; both see the same byte."""

    def __init__(self, number: int) -> None:
        """``number``: file descriptor, taken over."""
        self.number = number
        self._byte = mmap.mmap(number, 1)

    @classmethod
    def fresh(cls) -> Mark:
        """Raises OSError where no memory is left."""
        number = os.memfd_create("mark")
        os.ftruncate(number, 1)
        return cls(number)

    @property
    def asked(self) -> int:
        """Who is being asked, or was at the end."""
        return self._byte[0]

    @contextmanager
    def asking(self, who: int) -> Iterator[None]:
        """While this lasts, ``who`` (1 to ``LARGEST``) is to blame for whatever happens to the process."""
        self._byte[0] = who
        try:
            yield
        finally:
            self._byte[0] = NOBODY

    def close(self) -> None:
        self._byte.close()
        os.close(self.number)
