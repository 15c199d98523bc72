"""Reading a FlatBuffer without trusting it: every offset is checked before it is followed.

Source: FlatBuffers internals. A table begins with the (signed) distance back to its vtable, which holds the
position of each field, 0 where it is absent. Vectors begin with their length; all numbers are little-endian.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final

from edge_agent.errors import BundleError

_MOST: Final = 500_000  # steps: a model of a few thousand operators needs a tenth


class Buffer:
    """The bytes, and how much was looked at."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self._left = _MOST

    def root(self) -> Table:
        """The outermost table. Raises BundleError, as everything here, where something lies outside."""
        return Table(self, self.number("<I", 0))

    def number(self, form: str, at: int) -> int:
        """One number; ``form`` as in :mod:`struct`."""
        self._left -= 1
        if self._left < 0:
            raise BundleError("is a FlatBuffer of too many parts")
        try:
            if at < 0:
                raise BundleError("is damaged: an offset leads outside")
            value: int = struct.unpack_from(form, self.data, at)[0]
        except struct.error:
            raise BundleError("is damaged: an offset leads outside") from None
        return value

    def vector(self, at: int, item_bytes: int) -> tuple[int, int]:
        """Where the items begin, and how many there are."""
        count = self.number("<I", at)
        if count * item_bytes > len(self.data) - at - 4:
            raise BundleError("is damaged: it ends too early")
        return at + 4, count


class Table:
    """A table; fields are named by their number in the schema, from 0."""

    def __init__(self, buffer: Buffer, at: int) -> None:
        self._buffer = buffer
        self._at = at
        self._vtable = at - buffer.number("<i", at)
        self._size = buffer.number("<H", self._vtable)

    def _field(self, number: int) -> int | None:
        where = 4 + 2 * number
        if where + 2 > self._size:
            return None
        offset = self._buffer.number("<H", self._vtable + where)
        return self._at + offset if offset else None

    def number(self, field: int, form: str, default: int = 0) -> int:
        at = self._field(field)
        return default if at is None else self._buffer.number(form, at)

    def table(self, field: int) -> Table | None:
        at = self._field(field)
        return None if at is None else Table(self._buffer, at + self._buffer.number("<I", at))

    def _vector(self, field: int, item_bytes: int) -> tuple[int, int]:
        at = self._field(field)
        return (0, 0) if at is None else self._buffer.vector(at + self._buffer.number("<I", at), item_bytes)

    def count(self, field: int, item_bytes: int = 4) -> int:
        """Items in a vector, 0 where it is absent."""
        return self._vector(field, item_bytes)[1]

    def numbers(self, field: int, form: str = "<i") -> list[int]:
        """A vector of numbers."""
        first, count = self._vector(field, struct.calcsize(form))
        return [self._buffer.number(form, first + struct.calcsize(form) * index) for index in range(count)]

    def tables(self, field: int) -> Iterator[Table]:
        """A vector of tables."""
        first, count = self._vector(field, 4)
        for index in range(count):
            at = first + 4 * index
            yield Table(self._buffer, at + self._buffer.number("<I", at))
