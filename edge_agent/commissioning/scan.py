"""Which registers an unknown meter has: a walk over the address space that spends little time where nothing is.

A refused read costs a twentieth of a served one, so the walk is a grid of small questions, first where known meters
have their values, then everywhere; where something answers, its edges are felt for and the whole of it is read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from drivers.modbus_unit import NOBODY_HOME, RefusedError
from edge_agent.errors import DeviceError, WireError

Read = Callable[[int, int, int], bytes]
"""Function code, address, count → the registers' bytes. Raises RefusedError, DeviceError, WireError."""

_ILLEGAL_FUNCTION: Final = 1
_STRIDE: Final = 41  # odd: every second question begins at an odd address, for meters that refuse half a value
_PASSES: Final = (0, 20, 10, 31)
_SIZES: Final = (64, 32, 16, 8, 4, 2, 1)
_PIECES: Final = (120, 100, 80, 64, 50, 40, 32, 16, 8, 4, 2, 1)  # what is read at once; meters differ in their limit
_LARGEST: Final = 400  # registers of one region
_EMPTY: Final = 64  # zeros in a row end a region: some meters serve every address
_SILENT: Final = 3  # unanswered questions in a row: nobody is there


@dataclass(frozen=True, slots=True, order=True)
class Region:
    """Registers from ``start`` up to ``end`` (without) that can be read under a function code."""

    fc: int
    start: int
    end: int


@dataclass(slots=True)
class Scan:
    """One scan of one unit. ``asked``: questions so far; ``tell`` hears (questions so far, how many at most, where)."""

    read: Read
    tell: Callable[[int, int, str], None] = lambda _done, _of, _where: None
    asked: int = 0
    most: int = 1  # registers in one answer, the longest seen
    regions: list[Region] = field(default_factory=list)
    _absent: set[int] = field(default_factory=set)
    _silent: int = 0
    _piece: int = 120
    _nobody: bool = True

    def walk(self, hot: Sequence[tuple[int, int]] = (), over: Callable[[], bool] = lambda: False) -> Iterator[Region]:
        """Every region with something in it, as it is found. ``hot``: function code and address to ask first;
        ``over``: whether to give up.

        Raises DeviceError when nobody answers at all, and WireError.
        """
        grid = [(fc, at) for offset in _PASSES for at in range(offset, 0xFFFF, _STRIDE) for fc in (4, 3)]
        places = [*hot, *grid]
        for done, (fc, at) in enumerate(places):
            if over():
                return
            self.tell(done, len(places), f"{fc:02d} {at:#06x}")
            if fc in self._absent or self._known(fc, at):
                continue
            first = self._ask(fc, at, 2)
            if first is None:
                continue
            region = self._feel(fc, at, first)
            self.regions.append(region)
            if region.end - region.start >= 4 and not self._is_empty(region):
                yield region

    def _known(self, fc: int, at: int) -> bool:
        return any(region.fc == fc and region.start <= at < region.end for region in self.regions)

    def _ask(self, fc: int, at: int, count: int) -> bytes | None:
        """The bytes; None where it refuses."""
        if at < 0 or at + count > 0x10000:
            return None
        self.asked += 1
        try:
            data = self.read(fc, at, count)
        except WireError:
            raise
        except RefusedError as error:
            if error.code in NOBODY_HOME:
                raise
            self._silent, self._nobody = 0, False
            if error.code == _ILLEGAL_FUNCTION:
                self._absent.add(fc)
            return None
        except DeviceError:
            self._silent += 1
            if self._nobody and self._silent >= _SILENT:
                raise
            return None
        self._silent, self._nobody = 0, False
        self.most = max(self.most, count)
        return data

    def _feel(self, fc: int, at: int, first: bytes) -> Region:
        start, end = at, at + 2
        zeros = _zeros_at_end(first)
        while end - at < _LARGEST and zeros < _EMPTY:
            step = next((size for size in _SIZES if (data := self._ask(fc, end, size)) is not None), 0)
            if not step:
                break
            end += step
            zeros = zeros + step if not any(data or b"") else _zeros_at_end(data or b"")
        zeros = 0
        while at - start < _LARGEST and zeros < _EMPTY:
            step = next((size for size in _SIZES if (data := self._ask(fc, start - size, size)) is not None), 0)
            if not step:
                break
            start -= step
            zeros = zeros + step if not any(data or b"") else 0
        return Region(fc, start, end)

    def _is_empty(self, region: Region) -> bool:
        return not any(any(data) for _, data in self.contents(region))

    def contents(self, region: Region) -> Iterator[tuple[int, bytes]]:
        """Read a region: addresses and bytes, in pieces that this meter takes."""
        at = region.start
        while at < region.end:
            for size in _PIECES:
                take = min(size, region.end - at)
                if size > self._piece or (take < size and take in _PIECES):
                    continue  # longer than it has ever allowed, or tried already
                if (data := self._ask(region.fc, at, take)) is not None:
                    yield at, data
                    at += take
                    break
                if take == size == self._piece and size > _SIZES[1]:
                    self._piece = _PIECES[_PIECES.index(size) + 1]
            else:
                at += 1


def _zeros_at_end(data: bytes) -> int:
    return (len(data) - len(data.rstrip(b"\0"))) // 2
