"""How long a serial line is busy with one device: the bytes and silences, before anybody is slow."""

from __future__ import annotations

from typing import Any

from drivers.modbus_rtu import silence_ns
from drivers.plan import plan
from drivers.published import published
from edge_agent.clock import NS

_REQUEST_BYTES = 8
_REPLY_BYTES = 5  # beside the registers


def rtu(bus: Any, bus_settings: Any, settings: Any, profile: Any) -> dict[str, tuple[float, int]]:
    """Register group → (seconds that the line is busy, requests) of one reading; the meter's own time comes on top."""
    parity = getattr(bus_settings, "parity", "N") != "N"
    bits = 1 + getattr(bus_settings, "bytesize", 8) + parity + getattr(bus_settings, "stopbits", 1)
    character_s = bits / bus_settings.baudrate
    pause_s = max(silence_ns(bus_settings.baudrate) / NS, bus_settings.gap)
    rows = published(profile, settings)
    busy: dict[str, tuple[float, int]] = {}
    for group in sorted({row.group for row in rows}):
        blocks = plan(
            [row for row in rows if row.group == group],
            max_registers=profile.max_registers,
            hole=bus.hole(profile),
            barriers=profile.barriers,
        )
        size = sum(_REQUEST_BYTES + _REPLY_BYTES + 2 * block.count for block in blocks)
        busy[group] = (size * character_s + 2 * pause_s * len(blocks), len(blocks))
    return busy
