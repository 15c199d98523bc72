"""A sensor on an I2C bus, as the daemon knows it: its settings, its profile, its readings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Final

from pydantic import BeforeValidator, Field

from drivers.sensors.part import Part, Wire
from edge_agent.catalogue import SENSORS, load
from edge_agent.clock import NS, Clock
from edge_agent.errors import ProfileError
from edge_agent.psychrometrics import DERIVED, derive
from edge_agent.settings import DeviceSection, Duration
from edge_agent.vocabulary import OUT_OF_RANGE, QUANTITIES, STALE, Quantity, Sample, nearest

_DECIMALS: Final = 3  # finer than any part resolves
_FROZEN_READINGS: Final = 10  # so few equal ones in a row prove nothing, however long they took


def _address(value: object) -> int:
    try:
        address = int(value, 0) if isinstance(value, str) else value
    except ValueError:
        address = None
    if not isinstance(address, int) or isinstance(address, bool):
        raise ValueError(f"{value!r} is no I2C address, like 0x44")
    if 0x80 <= address <= 0xFF:
        raise ValueError(f"0x{address:02x} is the 8-bit form: the 7-bit address is 0x{address >> 1:02x}")
    if not 0x08 <= address <= 0x77:
        raise ValueError(f"0x{address:02x} is no I2C address: 0x08 to 0x77")
    return address


class I2cDevice(DeviceSection):
    """A temperature and humidity sensor on an I2C bus."""

    every: Duration = Field(default=10.0, gt=0, description="How often it is read.")
    address: Annotated[int, BeforeValidator(_address, json_schema_input_type=int | str)] | None = Field(
        default=None, description="Its 7-bit address, like 0x44; if not given, the usual one of its kind."
    )
    dew_point: bool = Field(
        default=False, description="Also give dew point and absolute humidity, from temperature and humidity."
    )
    frozen_after: Duration = Field(
        default=6 * 3600.0, gt=0, description="Values that have not moved at all for so long are stale."
    )


@dataclass(frozen=True, slots=True)
class SensorProfile:
    """A part at an address. The quantities have the ranges of the part."""

    name: str
    quantities: Mapping[str, Quantity]
    part: Part
    address: int


def sensor_profile(settings: I2cDevice) -> SensorProfile:
    """What the settings name; raises ProfileError with everything that does not fit."""
    if settings.profile not in SENSORS:
        raise ProfileError(
            f"there is no sensor profile {settings.profile!r}{nearest(settings.profile, SENSORS)}",
            hint=f"known: {', '.join(SENSORS)}",
        )
    part: Part = load(SENSORS, settings.profile)
    address = part.addresses[0] if settings.address is None else settings.address
    if problems := _misfits(settings, part, address):
        raise ProfileError("; ".join(problems))
    quantities = {name: QUANTITIES[name]._replace(low=low, high=high) for name, (low, high) in part.ranges.items()}
    if settings.dew_point:
        quantities |= {name: QUANTITIES[name] for name in DERIVED}
    return SensorProfile(settings.profile, quantities, part, address)


def _misfits(settings: I2cDevice, part: Part, address: int) -> list[str]:
    name, problems = settings.profile, []
    if address not in part.addresses:
        possible = " or ".join(f"0x{known:02x}" for known in part.addresses)
        problems.append(f"address: a {name} has {possible}, never 0x{address:02x}")
    if settings.every < part.min_every_s:
        problems.append(f"every: a {name} is read every {part.min_every_s:g}s at most often, or it warms itself")
    if part.previous_within_s is not None and settings.every > part.previous_within_s:
        problems.append(
            f"every: a {name} answers with its previous measurement: read it every {part.previous_within_s:g}s or more"
            " often"
        )
    return problems


class I2cSensor:
    """One sensor. Every answer is checked against the part's ranges before it becomes a value."""

    def __init__(self, name: str, wire: Wire, clock: Clock, settings: I2cDevice, profile: SensorProfile) -> None:
        self.name = name
        self.quantities = profile.quantities
        self.groups: Mapping[str, float] = {"": settings.every}
        self.address = profile.address
        self._profile = profile
        self._part = profile.part
        self._wire = wire
        self._clock = clock
        self._derives = settings.dew_point
        self._frozen_after_ns = int(settings.frozen_after * NS)
        self._answered_ns: int | None = None
        self._last: dict[str, float] = {}
        self._moved_ns = 0
        self._equal = 0

    def read(self, due: frozenset[str]) -> Sample:  # noqa: ARG002 - a sensor has one group
        """Measure now; raises DeviceError or WireError."""
        measured = self._part.measure(self._wire, self.address)
        now_ns = self._clock.mono_ns()
        if self._answer_is_old(now_ns) or self._is_frozen(measured.values, now_ns):
            return Sample({}, dict.fromkeys(self.quantities, STALE))
        values, absent = {}, dict(measured.absent)
        for name, value in measured.values.items():
            low, high = self._part.ranges[name]
            if low <= value <= high:
                values[name] = value
            else:
                absent[name] = OUT_OF_RANGE
        if self._derives:
            derive(values, absent)
        return Sample({name: round(value, _DECIMALS) for name, value in values.items()}, absent)

    def probe(self) -> None:
        """Measure and drop it: no part has a cheaper question that shows as much. Raises as ``read``."""
        self._part.measure(self._wire, self.address)

    def _answer_is_old(self, now_ns: int) -> bool:
        limit_s = self._part.previous_within_s
        before_ns, self._answered_ns = self._answered_ns, now_ns
        return limit_s is not None and (before_ns is None or now_ns - before_ns > limit_s * NS)

    def _is_frozen(self, values: dict[str, float], now_ns: int) -> bool:
        if values != self._last:
            self._last, self._moved_ns, self._equal = values, now_ns, 0
            return False
        self._equal += 1
        return self._equal >= _FROZEN_READINGS and now_ns - self._moved_ns >= self._frozen_after_ns
