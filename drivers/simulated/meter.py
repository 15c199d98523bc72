"""The twin of a Modbus meter: the registers of a profile, filled with what a simulated load measures.

It encodes by itself, from the table and the standard alone, so that it is a far end and no mirror of the decoder.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Iterable, Mapping
from itertools import chain
from typing import Final

from pydantic import Field, field_validator

from drivers.decode import Register
from drivers.registers import MeterProfile
from drivers.simulated.faults import Fault, active
from drivers.simulated.load import Load, LoadSection
from edge_agent.clock import NS, Clock
from edge_agent.settings import Duration
from edge_agent.vocabulary import nearest

ILLEGAL_FUNCTION: Final = 1
ILLEGAL_ADDRESS: Final = 2
ILLEGAL_VALUE: Final = 3

_SUNSPEC_AT: Final = 40_000
_COMMON_LENGTH: Final = 66
_BRIDGED: Final = 31  # the widest hole that a client reads across
_LARGEST: Final = {"s16": 32_000.0, "u16": 65_000.0, "u32": 4e9, "s32": 2e9}
_CODES: Final = {"u16": "H", "s16": "h", "u32": "I", "s32": "i", "u64": "Q", "s64": "q", "f32": "f", "f64": "d"}


FAULTS: Final = {
    "silent": "it does not answer",
    "late": "its answers come `late_by` too late",
    "crc": "a bit of its answers is wrong (RTU only)",
    "cut": "its answers end half-way",
    "garbage-before": "noise stands before its answers",
    "wrong-unit": "it answers as its neighbour",
    "wrong-function": "it answers another function",
    "exception-NN": "it refuses with that code",
    "nan": "whatever it can mark as not available is",
    "counter-reset": "its counters begin at nothing",
    "overload": "the load is 1.4 times the nominal one",
    "disconnect": "the whole wire is gone",
}


class TwinSection(LoadSection):
    """A meter that is simulated: its load and what goes wrong."""

    latency: Duration = Field(default=0.0, ge=0, le=10, description="How long it thinks before it answers.")
    serial: str = Field(
        default="20261120", pattern=r"^\d{1,9}$", description="Its serial number, if its profile has one."
    )
    late_by: Duration = Field(default=2.0, gt=0, le=60, description="How late its answers come with the fault `late`.")
    faults: list[Fault] = Field(
        default=[], description="What goes wrong: " + "; ".join(f"`{kind}`: {what}" for kind, what in FAULTS.items())
    )

    @field_validator("faults")
    @classmethod
    def _known(cls, faults: list[Fault]) -> list[Fault]:
        for fault in faults:
            check_fault(fault.kind)
        return faults


def check_fault(kind: str) -> None:
    """Raises ValueError, with the nearest right word, for a fault that no twin has."""
    if kind not in FAULTS and not re.fullmatch(r"exception-[0-9A-F]{2}", kind):
        raise ValueError(f"there is no fault {kind!r}{nearest(kind, FAULTS)}")


class MeterTwin:
    """One meter. ``views``: register's quantity → what of the load it sees, and divided by what (transformers).

    Called from the thread of its server; ``impose`` from any thread.
    """

    def __init__(
        self,
        profile: MeterProfile,
        settings: TwinSection,
        clock: Clock,
        views: Mapping[str, tuple[str, float]] | None = None,
    ) -> None:
        self.settings = settings
        self._profile = profile
        self._clock = clock
        self._views = views or {}
        self._started_ns = clock.mono_ns()
        self._load = Load(settings, phases=_phases(profile))
        self._imposed: str | None = None
        self._is_reset = False
        self._base = _SUNSPEC_AT + 4 + _COMMON_LENGTH if profile.discover else 0
        self._identity = _identity(profile) | _serial(profile, settings.serial)
        self._fixed = _fixed(profile, self._identity)
        self._rows = {(row.fc, at): row for row in profile.registers for at in range(row.at, row.at + row.count)}
        self._factors: dict[tuple[int, int], list[Register]] = {}
        for row in profile.registers:
            if row.scale_from is not None:
                self._factors.setdefault((row.fc, row.scale_from), []).append(row)
        self._served = _served(profile, chain(self._fixed, self._shifted(chain(self._rows, self._factors))))

    def impose(self, fault: str | None) -> None:
        """Begin a fault now, whatever the script says, or end it with None."""
        if fault is not None:
            check_fault(fault)
        self._imposed = fault

    def faults(self) -> frozenset[str]:
        """What is wrong now."""
        scripted = active(self.settings.faults, self._elapsed_s())
        return scripted if self._imposed is None else scripted | {self._imposed}

    def measures(self) -> dict[str, float]:
        """What the load does now, in base units: what a perfect reading would say."""
        faults = self.faults()
        if "counter-reset" not in faults:
            self._is_reset = False
        elif not self._is_reset:
            self._is_reset = True
            self._load.reset_counters()
        return self._load.at(self._elapsed_s(), overload="overload" in faults)

    def reply(self, request: bytes) -> bytes:
        """The answer to a request, both without unit and checksum; an exception where the meter refuses."""
        fc = request[0]
        if fc not in (3, 4):
            return bytes((fc | 0x80, ILLEGAL_FUNCTION))
        if len(request) != 5:
            return bytes((fc | 0x80, ILLEGAL_VALUE))
        at, count = struct.unpack(">HH", request[1:])
        if not 1 <= count <= self._profile.max_registers:
            return bytes((fc | 0x80, ILLEGAL_VALUE))
        if not self._serves(fc, at, at + count):
            return bytes((fc | 0x80, ILLEGAL_ADDRESS))
        # Some meters keep their model at an address that is part of a value in longer reads.
        words = self._identity.get((fc, at, count)) or self._words(fc, at, count)
        return bytes((fc, 2 * count)) + words

    # --- which addresses there are

    def _elapsed_s(self) -> float:
        return (self._clock.mono_ns() - self._started_ns) / NS

    def _shifted(self, places: Iterable[tuple[int, int]]) -> Iterable[tuple[int, int]]:
        return ((fc, at + self._base) for fc, at in places)

    def _serves(self, fc: int, start: int, end: int) -> bool:
        if not any(fc == of and first <= start and end <= last for of, first, last in self._served):
            return False
        if not self._profile.align:
            return True
        edges = [
            (self._rows.get((fc, at - 1 - self._base)), self._rows.get((fc, at - self._base))) for at in (start, end)
        ]
        return not any(before is not None and before is after for before, after in edges)

    # --- what they hold

    def _words(self, fc: int, start: int, count: int) -> bytes:
        measures = self.measures()
        silent = "nan" in self.faults()
        held: dict[str, bytes] = {}
        words = []
        for at in range(start, start + count):
            place = (fc, at - self._base)
            if (row := self._rows.get(place)) is not None:
                if row.name not in held:
                    held[row.name] = self._hold(row, measures, silent=silent)
                offset = 2 * (place[1] - row.at)
                words.append(held[row.name][offset : offset + 2])
            elif place in self._factors:
                words.append(struct.pack(">h", self._exponent(place, measures)))
            else:
                words.append(self._fixed.get((fc, at), b"\0\0"))
        return b"".join(words)

    def _hold(self, row: Register, measures: Mapping[str, float], *, silent: bool) -> bytes:
        """The row's registers as they stand in the meter."""
        if silent and row.code in "fd":
            return _in_order(row, math.nan)
        if silent and row.sentinels:
            return _in_order(row, min(row.sentinels))
        value = self._seen(row.name, measures)
        if row.bit is not None:
            return _in_order(row, int(value) << row.bit)
        exponent = 0 if row.scale_from is None else self._exponent((row.fc, row.scale_from), measures)
        raw = (value - row.shift) / float(row.gain) / 10.0**exponent
        if row.code in "fd":
            return _in_order(row, raw)
        return _in_order(row, _saturated(row, round(abs(raw) if row.code.isupper() else raw)))

    def _seen(self, name: str, measures: Mapping[str, float]) -> float:
        """What the meter itself sees of a quantity; one that no load has stands in the middle of its range."""
        source, ratio = self._views.get(name, (name, 1.0))
        if source in measures:
            return measures[source] / ratio
        quantity = self._profile.quantities[name]
        return ((quantity.low or 0.0) + (quantity.high or 0.0)) / 2

    def _exponent(self, place: tuple[int, int], measures: Mapping[str, float]) -> int:
        """The smallest decimal exponent with which every value that shares it fits into its register."""
        exponent = -3
        for row in self._factors[place]:
            raw = abs(self._seen(row.name, measures) - row.shift) / abs(float(row.gain))
            most = _LARGEST[row.type]
            exponent = max(exponent, math.ceil(math.log10(raw / most))) if raw else exponent
        return exponent


