"""An I2C bus without wires: the sensors' own drivers talk to twins that speak like the chips."""

from __future__ import annotations

import errno
import math
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from pydantic import Field, field_validator

from drivers.sensors.bus import SensorBus
from drivers.sensors.device import I2cDevice, I2cSensor, SensorProfile
from drivers.simulated import chips
from drivers.simulated.bme280_chip import Bme280
from drivers.simulated.chips import Air, Bmp280, Chip
from drivers.simulated.faults import Fault, active
from edge_agent.clock import NS, Clock
from edge_agent.errors import ProfileError
from edge_agent.settings import BusSection, Duration, Section
from edge_agent.vocabulary import nearest

CHIPS: Final[dict[str, type[Chip]]] = {
    "sht30": chips.Sht3x,
    "sht31": chips.Sht3x,
    "sht35": chips.Sht3x,
    "sht40": chips.Sht4x,
    "sht41": chips.Sht4x,
    "sht45": chips.Sht4x,
    "sht4x": chips.Sht4x,
    "shtc3": chips.Shtc3,
    "hdc3020": chips.Hdc302x,
    "hdc3021": chips.Hdc302x,
    "hdc3022": chips.Hdc302x,
    "htu21d": chips.Htu21d,
    "si7020": chips.Si7021,
    "si7021": chips.Si7021,
    "sht20": chips.Sht21,
    "sht21": chips.Sht21,
    "sht25": chips.Sht21,
    "aht20": chips.Aht20,
    "aht21": chips.Aht20,
    "aht25": chips.Aht20,
    "aht10": chips.Aht10,
    "hdc1080": chips.Hdc1080,
    "hdc1008": chips.Hdc1008,
    "hdc1010": chips.Hdc1008,
    "am2320": chips.Am2320,
    "bme280": Bme280,
}

FAULTS: Final = {
    "nack": "it does not answer",
    "crc": "a bit of its answer is wrong",
    "all-ff": "every byte of its answers is 0xFF",
    "all-00": "every byte of its answers is 0x00",
    "stuck": "the whole bus is stuck",
    "wrong-chip": "a BMP280 sits at its address",
    "frozen": "it repeats the same measurement",
}


class ClimateTwin(Section):
    """The air around a simulated sensor, and what goes wrong with it."""

    temperature: float = Field(default=24.0, ge=-40, le=80, description="Mean temperature in °C.")
    relative_humidity: float = Field(default=45.0, ge=0, le=100, description="Mean relative humidity in %.")
    pressure: float = Field(default=101_325.0, ge=30_000, le=110_000, description="Pressure in Pa.")
    swing: float = Field(default=2.0, ge=0, le=40, description="How far the temperature goes up and down, in °C.")
    period: Duration = Field(default=1800.0, gt=0, description="How long one swing takes.")
    faults: list[Fault] = Field(
        default=[], description="What goes wrong: " + "; ".join(f"`{kind}`: {what}" for kind, what in FAULTS.items())
    )

    @field_validator("faults")
    @classmethod
    def _known(cls, faults: list[Fault]) -> list[Fault]:
        for fault in faults:
            if fault.kind not in FAULTS:
                raise ValueError(f"there is no fault {fault.kind!r}{nearest(fault.kind, FAULTS)}")
        return faults

    def at(self, elapsed_s: float) -> Air:
        """The air so long after the start: humidity falls when it gets warmer."""
        swing = self.swing * math.sin(2 * math.pi * elapsed_s / self.period)
        humidity = min(100.0, max(0.0, self.relative_humidity - 2 * swing))
        return Air(self.temperature + swing, humidity, self.pressure)


class SimulatedI2cDevice(I2cDevice):
    """A sensor without wires."""

    twin: ClimateTwin = Field(default=ClimateTwin(), description="The air around it, and its faults.")


class SimulatedI2cSection(BusSection):
    """An I2C bus without wires."""


class _Placed(NamedTuple):
    chip: Chip
    impostor: Chip
    twin: ClimateTwin


class SimulatedI2c(SensorBus):
    """Chips at addresses. What a fault does to the bytes is done here, between chip and driver."""

    Settings = SimulatedI2cSection
    DeviceSettings = SimulatedI2cDevice

    def __init__(self, name: str, settings: Any, clock: Clock) -> None:
        super().__init__(name, settings, clock)
        self._placed: dict[int, _Placed] = {}
        self._started_ns: int | None = None
        self._is_open = False

    def device(self, name: str, settings: Any, profile: SensorProfile) -> I2cSensor:
        """Bind a sensor and place its twin; raises ProfileError for a fault that it cannot notice."""
        twin: ClimateTwin = settings.twin
        if not CHIPS[profile.name].has_checksum and any(fault.kind == "crc" for fault in twin.faults):
            raise ProfileError(f"{name}: a {profile.name} has no checksum, so the fault 'crc' would be a wrong value")
        sensor = super().device(name, settings, profile)
        chip = CHIPS[profile.name](self._air(twin), self._clock)
        self._placed[profile.address] = _Placed(chip, Bmp280(self._air(twin), self._clock), twin)
        return sensor

    def open(self) -> None:
        """The script of the faults begins when it is opened for the first time."""
        self._is_open = True
        if self._started_ns is None:
            self._started_ns = self._clock.mono_ns()

    def close(self) -> None:
        """Harmless when closed."""
        self._is_open = False

    def _exchange(self, address: int, data: bytes, n: int) -> bytes:
        if not self._is_open:
            raise OSError(errno.EBADF, "not open")
        if any("stuck" in self._faults(placed.twin) for placed in self._placed.values()):
            raise OSError(errno.EIO, "Input/output error")
        placed = self._placed.get(address)
        faults = self._faults(placed.twin) if placed else frozenset()
        if placed is None or "nack" in faults:
            raise OSError(errno.EREMOTEIO, "Remote I/O error")
        if faults & {"all-ff", "all-00"}:
            return (b"\xff" if "all-ff" in faults else b"\x00") * n
        chip = placed.impostor if "wrong-chip" in faults else placed.chip
        if data:
            chip.write(data)
        answer = chip.read(n) if n else b""
        if "crc" in faults and n >= 3:
            answer = bytes([answer[0], answer[1] ^ 0x10, *answer[2:]])
        return answer

    def _elapsed_s(self) -> float:
        started_ns = self._clock.mono_ns() if self._started_ns is None else self._started_ns
        return (self._clock.mono_ns() - started_ns) / NS

    def _faults(self, twin: ClimateTwin) -> frozenset[str]:
        return active(twin.faults, self._elapsed_s())

    def _air(self, twin: ClimateTwin) -> Callable[[], Air]:
        last = twin.at(0.0)

        def now() -> Air:
            nonlocal last
            if "frozen" not in self._faults(twin):
                last = twin.at(self._elapsed_s())
            return last

        return now
