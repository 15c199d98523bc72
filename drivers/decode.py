"""Between register words and values, both ways: types, orders, scales, sentinels.

Decoding is on the hot path: each block has its ``struct`` compiled once, holes are pad bytes, and
twenty floats cost a few microseconds.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from math import isfinite
from operator import mul, truediv
from typing import Final

from edge_agent.vocabulary import NOT_A_NUMBER, SENTINEL

TYPES: Final[dict[str, tuple[int, str]]] = {
    "u16": (1, "H"),
    "s16": (1, "h"),
    "u32": (2, "I"),
    "s32": (2, "i"),
    "u64": (4, "Q"),
    "s64": (4, "q"),
    "f32": (2, "f"),
    "f64": (4, "d"),
}
"""Type → registers, struct code. ``bits`` and ``string`` have a count of their own."""
_BITS: Final = {1: "H", 2: "I", 4: "Q"}

# (word order, byte order) → (struct prefix, swap the two bytes of every word first). Low word first
# with ordinary words is little-endian once each word is swapped, so no order needs work per value.
_ORDERS: Final = {
    ("big", "big"): (">", False),
    ("little", "little"): ("<", False),
    ("little", "big"): ("<", True),
    ("big", "little"): (">", True),
}
_EXPONENT: Final = {"big": struct.Struct(">h"), "little": struct.Struct("<h")}
SCALE_EXPONENTS: Final = range(-10, 11)
"""What a SunSpec ``sunssf`` register may hold; anything else (0x8000: not implemented) is no scale."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Register:
    """One value in a meter: where it stands and how it is read.

    ``at``: wire address (0-based). ``count``: registers. ``gain`` and ``shift`` lead from the raw
    value to the quantity's base unit: ``raw * gain + shift``. ``sentinels``: raw values that mean
    "no value". ``scale_from``: address of a decimal exponent that applies to the raw value as well.
    """

    name: str
    at: int
    fc: int
    type: str
    count: int
    gain: Fraction = Fraction(1)
    shift: float = 0.0
    unit: str = ""
    group: str = ""
    doc: str = ""
    sentinels: frozenset[float] = frozenset()
    word_order: str = "big"
    byte_order: str = "big"
    bit: int | None = None
    scale_from: int | None = None

    @property
    def first(self) -> int:
        """Lowest address that must be in the same request."""
        return self.at if self.scale_from is None else min(self.at, self.scale_from)

    @property
    def end(self) -> int:
        """One past the highest address that must be in the same request."""
        end = self.at + self.count
        return end if self.scale_from is None else max(end, self.scale_from + 1)

    @property
    def code(self) -> str:
        """Its ``struct`` code."""
        return _BITS[self.count] if self.type == "bits" else TYPES[self.type][1]

    @property
    def is_float(self) -> bool:
        return self.type in ("f32", "f64")

    def encode(self, value: float, exponent: int = 0) -> bytes:
        """The bytes on the wire that decode to ``value`` (base unit), rounded to the resolution.

        ``exponent``: what stands in ``scale_from``. Raises ValueError when the type cannot hold it.
        """
        if self.bit is not None:
            raw: float = int(value) << self.bit
        elif self.is_float:
            raw = (value - self.shift) / float(self.gain * Fraction(10) ** exponent)
        else:
            raw = round((Fraction(value) - Fraction(self.shift)) / (self.gain * Fraction(10) ** exponent))
        return self.encode_raw(raw)

    def encode_raw(self, raw: float) -> bytes:
        """The bytes on the wire of a raw value, for sentinels and exact words."""
        prefix, swapped = _ORDERS[self.word_order, self.byte_order]
        try:
            data = struct.pack(prefix + self.code, raw)
        except (struct.error, OverflowError) as error:
            raise ValueError(f"{self.name}: {raw} does not fit into {self.type}") from error
        return swap_bytes(data) if swapped else data


