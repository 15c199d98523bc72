"""What is known of one unit on a Modbus wire: how fast it answers and what went wrong; and what is asked of it."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Final

from edge_agent.errors import DeviceError
from edge_agent.vocabulary import CRC, EXCEPTION, TIMEOUT, WRONG_REPLY

_RING: Final = 64  # latencies remembered
_PENDING_NS: Final = 15_000_000_000  # after so long no reply to an old request comes any more

MEANINGS: Final[dict[int, tuple[str, str]]] = {
    0x01: ("does not know the function", "is it the right profile?"),
    0x02: ("has no such register", "is it the right profile?"),
    0x03: ("cannot read so many registers", "lower `max_registers` in the profile"),
    0x04: ("has failed inside", "look at the device itself"),
    0x05: ("needs more time", ""),
    0x06: ("is busy", "does another master poll it?"),
    0x08: ("has a memory error", "look at the device itself"),
    0x0A: ("cannot be reached by the gateway", "check the gateway's routing of this unit"),
    0x0B: ("does not answer the gateway", "check unit, wiring and baud rate behind the gateway"),
}
PERMANENT: Final = (0x01, 0x02, 0x03)
NOBODY_HOME: Final = (0x0A, 0x0B)
"""A gateway's way to say timeout."""


class RefusedError(DeviceError):
    """The unit answered with a Modbus exception. ``doubtful``: it may belong to an earlier request."""

    def __init__(self, unit: int, code: int, *, doubtful: bool = False) -> None:
        meaning, hint = MEANINGS.get(code, ("refuses", ""))
        super().__init__(f"{EXCEPTION}-{code:02X}", f"unit {unit} {meaning} (exception {code:02X})", hint=hint)
        self.code = code
        self.doubtful = doubtful


@dataclass(slots=True)
class Request:
    """One read, encoded once. ``frame``: the request, on TCP what follows its transaction.

    ``size``: length of the whole reply; ``head`` begins it (unit, function, byte count), ``refused`` its exception.
    """

    unit: int
    fc: int
    address: int
    count: int
    frame: bytes
    size: int
    head: bytes
    refused: bytes


@dataclass(slots=True)
class Unit:
    """One unit. Times are nanoseconds; ``latency`` is without the time of the bytes on the wire.

    ``limit``: how long to wait for the next answer: four times the filtered latency, between floor and
    ceiling; the ceiling while nothing is known, doubled by every timeout. ``pending``: number of registers of
    requests that got no answer → when it can come no more; on RTU a late one could pass for another's.
    ``echoes``: timeouts in which only our own request was heard; ``doubled``: answers that something followed;
    ``crc_registers``: asked for by requests whose answers came damaged.
    """

    number: int
    floor: int
    ceiling: int
    limit: int = 0
    latency: int = 0
    pending: dict[int, int] = field(default_factory=dict)
    requests: int = 0
    answers: int = 0
    timeouts: int = 0
    crc: int = 0
    wrong: int = 0
    late: int = 0
    exceptions: int = 0
    echoes: int = 0
    doubled: int = 0
    crc_registers: int = 0
    codes: dict[int, int] = field(default_factory=dict)
    recent: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.limit = self.ceiling

    def bound(self, floor: int, ceiling: int) -> None:
        """Set the limits of ``limit``; what has been learnt stays."""
        self.floor, self.ceiling = floor, max(floor, ceiling)
        self.limit = max(floor, min(self.limit, self.ceiling)) if self.latency else self.ceiling

    def answered(self, took: int) -> None:
        """An answer came, of whatever content."""
        self.answers += 1
        # Rises at once and falls slowly: a unit that is slow now and then stays reachable.
        latency = self.latency
        latency = took if took > latency else latency - (latency - took >> 4)
        self.latency = latency
        # In steps of 17 ms, so that a socket's timeout is not set anew for every request.
        self.limit = max(self.floor, min(self.ceiling, latency << 2 | 0xFFFFFF))
        recent = self.recent
        if len(recent) < _RING:
            recent.append(took)
        else:
            recent[self.requests % _RING] = took

    def silent(self) -> None:
        """No answer came within the limit."""
        self.timeouts += 1
        self.limit = min(self.ceiling, self.limit * 2)

    def refused(self, code: int) -> None:
        """A Modbus exception came."""
        self.exceptions += 1
        self.codes[code] = self.codes.get(code, 0) + 1

    def damaged(self, count: int) -> None:
        """The answer of so many registers came damaged."""
        self.crc += 1
        self.crc_registers += count

    def owe(self, count: int, now: int) -> None:
        """A request for ``count`` registers stays unanswered; its reply may still come."""
        self.pending[count] = now + _PENDING_NS

    def owes(self, now: int) -> Collection[int]:
        """The lengths whose reply may still come."""
        if self.pending:
            for count in [count for count, until in self.pending.items() if until <= now]:
                del self.pending[count]
        return self.pending

    @property
    def slowest(self) -> int:
        """The longest of the last answers; the floor before the first."""
        return max(self.recent, default=self.floor)

    @property
    def stats(self) -> dict[str, int]:
        """What happened since the start, by name."""
        return {
            "requests": self.requests,
            "timeouts": self.timeouts,
            "crc": self.crc,
            "wrong_replies": self.wrong,
            "late_replies": self.late,
            "exceptions": self.exceptions,
        }

    @property
    def errors(self) -> dict[str, int]:
        """What went wrong since the start, by the reasons that readings give; nothing that never happened."""
        counts = {
            TIMEOUT: self.timeouts,
            CRC: self.crc,
            WRONG_REPLY: self.wrong,
            "late-reply": self.late,
            "echo": self.echoes,
            "second-answer": self.doubled,
            **{f"{EXCEPTION}-{code:02X}": count for code, count in sorted(self.codes.copy().items())},
        }
        return {kind: count for kind, count in counts.items() if count}

    def latency_ms(self) -> tuple[float, float] | None:
        """Median and 95th percentile of the last answers, in milliseconds; None before the first."""
        ordered = sorted(self.recent)
        if not ordered:
            return None
        return ordered[len(ordered) // 2] / 1e6, ordered[len(ordered) * 95 // 100] / 1e6
