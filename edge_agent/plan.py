"""What a config says once it is right: its own sections, and the plans that are made of its entries."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, Field

from edge_agent import catalogue
from edge_agent.alarms import AlarmSettings
from edge_agent.broker import MqttSettings
from edge_agent.clock import ManualClock
from edge_agent.contracts import Profile
from edge_agent.rules import Rule
from edge_agent.settings import Duration, ModelSection, Section, Size
from edge_agent.vocabulary import Quantity

_TIME: Final = re.compile(r"^([01]\d|2[0-3]):[0-5]\d$")
_NAME: Final = re.compile(r"^[A-Za-z0-9_-]{1,64}$")

Entries = dict[str, dict[str, Any]]


def is_name(name: object) -> bool:
    """Whether it can be a level of a topic."""
    return _NAME.match(str(name)) is not None


def named(name: str) -> str:
    """The name of a site, line or entry, if it is one; raises ValueError."""
    if not is_name(name):
        raise ValueError(f"{name!r} must be made of letters, digits, _ and - (it becomes a topic)")
    return name


Name = Annotated[str, AfterValidator(named)]


def _is_time(text: str) -> str:
    """``06:00``; raises ValueError."""
    if _TIME.match(text) is None:
        raise ValueError(f"{text!r} is no time of day, like 06:00")
    return text


ShiftTime = Annotated[str, AfterValidator(_is_time)]


class SpoolSettings(Section):
    """What is kept on the disk, and how safely."""

    limit: Size = Field(
        default=2 << 30,
        ge=1 << 20,
        description="Bytes that wait for the broker; beyond, the oldest telemetry goes first.",
    )
    commit_every: Duration = Field(
        default=1.0, ge=0.05, le=60, description="How much may be lost when the process is killed."
    )
    durability: Literal["power-cut", "crash"] = Field(
        default="power-cut",
        description="`power-cut`: every commit is forced to the disk; `crash`: a power cut may lose the last ones.",
    )
    free_floor: Size = Field(default=64 << 20, ge=0, description="Free space that is left to others on the same disk.")
    history: Duration = Field(default=400 * 86400.0, ge=3600, description="How long minute aggregates are kept.")


class Root(Section):
    """The whole file; the entries of the open sections are checked by the kind that they name."""

    site: Name = Field(description="The site (ISA-95), as it stands in topics.")
    line: Name = Field(description="The production line, as it stands in topics.")
    state_dir: Path = Field(
        default=Path("/var/lib/edge-agent"), description="Where the database, evidence and calibrations live."
    )
    mqtt: MqttSettings | None = Field(default=None, description="The broker.")
    shifts: tuple[ShiftTime, ...] = Field(
        default=("06:00", "14:00", "22:00"),
        min_length=1,
        description="When shifts begin, by the clock of the place: good, bad and not inspected are counted for each.",
    )
    spool: SpoolSettings = Field(default_factory=SpoolSettings, description="What is kept on the disk.")
    buses: Entries = Field(default={}, description="The wires, by name.")
    devices: Entries = Field(default={}, description="Meters and sensors, by name.")
    cameras: Entries = Field(default={}, description="Cameras, by name.")
    models: Entries = Field(default={}, description="Models that judge, by name.")
    alarms: Entries = Field(default={}, description="What must be said aloud, by name.")
    outputs: Entries = Field(default={}, description="Stack lights, relays and buzzers, by name.")


@dataclass(frozen=True, slots=True)
class BusPlan:
    """A bus of the config: its class and checked settings."""

    name: str
    kind: type[Any]
    settings: Any


@dataclass(frozen=True, slots=True)
class DevicePlan:
    """A device of the config. ``quantities``: what it will publish; ``periods``: of its groups, in seconds."""

    name: str
    bus: str
    settings: Any
    profile: Profile
    quantities: Mapping[str, Quantity]
    periods: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class KindPlan:
    """A camera or an output: its kind's class and checked settings."""

    name: str
    kind: str
    cls: type[Any]
    settings: Any


@dataclass(slots=True)
class Config:
    """A config without mistakes. ``folder``: what its relative paths are relative to."""

    file: Path
    folder: Path
    site: str
    line: str
    state_dir: Path
    mqtt: MqttSettings | None
    spool: SpoolSettings
    shifts: tuple[str, ...] = ("00:00",)
    buses: dict[str, BusPlan] = field(default_factory=dict)
    devices: dict[str, DevicePlan] = field(default_factory=dict)
    cameras: dict[str, KindPlan] = field(default_factory=dict)
    models: dict[str, ModelSection] = field(default_factory=dict)
    alarms: dict[str, AlarmSettings] = field(default_factory=dict)
    rules: dict[str, Rule] = field(default_factory=dict)
    outputs: dict[str, KindPlan] = field(default_factory=dict)

    @property
    def root_topic(self) -> str:
        prefix = self.mqtt.topic_prefix if self.mqtt else "edge"
        return f"{prefix}/{self.site}/{self.line}"

    def devices_on(self, bus: str) -> list[DevicePlan]:
        return [device for device in self.devices.values() if device.bus == bus]


def wire_times(bus: BusPlan, devices: Iterable[DevicePlan]) -> list[tuple[str, str, float, int, float]]:
    """Device, group, seconds that the line is busy with it at least, requests, period; empty for other wires."""
    if bus.settings.kind not in catalogue.WIRE_TIMES:
        return []
    wire = bus.kind(bus.name, bus.settings, ManualClock())
    busy = catalogue.load(catalogue.WIRE_TIMES, bus.settings.kind)
    return [
        (device.name, group, busy_s, requests, device.periods[group])
        for device in devices
        for group, (busy_s, requests) in busy(wire, bus.settings, device.settings, device.profile).items()
    ]
