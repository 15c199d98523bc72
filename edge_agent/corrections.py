"""The calibrations in use, and what is wrong with them."""

from __future__ import annotations

from edge_agent import calibration
from edge_agent.calibration import Calibration
from edge_agent.clock import Clock, iso
from edge_agent.errors import EdgeAgentError
from edge_agent.health import Health
from edge_agent.plan import Config


class Corrections:
    """Which device is corrected by what. ``load`` before anything else, and again with every config."""

    def __init__(self, clock: Clock, health: Health) -> None:
        self._clock = clock
        self._health = health
        self._in_use: dict[str, Calibration] = {}

    def load(self, config: Config) -> None:
        """One that cannot be used is a fault: its sensor goes on uncorrected, and says so."""
        found: dict[str, Calibration] = {}
        for device in config.devices.values():
            try:
                one = calibration.load(config.state_dir, device.name, device.settings.profile)
            except EdgeAgentError as error:
                self._health.fault(_source(device.name), f"not corrected: {error}", hint=error.hint)
                continue
            self._health.clear(_source(device.name))
            if one is not None:
                found[device.name] = one
        for name in self._in_use.keys() - config.devices.keys():
            self._health.clear(_source(name))
        self._in_use = found

    def of(self, device: str) -> Calibration | None:
        return self._in_use.get(device)

    def look(self) -> None:
        """An expired calibration goes on correcting, and is a fault until somebody calibrates again."""
        now_ms = self._clock.stamp().wall_ms  # a clock that nobody sets is late, not early: it says so late at worst
        for name, one in self._in_use.items():
            if one.has_expired(now_ms):
                hint = f"edge-agent calibrate sensor {name} --reference …; until then it goes on correcting"
                self._health.fault(_source(name), f"expired on {iso(one.expires_ms)[:10]}", hint=hint)


def _source(device: str) -> str:
    return f"calibration.{device}"
