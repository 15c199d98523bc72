"""What a kind of sensor is: a description, one way to measure, one way to recognise it.

Adding one costs a file beside this with a :class:`Part` in it, and a row in ``edge_agent.catalogue``.
A part keeps no state: it is set up anew with every question, so a sensor that lost its power, was
swapped or woke up in another mode needs nobody to notice.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Protocol

from edge_agent.errors import DeviceError
from edge_agent.vocabulary import NOTHING_THERE, TIMEOUT, Sample

_STEP_MS: Final = 2.0


class Wire(Protocol):
    """What a part may ask of its bus. Addresses are 7-bit.

    Every call raises DeviceError (``not-found``: nobody acknowledged) or WireError (bus stuck or gone).
    """

    def write(self, address: int, data: bytes) -> None:
        """One write transaction."""
        ...

    def read(self, address: int, n: int) -> bytes:
        """One read transaction of ``n`` bytes."""
        ...

    def write_read(self, address: int, data: bytes, n: int) -> bytes:
        """Write, then read after a repeated start: how a register is read."""
        ...

    def wait_ms(self, milliseconds: float) -> None:
        """Let the part work; the bus waits on its clock."""
        ...


@dataclass(frozen=True, slots=True)
class Part:
    """A kind of sensor.

    ``addresses``: all that it can have, the usual one first.
    ``ranges``: quantity → lowest and highest value that the datasheet allows; outside is no value.
    ``min_every_s``: asked more often it would warm itself, or repeat itself.
    ``previous_within_s``: such a part answers with the measurement of the question *before*; this is
    how old that may be. ``None``: it measures when it is asked.
    ``measure``: values in base units; raises DeviceError when there is none to trust.
    ``identify``: the evidence that this part is there, or None if what answers is something else; raises
    as ``measure`` does. It writes nothing that could do harm to another chip at that address.
    """

    title: str
    addresses: tuple[int, ...]
    ranges: Mapping[str, tuple[float, float]]
    min_every_s: float
    measure: Callable[[Wire, int], Sample]
    identify: Callable[[Wire, int], str | None]
    previous_within_s: float | None = None


def poll(wire: Wire, first_ms: float, budget_ms: float, look: Callable[[], bytes | None]) -> bytes:
    """Wait ``first_ms``, then ``look`` until there is an answer.

    None and a missing acknowledge both mean "still measuring". Raises DeviceError (``timeout``) when
    there is nothing after ``budget_ms`` of waiting.
    """
    wire.wait_ms(first_ms)
    waited_ms = first_ms
    while (answer := _unless_busy(look)) is None:
        if waited_ms >= budget_ms:
            raise DeviceError(TIMEOUT, f"no measurement within {budget_ms:g} ms")
        wire.wait_ms(_STEP_MS)
        waited_ms += _STEP_MS
    return answer


def ask(wire: Wire, address: int, command: bytes, n: int, first_ms: float, budget_ms: float) -> bytes:
    """Write a command, then read ``n`` bytes as soon as the part acknowledges its address again."""
    wire.write(address, command)
    return poll(wire, first_ms, budget_ms, lambda: wire.read(address, n))


def clipped(percent: float, low: float = -6.0, high: float = 119.0) -> float:
    """Humidity within 0..100 where the datasheet says that a reading may go a little beyond.

    Further away than ``low``..``high`` it stays as it is, so that the range check drops it.
    """
    return min(100.0, max(0.0, percent)) if low <= percent <= high else percent


def _unless_busy(look: Callable[[], bytes | None]) -> bytes | None:
    try:
        return look()
    except DeviceError as error:
        if error.reason != NOTHING_THERE:
            raise
        return None
