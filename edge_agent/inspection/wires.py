"""Buses and their devices: open each port, read each device once, and see whether the schedule can be kept."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Final

from edge_agent import readable
from edge_agent.bus_health import FULL, diagnose, load
from edge_agent.bus_watch import BusWatch, seen
from edge_agent.clock import NS
from edge_agent.errors import DeviceError, WireError
from edge_agent.inspection.finding import DAEMON, FAIL, OK, WARN, Finding, Scene, Step, failed
from edge_agent.plan import BusPlan, DevicePlan, wire_times
from edge_agent.plausibility import Gate

_TURNAROUND_S: Final = 0.02  # assumed for a meter that was not asked
_RAW_NAME: Final = re.compile(r"/dev/tty(USB|ACM)\d+")
_BY_ID: Final = Path("/dev/serial/by-id")
_RELIEF: Final = (
    "read less often (`every`, `groups`), read fewer `quantities`, raise the baud rate or use a second line"
)

Times = dict[str, float]
"""Device → seconds that one reading of everything took."""


def steps(scene: Scene) -> Iterator[Step]:
    """One per bus."""
    for bus in scene.config.buses.values():
        names = ", ".join(device.name for device in scene.config.devices_on(bus.name))
        yield Step(f"bus {bus.name}: asking {names or 'nobody'}", partial(look, scene, bus))


def offline_steps(scene: Scene) -> Iterator[Step]:
    """What can be told of the buses without touching them."""
    for bus in scene.config.buses.values():
        yield Step(f"bus {bus.name}", partial(_judge_plan, scene, bus, {}))


def look(scene: Scene, bus: BusPlan) -> Iterator[Finding]:
    """Everything about one bus."""
    times: Times = {}
    if bus.name in scene.daemon.get("buses", {}):
        yield from _ask_daemon(scene, bus)
    else:
        yield from _ask_devices(scene, bus, times)
    yield from _judge_plan(scene, bus, times)


def _ask_daemon(scene: Scene, bus: BusPlan) -> Iterator[Finding]:
    fault = scene.fault(f"bus.{bus.name}", f"bus {bus.name}")
    yield fault or Finding(
        OK, f"bus {bus.name}", f"{DAEMON} open, {scene.daemon['buses'][bus.name]['utilisation']:.0%} busy"
    )
    for suspicion in scene.daemon["buses"][bus.name].get("suspicions", ()):
        yield Finding(WARN, f"bus {bus.name}", suspicion["says"])
    for plan in scene.config.devices_on(bus.name):
        said = scene.daemon["devices"].get(plan.name)
        if said is None:
            yield Finding(WARN, plan.name, "the running daemon does not know it yet", "systemctl reload edge-agent")
        elif found := scene.fault(f"device.{plan.name}", plan.name) or (fault and replace(fault, what=plan.name)):
            yield found
        else:
            units = {name: quantity.unit for name, quantity in plan.quantities.items()}
            yield _seen(plan.name, said.get("values", {}), said.get("absent", {}), units, "the daemon reads ")


def _ask_devices(scene: Scene, bus: BusPlan, times: Times) -> Iterator[Finding]:
    plans = scene.config.devices_on(bus.name)
    wire = bus.kind(bus.name, bus.settings, scene.clock)
    devices = [(plan, wire.device(plan.name, plan.settings, plan.profile)) for plan in plans]
    try:
        wire.open()
    except WireError as error:
        yield failed(f"bus {bus.name}", error)
        for plan in plans:
            yield Finding(FAIL, plan.name, f"not asked: {bus.name} is not open")
        return
    yield Finding(OK, f"bus {bus.name}", "opened" if plans else "opened; no device uses it")
    try:
        for plan, device in devices:
            yield _ask(scene, plan, device, times)
    finally:
        wire.close()
    yield from _suspect(scene, bus, [device for _, device in devices])


def _suspect(scene: Scene, bus: BusPlan, devices: list[Any]) -> Iterator[Finding]:
    """What the answers, or their absence, point to; where drivers count them."""
    counted = {device.name: seen(device, (0, 0), {}) for device in devices if hasattr(device, "errors")}
    watch = BusWatch(devices, scene.clock.mono_ns(), is_serial=hasattr(bus.settings, "baudrate"))
    for suspicion in diagnose(watch.facts(counted)):
        yield Finding(WARN, f"bus {bus.name}", suspicion.says)


def _ask(scene: Scene, plan: DevicePlan, device: Any, times: Times) -> Finding:
    """Is it there, and does what it says pass the gate?"""
    try:
        device.probe()
        began_ns = scene.clock.mono_ns()
        sample = device.read(frozenset(device.groups))
    except DeviceError as error:
        return failed(plan.name, error)
    took_s = (scene.clock.mono_ns() - began_ns) / NS
    times[plan.name] = took_s
    reading = Gate(plan.name, device.quantities).judge(sample, scene.clock.stamp())
    units = {name: quantity.unit for name, quantity in device.quantities.items()}
    return _seen(plan.name, reading.values, reading.absent, units, f"{took_s * 1000:.0f} ms: ")


def _seen(
    name: str, values: Mapping[str, float], absent: Mapping[str, str], units: Mapping[str, str], prefix: str
) -> Finding:
    text = prefix + (readable.telling(values, units) or "nothing")
    if not absent:
        return Finding(OK if values else WARN, name, text)
    some = ", ".join(f"{quantity} {reason}" for quantity, reason in list(absent.items())[:3])
    more = f" and {len(absent) - 3} more" if len(absent) > 3 else ""
    hint = "is it the right profile? leave out with `quantities` what this meter does not have"
    return Finding(WARN if values else FAIL, name, f"{text}; absent: {some}{more}", hint)


# --- what can be told from the plan


def _judge_plan(scene: Scene, bus: BusPlan, times: Times) -> Iterator[Finding]:
    yield from _judge_name(bus)
    plans = scene.config.devices_on(bus.name)
    asked = load(_shares(bus, plans, times), len(plans))
    if asked is None:
        return
    what = f"schedule {bus.name}"
    basis = "measured" if times else "estimated"
    text = f"one round takes {asked.cycle_s:.2g} s, {asked.share:.0%} of the line's time ({basis})"
    if overload := asked.overload():
        yield Finding(FAIL, what, f"{overload}: {text}", _RELIEF)
    elif asked.share > FULL:
        yield Finding(WARN, what, text, _RELIEF)
    else:
        yield Finding(OK, what, "; ".join(filter(None, (text, asked.spare()))))


def _shares(bus: BusPlan, plans: list[DevicePlan], times: Times) -> list[tuple[float, float]]:
    """Seconds on the wire and period, of every group of every device: measured where it was, else estimated."""
    estimates: dict[str, list[tuple[float, float]]] = {}
    for device, _, busy_s, requests, period_s in wire_times(bus, plans):
        estimates.setdefault(device, []).append((busy_s + requests * _TURNAROUND_S, period_s))
    shares = []
    for plan in plans:
        estimate = estimates.get(plan.name, [])
        if plan.name not in times:
            shares += estimate
        elif estimate:
            factor = times[plan.name] / sum(busy_s for busy_s, _ in estimate)
            shares += [(busy_s * factor, period_s) for busy_s, period_s in estimate]
        else:
            shares.append((times[plan.name], min(plan.periods.values())))
    return shares


def _judge_name(bus: BusPlan) -> Iterator[Finding]:
    port = getattr(bus.settings, "port", None)
    if isinstance(port, str) and _RAW_NAME.fullmatch(port):
        stable = [str(link) for link in sorted(_BY_ID.glob("*")) if str(link.resolve()) == port]
        hint = f"write port: {stable[0]}" if stable else "use its name under /dev/serial/by-id (`edge-agent probe`)"
        yield Finding(WARN, f"bus {bus.name}", f"{port} may be another adapter after the next start", hint)