def _phases(profile: MeterProfile) -> int:
    names = set(profile.quantities)
    if "voltage" in names and "voltage_l2" not in names:
        return 1
    return 2 if "voltage_l2" in names and "voltage_l3" not in names else 3


def _saturated(row: Register, raw: int) -> int:
    bits = 16 * row.count
    low, high = (0, (1 << bits) - 1) if row.code.isupper() else (-(1 << (bits - 1)), (1 << (bits - 1)) - 1)
    return max(low, min(raw, high))


def _in_order(row: Register, raw: float) -> bytes:
    """Most significant first, then turned round as the meter has its words and bytes."""
    code = {1: "H", 2: "I", 4: "Q"}[row.count] if row.type == "bits" else _CODES[row.type]
    data = struct.pack(f">{code}", raw if code in "fd" else int(raw))
    words = [data[index : index + 2] for index in range(0, len(data), 2)]
    if row.word_order == "little":
        words.reverse()
    return b"".join(word if row.byte_order == "big" else word[::-1] for word in words)


def _identity(profile: MeterProfile) -> dict[tuple[int, int, int], bytes]:
    """Function code, address and count of what tells this meter from others, and what stands there."""
    found: dict[tuple[int, int, int], bytes] = {}
    for row in profile.identity:
        wanted = row.match[0] if isinstance(row.match, list) else row.match
        if isinstance(wanted, str):
            data = wanted.encode("latin-1").ljust(2 * row.size, b"\0")
        else:
            data = wanted.to_bytes(2 * row.size)
            if row.word_order == "little":
                data = b"".join(data[index : index + 2] for index in reversed(range(0, len(data), 2)))
        found[row.fc, row.at, row.size] = data
    return found


