"""What a line says of itself: to the broker in its retained state, to people in ``edge-agent status``."""

from __future__ import annotations

from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final

from edge_agent.bus_watch import failures, seen
from edge_agent.clock import NS, iso
from edge_agent.line import Line
from edge_agent.payload import stamp_fields

TELL_BUSES_EVERY_S: Final = 60.0  # how they fare; spares the broker


def product_version() -> str:
    try:
        return version("edge-agent")
    except PackageNotFoundError:
        return "0+unknown"


class Report:
    """Remembers what the broker was told, so that it is told again when that is no longer so."""

    def __init__(self, line: Line) -> None:
        self._line = line
        self._faults: object = None  # as last told
        self._buses: dict[str, object] = {}  # as last told
        self._buses_ns = line.since.mono_ns

    def state(self, state: str) -> dict[str, object]:
        """The retained state message, also the last will (with ``state`` offline)."""
        line = self._line
        fields: dict[str, object] = {
            "state": state,
            "version": product_version(),
            "stream": line.spool.stream,
            "boot": line.clock.boot_id,
            **stamp_fields(line.clock.stamp()),
        }
        if state != "online":
            return fields
        faults = {fault.source: fault.reason for fault in line.health.faults()}
        fields["devices"] = {
            plan.name: {
                "profile": plan.settings.profile,
                "state": "offline" if {f"device.{plan.name}", f"bus.{plan.bus}"} & faults.keys() else "online",
                "quantities": {name: quantity.unit for name, quantity in plan.quantities.items()},
            }
            for plan in line.config.devices.values()
        }
        if line.config.cameras:
            fields["cameras"] = {
                plan.name: {"kind": plan.kind, **self._fallbacks(f"camera.{plan.name}")}
                for plan in line.config.cameras.values()
            }
        if line.judge is not None:
            fields["models"] = line.judge.deciders()
        if self._buses:
            fields["buses"] = self._buses
        if faults:
            fields["faults"] = faults
        return fields

    def tell_anew(self) -> None:
        """The config has changed: the next look has the broker told what there is now."""
        self._faults = None

    def look(self) -> None:
        """Have the state message sent again when faults came or went, and once a minute. Called every few seconds."""
        line = self._line
        buses = self._bus_reports(remember=True)
        now_ns = line.clock.mono_ns()
        is_due = bool(buses) and now_ns - self._buses_ns >= TELL_BUSES_EVERY_S * NS
        if is_due:
            self._buses, self._buses_ns = buses, now_ns
        faults = [(fault.source, fault.reason) for fault in line.health.faults() if fault.source != "mqtt"]
        if faults != self._faults or is_due:
            self._faults = faults
            if line.publisher is not None:
                line.publisher.state_changed()

    def status(self) -> dict[str, object]:
        """Everything a person may want to know, for ``edge-agent status``."""
        line = self._line
        state = self.state("online")
        devices: Any = state["devices"]
        for name, fields in devices.items():
            fields.update(self._device(name))
        return {
            **state,
            "line": f"{line.config.site}/{line.config.line}",
            "since": stamp_fields(line.since)["at"],
            "uptime_s": (line.clock.mono_ns() - line.since.mono_ns) // NS,
            "broker": line.publisher.broker if line.publisher is not None else None,
            "spool": line.spool.usage(),
            "recorded": line.recorder.recorded,
            "cameras": {name: self._camera(name) for name in line.config.cameras},
            "buses": self._bus_reports(),
            "models": line.judge.summary() if line.judge is not None else {},
            "alarms": line.alarms(),
            "lamps": line.stage.lamps() if line.stage is not None else {},
            "faults": [
                {"source": fault.source, "reason": fault.reason, "hint": fault.hint, "since": iso(fault.since_ms)}
                for fault in line.health.faults()
            ],
            "counters": line.health.counters(),
        }

    def _bus_reports(self, *, remember: bool = False) -> dict[str, object]:
        """How each bus fares; ``remember``: also for the comparison with later."""
        line = self._line
        now_ns, counts = line.clock.mono_ns(), line.health.counters()
        reports: dict[str, object] = {}
        for name, part in sorted(line.parts.copy().items()):
            if not name.startswith("bus."):
                continue
            bus, poll = name.removeprefix("bus."), part.detail
            work = poll.work()
            seen_now = {
                device.name: seen(device, work[device.name], failures(counts, device.name)) for device in poll.devices
            }
            watch = line.watches[bus]
            if remember:
                watch.look(now_ns, seen_now)
            reports[bus] = watch.report(now_ns, seen_now, poll.utilisation())
        return reports

    def _camera(self, name: str) -> dict[str, object]:
        """What triggers it, and what it counted."""
        part = self._line.parts.get(f"camera.{name}")
        fields: dict[str, object] = {"kind": self._line.config.cameras[name].kind}
        return {
            **fields,
            **(part.detail.summary() if part else {}),
            **self._fallbacks(f"camera.{name}"),
            **self._line.tally.summary(name),
        }

    def _fallbacks(self, part: str) -> dict[str, object]:
        """Of the models of a camera: the share of decisions that they did not make themselves."""
        eye = self._line.parts[part].detail if part in self._line.parts else None
        return {"fallbacks": dict(eye.roster.fallbacks)} if eye is not None and eye.roster.fallbacks else {}

    def _device(self, name: str) -> dict[str, object]:
        """What it said last, and how it answers where its driver counts that."""
        line = self._line
        plan = line.config.devices[name]
        fields: dict[str, object] = {"bus": plan.bus}
        if (last := line.latest.get(name)) is not None:
            fields |= {"at": iso(last.at.wall_ms), "values": last.values, "absent": last.absent}
        if (one := line.corrections.of(name)) is not None:
            corrections = {quantity: asdict(correction) for quantity, correction in one.corrections.items()}
            fields["calibration"] = {"at": iso(one.at_ms), "expires": iso(one.expires_ms), "corrections": corrections}
        part = line.parts.get(f"bus.{plan.bus}")
        for device in part.detail.devices if part else ():
            if device.name == name and hasattr(device, "stats"):
                fields |= {"stats": dict(device.stats), "latency_ms": device.latency_ms()}
            if device.name == name and (origin := getattr(device, "origin", None)) is not None and origin.serial:
                fields["serial"] = origin.serial
        return fields
