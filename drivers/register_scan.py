"""Which registers a unit has: a bounded, reading walk in blocks that are divided where the unit refuses them.

For meters that nobody knows yet: what answers is shown with everything that it may mean.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from math import isfinite
from pathlib import Path
from typing import Any, Final, NamedTuple

from drivers.modbus_probe import Wire
from drivers.modbus_unit import NOBODY_HOME, RefusedError
from drivers.registers import load_profile, profile_names
from edge_agent.errors import DeviceError, WireError

BLOCK: Final = 32
_SMALLER: Final = {32: 8, 8: 2, 2: 1}
_SILENT: Final = 3  # blocks in a row without an answer: nobody is there, or nobody any more
_ILLEGAL_FUNCTION: Final = 1
_USUAL: Final = range(0x400)
_PLAUSIBLE: Final = (1e-3, 1e9)  # what a float of a meter is likely to be


class Answered(NamedTuple):
    """Registers in a row that can be read: function code, first address, words."""

    fc: int
    at: int
    words: tuple[int, ...]


def usual_places() -> list[range]:
    """The beginning, and wherever a known meter has its values."""
    places = {at // BLOCK for at in _USUAL}
    for name in profile_names():
        for row in load_profile(name, Path()).registers:
            places |= {at // BLOCK for at in range(row.first, row.end)}
    return [range(place * BLOCK, place * BLOCK + BLOCK) for place in sorted(places)]


def scan_registers(
    wire: Wire, unit: int, places: Iterable[range], timeout_s: float, tell: Callable[[int, int], None]
) -> Iterator[Answered]:
    """Every run of registers that answers, by function code and address; nothing is written.

    ``tell``: blocks done, and of how many. Raises WireError, and DeviceError when the unit falls silent.
    """
    blocks = [
        range(at, min(at + BLOCK, place.stop)) for place in places for at in range(place.start, place.stop, BLOCK)
    ]
    total = 2 * len(blocks)
    for turn, fc in enumerate((3, 4)):
        walk = _Walk(wire, unit, fc, timeout_s)
        run: Answered | None = None
        for done, block in enumerate(blocks):
            tell(turn * len(blocks) + done, total)
            for found in walk.look(block.start, len(block)):
                if run is not None and run.at + len(run.words) == found.at:
                    run = run._replace(words=run.words + found.words)
                    continue
                if run is not None:
                    yield run
                run = found
            if walk.is_unknown:
                break
        if run is not None:
            yield run
    tell(total, total)


class _Walk:
    """One function code of one unit. ``is_unknown``: the unit does not have this function."""

    def __init__(self, wire: Wire, unit: int, fc: int, timeout_s: float) -> None:
        self.is_unknown = False
        self._wire = wire
        self._unit = unit
        self._fc = fc
        self._timeout_s = timeout_s
        self._silent = 0

    def look(self, at: int, count: int) -> Iterator[Answered]:
        try:
            data = bytes(self._wire.request(self._unit, self._fc, at, count, self._timeout_s))
        except WireError:
            raise
        except RefusedError as error:
            if error.code in NOBODY_HOME:
                raise
            self._silent = 0
            self.is_unknown = error.code == _ILLEGAL_FUNCTION
            yield from self._divided(at, count)
        except DeviceError:
            self._silent += 1  # some meters say nothing where others refuse
            if self._silent >= _SILENT:
                raise
        else:
            self._silent = 0
            yield Answered(self._fc, at, struct.unpack(f">{count}H", data))

    def _divided(self, at: int, count: int) -> Iterator[Answered]:
        step = next((smaller for size, smaller in _SMALLER.items() if smaller < count <= size), 0)
        if step and not self.is_unknown:
            for part in range(at, at + count, step):
                yield from self.look(part, min(step, at + count - part))


def meanings(words: Sequence[int], index: int) -> dict[str, Any]:
    """What the register at ``index`` may mean, alone and with the next one; only what a meter is likely to say."""
    found: dict[str, Any] = {"u16": words[index]}
    if words[index] & 0x8000:
        found["s16"] = words[index] - 0x10000
    if index + 1 < len(words):
        high, low = words[index], words[index + 1]
        for order, pair in (("", (high, low)), (" low first", (low, high))):
            data = struct.pack(">2H", *pair)
            (number,) = struct.unpack(">f", data)
            if isfinite(number) and _PLAUSIBLE[0] <= abs(number) <= _PLAUSIBLE[1]:
                found[f"f32{order}"] = float(f"{number:.6g}")
            if 0 < pair[0] < 0x1000:
                (found[f"u32{order}"],) = struct.unpack(">I", data)
    text = struct.pack(">H", words[index]).decode("latin-1")
    if text.isprintable() and text.isascii():
        found["text"] = text
    return found
