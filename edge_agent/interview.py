"""From a few answers to a config: what `init` makes of what a person said."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from edge_agent import sample
from edge_agent.config import loads
from edge_agent.errors import ConfigError
from edge_agent.plan import Config, wire_times
from edge_agent.settings import split_unit

LIGHT: Final = {"red": 17, "amber": 27, "green": 22, "buzzer": 23, "acknowledge": 24}
_PERIODS: Final = (1, 2, 5, 10, 30, 60)
_COMFORTABLE: Final = 0.6  # share of a serial line
_TURNAROUND_S: Final = 0.02
_HEAD: Final = """\
# Written by `edge-agent init`. Prove it: edge-agent check --config {file}
# Every setting there is: docs/configuration.md and config.yaml.example.

"""


@dataclass(frozen=True, slots=True)
class Meter:
    """``where``: a serial port's path, or a host with or without its port; empty: simulated."""

    profile: str
    where: str
    unit: int = 1
    baudrate: int = 9600
    parity: str = "N"

    @property
    def is_serial(self) -> bool:
        return self.where.startswith("/")


@dataclass(frozen=True, slots=True)
class Sensor:
    """``number``: N of /dev/i2c-N; None: simulated. ``address``: None is the usual one of its kind."""

    profile: str
    number: int | None = 1
    address: int | None = None


@dataclass(slots=True)
class Answers:
    """What a person said, or left at its default."""

    site: str = "plant"
    line: str = "line-1"
    state_dir: str = "/var/lib/edge-agent"
    brokers: list[str] = field(default_factory=list)
    username: str | None = None
    meters: list[Meter] = field(default_factory=list)
    sensors: list[Sensor] = field(default_factory=list)
    camera: str | None = None
    overload: str | None = None
    stack_light: bool = False


def write(answers: Answers, file: Path) -> str:
    """The text of a config that is right; raises ConfigError where the answers cannot all be had.

    Meters are read as often as their line comfortably allows.
    """
    for period_s in _PERIODS:
        text = _HEAD.format(file=file) + sample.text(_data(answers, period_s))
        try:
            config = loads(text, file)
        except ConfigError as error:
            too_tight = all("cannot be done" in problem.message for problem in error.problems)
            if too_tight and period_s != _PERIODS[-1]:
                continue
            raise
        if _busiest(config) <= _COMFORTABLE or period_s == _PERIODS[-1]:
            break
    return text


def _busiest(config: Config) -> float:
    """The share of its time that the busiest line is in use."""
    shares = [0.0]
    for bus in config.buses.values():
        times = wire_times(bus, config.devices_on(bus.name))
        shares.append(sum((busy_s + _TURNAROUND_S * requests) / every_s for _, _, busy_s, requests, every_s in times))
    return max(shares)


def _data(answers: Answers, period_s: int) -> dict[str, Any]:
    data: dict[str, Any] = {"site": answers.site, "line": answers.line, "state_dir": answers.state_dir}
    if answers.brokers:
        data["mqtt"] = {"brokers": answers.brokers}
        if answers.username:
            data["mqtt"] |= {"username": answers.username, "password_file": "mqtt-password"}
    buses: dict[str, dict[str, Any]] = {}
    devices: dict[str, dict[str, Any]] = {}
    for number, meter in enumerate(answers.meters):
        bus = _bus(buses, _wire(meter), "rs485" if meter.is_serial else "panel")
        name = f"meter-{number + 1}" if number else "main-meter"
        devices[name] = {"bus": bus, "profile": meter.profile, "unit": meter.unit, "every": f"{period_s}s"}
    for number, sensor in enumerate(answers.sensors):
        bus = _bus(buses, _i2c(sensor), "i2c")
        name = f"climate-{number + 1}" if number else "cabinet"
        devices[name] = {"bus": bus, "profile": sensor.profile, "every": "10s"}
        if sensor.address is not None:
            devices[name]["address"] = sensor.address
    data |= {"buses": buses, "devices": devices} if devices else {}
    if answers.camera:
        data["cameras"] = {"outfeed": _camera(answers.camera)}
    alarms = dict(_alarms(answers))
    data |= {"alarms": alarms} if alarms else {}
    if answers.stack_light:
        data["outputs"] = {"stack-light": {"kind": "gpio", **LIGHT, "on_exit": "red"}}
    return data


def _wire(meter: Meter) -> dict[str, Any]:
    if not meter.where:
        return {"kind": "simulated-modbus-tcp"}
    if meter.is_serial:
        return {"kind": "modbus-rtu", "port": meter.where, "baudrate": meter.baudrate, "parity": meter.parity}
    host, _, port = meter.where.partition(":")
    return {"kind": "modbus-tcp", "host": host, **({"port": int(port)} if port else {})}


def _i2c(sensor: Sensor) -> dict[str, Any]:
    return {"kind": "simulated-i2c"} if sensor.number is None else {"kind": "i2c", "number": sensor.number}


def _bus(buses: dict[str, dict[str, Any]], wire: dict[str, Any], stem: str) -> str:
    """The name of the bus on this wire; a new one where it is not there yet. One port has one bus."""
    key = wire.get("port") if wire["kind"] == "modbus-rtu" else wire
    for name, other in buses.items():
        if key in (other.get("port"), other):
            return name
    taken = sum(name.startswith(stem) for name in buses)
    name = (
        f"i2c-{wire['number']}"
        if "number" in wire
        else f"{stem}-{chr(ord('a') + taken)}"
        if taken < 26
        else f"{stem}-{taken}"
    )
    buses[name] = wire
    return name


def _camera(source: str) -> dict[str, Any]:
    kinds = {"rtsp": "rtsp", "rtsps": "rtsp", "http": "http", "https": "http"}
    scheme = source.partition("://")[0] if "://" in source else ""
    if source == "simulated":
        return {"kind": "simulated", "every": "500ms"}
    if scheme:
        return {"kind": kinds.get(scheme, scheme), "source": source, "every": "500ms"}
    kind = "v4l2" if source.startswith("/dev/") else "folder"
    return {"kind": kind, "source": source, "every": "500ms"}


def _alarms(answers: Answers) -> Iterator[tuple[str, dict[str, Any]]]:
    """What nearly every line wants to hear of."""
    if answers.meters:
        if answers.overload:
            level, unit = split_unit(answers.overload)
            above = {"when": f"main-meter.active_power > {level:g} {unit}", "clear": f"< {level * 0.93:.4g} {unit}"}
            yield "overload", {**above, "for": "10s", "severity": "high", "latch": True}
        yield "meter-gone", {"when": "main-meter is offline", "for": "1min", "severity": "medium"}
    if answers.sensors:
        hot = {"when": "cabinet.temperature > 55 °C", "clear": "< 50 °C"}
        yield "hot-cabinet", {**hot, "for": "1min", "severity": "medium"}
    if answers.camera:
        yield "defect", {"when": "outfeed is defect", "severity": "medium"}