def swap_bytes(data: bytes | memoryview) -> bytes:
    """The two bytes of every word exchanged."""
    plain = bytes(data)
    swapped = bytearray(len(plain))
    swapped[0::2] = plain[1::2]
    swapped[1::2] = plain[0::2]
    return bytes(swapped)


class Decoder:
    """Turns the bytes of one block of registers into values. Built once per block."""

    __slots__ = ("_layers",)

    def __init__(self, registers: Iterable[Register], start: int) -> None:
        """``start``: the address of the first register in the data."""
        rows: dict[tuple[str, bool], list[list[Register]]] = {}
        for register in sorted(registers, key=lambda row: (row.at, row.count, row.name)):
            stacks = rows.setdefault(_ORDERS[register.word_order, register.byte_order], [])
            # Two values of one register (bits) cannot stand in one struct: the second opens another.
            for stack in stacks:
                if stack[-1].at + stack[-1].count <= register.at:
                    stack.append(register)
                    break
            else:
                stacks.append([register])
        self._layers = [_Layer(stack, start, *order) for order, stacks in rows.items() for stack in stacks]

    def decode(self, data: bytes | memoryview, values: dict[str, float], absent: dict[str, str]) -> None:
        """Add every value of the block to ``values``, or its reason to ``absent``.

        ``data`` may be longer than the block, never shorter.
        """
        for layer in self._layers:
            layer.decode(data, values, absent)


class _Layer:
    """Registers of one order that do not overlap."""

    __slots__ = (
        "_as_they_are",
        "_dens",
        "_names",
        "_nums",
        "_plain",
        "_rows",
        "_sentinels",
        "_start",
        "_swap",
        "_unpack",
    )

    def __init__(self, rows: list[Register], start: int, prefix: str, swap: bool) -> None:
        codes, at = [prefix], start
        for row in rows:
            codes.append(f"{(row.at - at) * 2}x{row.code}")
            at = row.at + row.count
        self._unpack = struct.Struct("".join(codes)).unpack_from
        self._start = start
        self._swap = swap
        self._rows = rows
        self._names = tuple(row.name for row in rows)
        self._nums = tuple(row.gain.numerator for row in rows)
        self._dens = tuple(row.gain.denominator for row in rows)
        self._plain = all(row.bit is None and row.scale_from is None and not row.shift for row in rows)
        self._as_they_are = all(row.is_float and row.gain == 1 for row in rows)
        self._sentinels = frozenset[float]().union(*(row.sentinels for row in rows))

    def decode(self, data: bytes | memoryview, values: dict[str, float], absent: dict[str, str]) -> None:
        raws = self._unpack(swap_bytes(data) if self._swap else data)
        if self._plain and (not self._sentinels or self._sentinels.isdisjoint(raws)):
            found = raws if self._as_they_are else list(map(truediv, map(mul, raws, self._nums), self._dens))
            if isfinite(sum(found)):  # one NaN or infinity anywhere makes the sum one
                values.update(zip(self._names, found, strict=True))
                return
        for row, raw in zip(self._rows, raws, strict=True):
            self._decode_one(row, raw, data, values, absent)

    def _decode_one(
        self, row: Register, raw: float, data: bytes | memoryview, values: dict[str, float], absent: dict[str, str]
    ) -> None:
        num, den = row.gain.numerator, row.gain.denominator
        if raw in row.sentinels:
            absent[row.name] = SENTINEL
            return
        if row.bit is not None:
            raw = int(raw) >> row.bit & 1
        if row.scale_from is not None:
            (exponent,) = _EXPONENT[row.byte_order].unpack_from(data, (row.scale_from - self._start) * 2)
            if exponent not in SCALE_EXPONENTS:
                absent[row.name] = SENTINEL
                return
            num, den = num * 10 ** max(exponent, 0), den * 10 ** max(-exponent, 0)
        value = raw * num / den + row.shift
        if isfinite(value):
            values[row.name] = value
        else:
            absent[row.name] = NOT_A_NUMBER
