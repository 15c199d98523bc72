"""Which registers an unknown meter has: a walk over the address space that spends little time where nothing is.

A refused read costs a twentieth of a served one, so the walk is a grid of small questions: first where known meters
have their values, then at round addresses, then everywhere. Where something answers, its edges are felt for, and
what stands behind a small hole; then the whole of it is read.
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
_TOO_MANY: Final = 3
_PAGE: Final = 0x100
# In each page: even and odd in turn, for meters that refuse half a value; later with each the other way round.
_POINTS: Final = (0, 33, 64, 97, 128, 161, 192, 225)
_LATER: Final = (0, 17, 8, 25)
_LAST_PAGE: Final = 0xF000  # hardly a table begins behind it
_ROUND: Final = tuple(sorted({*range(0, _LAST_PAGE, _PAGE), *range(0, 0x10000, 1000)}))
_LOWEST: Final = 16  # addresses at which many tables begin
_SIZES: Final = (64, 32, 16, 8, 4, 2, 1)
_PIECES: Final = (125, 120, 100, 80, 64, 50, 40, 32, 16, 8, 4, 2, 1)  # read at once; meters differ in their limit
_LARGEST: Final = 400  # registers on either side of the first one
_HOLE: Final = 40  # what is behind a hole of so many registers belongs to the same table
_EMPTY: Final = 48  # registers in a row that say nothing end a region: some meters serve every address
_HOLLOW: Final = 4  # answers that say nothing, after which a meter is known to be such a one
_FILLERS: Final = (b"\x00\x00", b"\xff\xff", b"\x80\x00", b"\x7f\xff")
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
    _limit: int = 125
    _nobody: bool = True
    _hollow: int = 0
    _plans: dict[Region, list[tuple[int, int]]] = field(default_factory=dict)

    def walk(
        self, hot: Sequence[tuple[int, int]] = (), over: Callable[[], bool] = lambda: False
    ) -> Iterator[list[Region]]:
        """Every table, as it is found: regions that are near each other. ``hot``: function code and address to ask
        first; ``over``: whether to give up.

        Raises DeviceError when nobody answers at all, and WireError.
        """
        likely = [(fc, at) for at in _ROUND for fc in (4, 3)]
        grid = [
            (fc, at)
            for pages in (range(0, _LAST_PAGE, _PAGE), range(_LAST_PAGE, 0x10000, _PAGE))
            for at in (page + point + later for later in _LATER for page in pages for point in _POINTS)
            for fc in (4, 3)
        ]
        lowest = [(fc, at) for at in range(_LOWEST) for fc in (4, 3)]
        places = list(dict.fromkeys([*hot, *lowest, *likely, *grid]))
        for done, (fc, at) in enumerate(places):
            if over():
                return
            self.tell(done, len(places), f"{fc:02d} {at:#06x}")
            if fc in self._absent or self._known(fc, at):
                continue
            first = self._ask(fc, at, 2 if self._hollow < _HOLLOW else 4)
            if first is None or (self._is_filler(first) and self._hollow >= _HOLLOW):
                continue
            table = self._feel(fc, at, len(first) // 2)
            self.regions += table
            if any(self._says_something(region) for region in table):
                yield table
            else:
                self._hollow += 1

    def _known(self, fc: int, at: int) -> bool:
        return any(region.fc == fc and region.start <= at < region.end for region in self.regions)

    def _ask(self, fc: int, at: int, count: int) -> bytes | None:
        """The bytes; None where it refuses."""
        if at < 0 or at + count > 0x10000 or count > self._limit:
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
            elif error.code == _TOO_MANY and count > 1:
                self._limit = min(self._limit, count - 1)
            return None
        except DeviceError:
            self._silent += 1
            if self._nobody and self._silent >= _SILENT:
                raise
            return None
        self._silent, self._nobody = 0, False
        self.most = max(self.most, count)
        return data

    # --- its edges

    def _feel(self, fc: int, at: int, count: int) -> list[Region]:
        """The region around an answer, and those behind small holes."""
        found = [Region(fc, self._edge(fc, at, -1), self._edge(fc, at + count, 1))]
        for way in (1, -1):
            while (far := self._jump(fc, found[-1].end if way > 0 else found[0].start, way)) is not None:
                if self._known(fc, far) or abs(far - at) > _LARGEST:
                    break
                region = Region(fc, self._edge(fc, far, -1), self._edge(fc, far, 1))
                found.insert(len(found) if way > 0 else 0, region)
        return found

    def _edge(self, fc: int, at: int, way: int) -> int:
        """The first address behind (way 1) or the last one before (−1) which nothing is served, or nothing said."""
        began, empty = at, 0
        while abs(at - began) < _LARGEST and empty < _EMPTY:
            for size in _SIZES:
                data = self._ask(fc, at if way > 0 else at - size, size)
                if data is not None:
                    break
            else:
                break
            at += way * size
            empty = empty + size if self._is_filler(data) else 0
        return at

    def _jump(self, fc: int, edge: int, way: int) -> int | None:
        """Where something answers again, and says something; None if nowhere near."""
        if self._hollow >= _HOLLOW:
            return None  # it has no holes
        for count in (1, 2):  # a single register, or a value of two that is not to be cut
            for step in range(1, _HOLE + 1):
                at = edge + step - 1 if way > 0 else edge - step - count + 1
                data = self._ask(fc, at, count)
                if data is not None and not self._is_filler(data):
                    return at
        return None

    @staticmethod
    def _is_filler(data: bytes) -> bool:
        return data[:2] in _FILLERS and data == data[:2] * (len(data) // 2)

    def _says_something(self, region: Region) -> bool:
        return any(not self._is_filler(data) for _, data in self.contents(region))

    # --- all of it

    def contents(self, region: Region) -> Iterator[tuple[int, bytes]]:
        """Read a region: addresses and bytes, in pieces that this meter takes."""
        if region not in self._plans:
            plan = list(self._cut(region))
            self._plans[region] = [(at, len(data) // 2) for at, data in plan]
            yield from plan
            return
        for at, count in self._plans[region]:
            if (data := self._ask(region.fc, at, count)) is not None:
                yield at, data

    def _cut(self, region: Region) -> Iterator[tuple[int, bytes]]:
        at, most = region.start, _PIECES[0]
        while at < region.end:
            left = region.end - at
            for size in (min(left, most), *(size for size in _PIECES if size < min(left, most))):
                if (data := self._ask(region.fc, at, size)) is not None:
                    yield at, data
                    most = size if size < min(left, most) and size >= _SIZES[1] else most
                    at += size
                    break
            else:
                at += 1
