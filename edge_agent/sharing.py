"""What two entries of a config cannot both have: a unit, a wire, its time, a line."""

from __future__ import annotations

from collections.abc import Mapping

from edge_agent.document import Document
from edge_agent.plan import BusPlan, DevicePlan, KindPlan, wire_times


def units(document: Document, devices: Mapping[str, DevicePlan]) -> None:
    """Two meters cannot answer at one unit; one may stand twice with different profiles (a second map)."""
    seen: dict[tuple[str, object, str], str] = {}
    for device in devices.values():
        unit = getattr(device.settings, "unit", None)
        if unit is not None:
            first = seen.setdefault((device.bus, unit, device.settings.profile), device.name)
            if first != device.name:
                message = f"{unit} on {device.bus} is {first} already"
                document.complain(("devices", device.name, "unit"), message)


def ports(document: Document, buses: Mapping[str, BusPlan]) -> None:
    """A wire has one bus: two that open it would answer each other's questions."""
    seen: dict[tuple[str, object], str] = {}
    for bus in buses.values():
        for key, kind in (("port", str), ("number", int)):
            wire = getattr(bus.settings, key, None)
            if wire and isinstance(wire, kind) and not hasattr(bus.settings, "host"):
                first = seen.setdefault((key, wire), bus.name)
                if first != bus.name:
                    document.complain(("buses", bus.name, key), f"{wire} is {first} already")


def time(document: Document, bus: BusPlan, devices: list[DevicePlan]) -> None:
    """A line that is asked for more than it can carry would only show skipped readings."""
    share = sum(busy_s / period_s for _, _, busy_s, _, period_s in wire_times(bus, devices))
    if share > 1:
        document.complain(
            ("buses", bus.name),
            f"cannot be done: its devices need {share:.0%} of the line's time at {bus.settings.baudrate} baud;"
            " read them less often, raise the baud rate or use another line for some",
        )


def lines(document: Document, outputs: Mapping[str, KindPlan], cameras: Mapping[str, KindPlan]) -> None:
    """A GPIO line has one owner."""
    seen: dict[tuple[object, int], str] = {}

    def take(chip: object, line: object, owner: str, at: tuple[object, ...]) -> None:
        if isinstance(line, int):
            first = seen.setdefault((chip, line), owner)
            if first != owner:
                document.complain(at, f"line {line} is {first}'s already")

    for output in outputs.values():
        for key in ("red", "amber", "green", "buzzer", "acknowledge", "line"):
            line = getattr(output.settings, key, None)
            take(getattr(output.settings, "chip", None), line, output.name, ("outputs", output.name, key))
    for camera in cameras.values():
        trigger = camera.settings.trigger
        take(trigger.chip, trigger.line, camera.name, ("cameras", camera.name, "trigger", "line"))
