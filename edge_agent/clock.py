"""Time, passed in and never looked up.

Durations are monotonic (CLOCK_BOOTTIME: it also counts suspend), stamps are UTC.
Nobody else in the product calls ``time.time()`` or ``sleep``.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import struct
import time
from datetime import UTC, datetime
from pathlib import Path
from threading import Event
from typing import NamedTuple, Protocol

NS = 1_000_000_000
_STA_UNSYNC = 0x0040
_SYNC_CHECK_EVERY_NS = 5 * NS
_TIMESYNCD_MARK = Path("/run/systemd/timesync/synchronized")


class Stamp(NamedTuple):
    """When something was taken.

    ``mono_ns``: nanoseconds of CLOCK_BOOTTIME; ``wall_ms``: Unix milliseconds, UTC, as the
    clock said then; ``synced``: whether that clock was known to be right.
    """

    mono_ns: int
    wall_ms: int
    synced: bool


class Clock(Protocol):
    """What the rest of the product knows of time."""

    @property
    def boot_id(self) -> str:
        """Identity of this boot; monotonic stamps compare only within one."""
        ...

    def mono_ns(self) -> int:
        """Nanoseconds since boot; never steps."""
        ...

    def stamp(self) -> Stamp:
        """Now, on both clocks."""
        ...

    def synced(self) -> bool:
        """Whether UTC is known to be right."""
        ...

    def wait(self, stop: Event, seconds: float) -> bool:
        """Wait so long, or until ``stop`` is set; True when it is time to stop."""
        ...


class SystemClock:
    """The machine's own clocks."""

    def __init__(self) -> None:
        self._boot_id = _boot_id()
        self._synced = False
        self._checked_ns = -_SYNC_CHECK_EVERY_NS

    @property
    def boot_id(self) -> str:
        return self._boot_id

    def mono_ns(self) -> int:
        return time.clock_gettime_ns(time.CLOCK_BOOTTIME)

    def stamp(self) -> Stamp:
        mono_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        if mono_ns - self._checked_ns >= _SYNC_CHECK_EVERY_NS:
            self._checked_ns = mono_ns
            self._synced = kernel_clock_is_synced()
        return Stamp(mono_ns, time.time_ns() // 1_000_000, self._synced)

    def synced(self) -> bool:
        return self.stamp().synced

    def wait(self, stop: Event, seconds: float) -> bool:
        return stop.wait(max(0.0, seconds))


class ManualClock:
    """A clock that only moves when told to, for tests and scripted twins."""

    def __init__(self, wall_ms: int = 1_795_000_000_000, *, synced: bool = True) -> None:
        self.boot_id = "00000000-0000-0000-0000-000000000001"
        self._mono_ns = 1_000 * NS
        self._wall_ms = wall_ms
        self._synced = synced

    def mono_ns(self) -> int:
        return self._mono_ns

    def stamp(self) -> Stamp:
        return Stamp(self._mono_ns, self._wall_ms, self._synced)

    def synced(self) -> bool:
        return self._synced

    def wait(self, stop: Event, seconds: float) -> bool:
        self.advance(max(0.0, seconds))
        return stop.is_set()

    def advance(self, seconds: float) -> None:
        """Let time pass on both clocks."""
        self._mono_ns += round(seconds * NS)
        self._wall_ms += round(seconds * 1000)

    def step_wall(self, seconds: float, *, synced: bool | None = None) -> None:
        """Set the wall clock forward or back, as NTP or a human does."""
        self._wall_ms += int(seconds * 1000)
        if synced is not None:
            self._synced = synced


def iso(wall_ms: int) -> str:
    """RFC 3339 UTC with milliseconds, from Unix milliseconds."""
    seconds, ms = divmod(wall_ms, 1000)
    moment = datetime.fromtimestamp(seconds, UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{ms:03d}Z"


def kernel_clock_is_synced() -> bool:
    """Ask the kernel (adjtimex, STA_UNSYNC) whether anything disciplines the clock.

    chrony, ntpd and systemd-timesyncd all clear the flag; a Pi after a power cut has it set.
    """
    # struct timex begins with ``modes`` and ``status`` sits behind four longs (see adjtimex(2)).
    buffer = ctypes.create_string_buffer(struct.calcsize("@i4q") + 512)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.adjtimex(buffer) < 0:
        # A hardened service may not even ask (ProtectClock=yes); systemd-timesyncd leaves a mark for those.
        return _TIMESYNCD_MARK.exists()
    status_at = 8 + 4 * ctypes.sizeof(ctypes.c_long)
    (status,) = struct.unpack_from("@i", buffer.raw, status_at)
    return not status & _STA_UNSYNC


def _boot_id() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return "unknown"