def _serial(profile: MeterProfile, serial: str) -> dict[tuple[int, int, int], bytes]:
    """As :func:`_identity`, of the serial number."""
    row = profile.serial
    if row is None:
        return {}
    if row.type == "string":
        return {(row.fc, row.at, row.size): serial.encode().ljust(2 * row.size, b"\0")}
    field = Register(name="", at=0, fc=row.fc, type=row.type, count=row.size, word_order=row.word_order)
    return {(row.fc, row.at, row.size): field.encode_raw(int(serial))}


def _fixed(profile: MeterProfile, identity: Mapping[tuple[int, int, int], bytes]) -> dict[tuple[int, int], bytes]:
    """Registers that never change, word by word: the identity, and SunSpec's chain of models."""
    found = {
        (fc, at + index): data[2 * index : 2 * index + 2]
        for (fc, at, count), data in identity.items()
        for index in range(count)
    }
    if profile.discover:
        found |= {(3, at): word for at, word in _sunspec(profile).items()}
    return found


def _sunspec(profile: MeterProfile) -> dict[int, bytes]:
    """``SunS``, the common model, the head of the meter's own model, and the end mark."""
    model = profile.models[0]
    length = 105 if model < 210 else 124
    common = struct.pack(">HH", 1, _COMMON_LENGTH) + b"edge-agent twin".ljust(2 * _COMMON_LENGTH, b"\0")
    data = b"SunS" + common + struct.pack(">HH", model, length)
    at_end = _SUNSPEC_AT + len(data) // 2 + length
    words = {_SUNSPEC_AT + index: data[2 * index : 2 * index + 2] for index in range(len(data) // 2)}
    return words | {at_end: b"\xff\xff", at_end + 1: b"\0\0"}


def _served(profile: MeterProfile, places: Iterable[tuple[int, int]]) -> list[tuple[int, int, int]]:
    """Function code, first and one past the last address of every range that may be read in one go."""
    hole = max(_BRIDGED, profile.bridge or 0) if profile.holes else 0
    ranges: list[tuple[int, int, int]] = []
    for fc, at in sorted(set(places)):
        of, first, end = ranges[-1] if ranges else (0, 0, 0)
        if of == fc and at - end <= hole and not any(end <= barrier <= at for barrier in profile.barriers):
            ranges[-1] = (fc, first, at + 1)
        else:
            ranges.append((fc, at, at + 1))
    return ranges
