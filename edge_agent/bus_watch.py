"""The last minutes of a bus, told from the weeks before: a few counters are looked at now and then and remembered."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple

from edge_agent.bus_health import BusFacts, Load, UnitFacts, diagnose, load
from edge_agent.clock import NS
from edge_agent.contracts import Device
from edge_agent.vocabulary import CRC

LOOK_EVERY_S: Final = 30.0
_REMEMBERED: Final = 20  # looks: ten minutes
_MINUTE_S: Final = 60.0
_DECIMALS: Final = 2


class Seen(NamedTuple):
    """The counters of one device, since its start. ``visits``: readings and probes; ``busy_ns``: they took in all."""

    requests: int
    answers: int
    errors: Mapping[str, int]
    damaged_registers: int
    visits: int
    busy_ns: int


_NOTHING: Final = Seen(0, 0, {}, 0, 0, 0)


def seen(device: Device, work: tuple[int, int], reasons: Mapping[str, int]) -> Seen:
    """``work``: visits and nanoseconds; ``reasons``: what made readings fail, where the driver does not count."""
    unit: Any = getattr(device, "unit", None)
    if hasattr(unit, "errors"):
        return Seen(unit.requests, unit.answers, unit.errors, unit.crc_registers, *work)
    return Seen(work[0], max(0, work[0] - sum(reasons.values())), dict(reasons), 0, *work)


def failures(counters: Mapping[str, int], device: str) -> dict[str, int]:
    """Of the counters of health, why readings of a device failed."""
    begin = f"device.{device}."
    return {name.removeprefix(begin): count for name, count in counters.items() if name.startswith(begin)}


class BusWatch:
    """One bus: its devices, and what their counters were. ``is_serial``: see :class:`BusFacts`."""

    def __init__(self, devices: Iterable[Device], now_ns: int, *, is_serial: bool) -> None:
        self._devices = {device.name: device for device in devices}
        self._is_serial = is_serial
        self._looks: deque[tuple[int, dict[str, Seen]]] = deque([(now_ns, {})], maxlen=_REMEMBERED)

    def look(self, now_ns: int, seen_now: dict[str, Seen]) -> None:
        """Remember the counters as they are now, at most every half minute."""
        if now_ns - self._looks[-1][0] >= LOOK_EVERY_S * NS:
            self._looks.append((now_ns, seen_now))

    def last_minute(self, now_ns: int, seen_now: Mapping[str, Seen]) -> float | None:
        """Share of the time that the wire was in use, over about a minute; None before the first half of it."""
        old = (look for look in reversed(tuple(self._looks)) if now_ns - look[0] >= _MINUTE_S * NS)
        then_ns, then = next(old, self._looks[0])
        if now_ns - then_ns < LOOK_EVERY_S * NS:
            return None
        before = sum(each.busy_ns for each in then.values())
        return (sum(each.busy_ns for each in seen_now.values()) - before) / (now_ns - then_ns)

    def facts(self, seen_now: Mapping[str, Seen]) -> BusFacts:
        """What happened in the last ten minutes, or since the start."""
        before = self._looks[0][1]
        units = [
            _unit_facts(device, seen_now.get(name, _NOTHING), before.get(name, _NOTHING))
            for name, device in self._devices.items()
        ]
        return BusFacts(self._is_serial, units, self._load(seen_now, before))

    def _load(self, seen_now: Mapping[str, Seen], before: Mapping[str, Seen]) -> Load | None:
        """What a round costs, of the devices that answer."""
        shares: list[tuple[float, float]] = []
        devices = 0
        for name, device in self._devices.items():
            now, then = seen_now.get(name, _NOTHING), before.get(name, _NOTHING)
            visits = now.visits - then.visits
            if visits > 0 and now.answers > then.answers:
                each_s = (now.busy_ns - then.busy_ns) / visits / NS
                shares += [(each_s, period_s) for period_s in device.groups.values()]
                devices += 1
        return load(shares, devices)

    def report(self, now_ns: int, seen_now: Mapping[str, Seen], utilisation: float) -> dict[str, Any]:
        """For status, pages and the broker. ``utilisation``: since the start."""
        facts = self.facts(seen_now)
        last_minute = self.last_minute(now_ns, seen_now)
        said: dict[str, Any] = {"utilisation": round(utilisation, 4)}
        if last_minute is not None:
            said["last_minute"] = round(last_minute, 4)
        if facts.load is not None:
            said |= {"cycle_s": round(facts.load.cycle_s, 3), "wanted_s": facts.load.shortest_s}
            said |= {"room": facts.load.room}
        said["units"] = {unit.device: _unit_report(unit, seen_now.get(unit.device, _NOTHING)) for unit in facts.units}
        said["suspicions"] = [suspicion._asdict() for suspicion in diagnose(facts)]
        return said


def _unit_facts(device: Any, now: Seen, then: Seen) -> UnitFacts:
    errors = {kind: count - then.errors.get(kind, 0) for kind, count in now.errors.items()}
    damaged = now.damaged_registers - then.damaged_registers
    facts = UnitFacts(
        device.name,
        getattr(getattr(device, "unit", None), "number", None),
        now.requests - then.requests,
        now.answers - then.answers,
        {kind: count for kind, count in errors.items() if count > 0},
        device.latency_ms() if hasattr(device, "latency_ms") else None,
        registers=device.mean_registers() if hasattr(device, "mean_registers") else 0.0,
        damaged_registers=damaged / errors[CRC] if errors.get(CRC) else 0.0,
    )
    return facts._replace(has_answered=facts._replace(answers=now.answers, errors=now.errors).answered)


def _unit_report(unit: UnitFacts, now: Seen) -> dict[str, Any]:
    """Counts since the start; latency of the last answers."""
    said: dict[str, Any] = {} if unit.unit is None else {"unit": unit.unit}
    said["requests"] = now.requests
    if now.errors:
        said["errors"] = dict(now.errors)
    if unit.latency_ms is not None:
        said["latency_ms"] = [round(ms, _DECIMALS) for ms in unit.latency_ms]
    return said
