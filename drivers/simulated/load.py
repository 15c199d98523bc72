"""A three-phase load that obeys physics: P = ΣPᵢ, S² = P² + Q², energy is the integral of power.

Twins of meters ask it what there is to measure; it knows nothing of registers.
"""

from __future__ import annotations

import math
import random
from itertools import pairwise
from typing import Annotated, Final, Literal

from pydantic import Field

from edge_agent.settings import Duration, Section, Volts, Watts

STEP_S: Final = 0.1
_MOST_STEPS: Final = 5_000  # after a long silence the steps grow instead
OVERLOAD: Final = 1.4
"""Of the nominal power, while the fault of that name is on."""
_DEMAND_S: Final = 900.0
_START: Final = {
    "energy_import": 8.3e7,
    "energy_export": 1.2e5,
    "reactive_energy_import": 4.1e7,
    "apparent_energy": 9.3e7,
}

# The press: how far into its cycle, and then which share of the nominal power.
_PRESS: Final = ((0.15, 0.35), (0.25, 1.0), (0.32, -0.12), (1.0, 0.1))


class LoadSection(Section):
    """What draws the power."""

    load: Literal["idle", "constant", "press-cycle"] = Field(
        default="press-cycle",
        description="What it does: `idle` a machine at rest, `constant` the nominal power all the time, "
        "`press-cycle` approach, stroke, a braking that feeds power back, and a pause.",
    )
    power: Watts = Field(default=20e3, gt=0, le=5e6, description="Nominal power of all phases, like 20 kW.")
    voltage: Volts = Field(default=220.0, gt=0, le=20_000, description="Line to neutral, like 220 V.")
    frequency: float = Field(default=60.0, ge=45, le=65, description="Of the mains, in Hz.")
    power_factor: float = Field(default=0.87, gt=0, le=1, description="Cosine phi of every phase, inductive.")
    balance: Annotated[list[Annotated[float, Field(gt=0)]], Field(min_length=3, max_length=3)] = Field(
        default=[1.0, 1.0, 1.0], description="How the power is divided among L1, L2 and L3."
    )
    cycle: Duration = Field(default=8.0, gt=0, description="How long one press cycle takes.")
    seed: int = Field(default=1, description="Equal seeds give equal noise.")


class Load:
    """The load over time. ``phases``: 1, 2 (split) or 3. Time only goes forward."""

    def __init__(self, settings: LoadSection, *, phases: int = 3) -> None:
        self._set = settings
        shares = settings.balance[:phases]
        self._shares = [share / sum(shares) for share in shares]
        self._tan = math.tan(math.acos(settings.power_factor))
        self._random = random.Random(settings.seed)  # noqa: S311 - noise, no secret
        self._noise = 0.0
        self._time_s = 0.0
        self._demand = 0.0
        wear = 1 + settings.seed % 97 / 1000
        self._counters = {name: [start * wear * share for share in self._shares] for name, start in _START.items()}

    def reset_counters(self) -> None:
        """Every counter begins at nothing again."""
        self._counters = {name: [0.0] * len(self._shares) for name in self._counters}

    def at(self, elapsed_s: float, *, overload: bool = False) -> dict[str, float]:
        """Every quantity at this time, in base units. A time that is past gives the present."""
        step_s = max(STEP_S, (elapsed_s - self._time_s) / _MOST_STEPS)
        while self._time_s + step_s <= elapsed_s + 1e-9:
            self._step(step_s, self._power(overload))
        power = self._power(overload)
        return self._powers(power) | self._volts_and_amps(power) | self._counted()

    def _power(self, overload: bool) -> float:
        """Of all phases, now, in W."""
        if overload:
            share = OVERLOAD
        elif self._set.load == "press-cycle":
            part = self._time_s / self._set.cycle % 1.0
            share = next(share for until, share in _PRESS if part < until)
        else:
            share = 1.0 if self._set.load == "constant" else 0.08
        return self._set.power * share * (1 + self._noise)

    def _step(self, step_s: float, power: float) -> None:
        active = self._counters["energy_import" if power > 0 else "energy_export"]
        reactive, apparent = self._counters["reactive_energy_import"], self._counters["apparent_energy"]
        for index, share in enumerate(self._shares):
            watt_hours = abs(power) * share * step_s / 3600
            active[index] += watt_hours
            reactive[index] += watt_hours * self._tan
            apparent[index] += watt_hours / self._set.power_factor
        self._demand += (power - self._demand) * (1 - math.exp(-step_s / _DEMAND_S))
        self._noise += 0.2 * (self._random.gauss(0, 0.005) - self._noise)
        self._time_s += step_s

    def _powers(self, power: float) -> dict[str, float]:
        phases = [power * share for share in self._shares]
        factor = math.copysign(self._set.power_factor, power)
        return {
            **_spread("active_power", phases),
            **_spread("reactive_power", [abs(each) * self._tan for each in phases]),
            **_spread("apparent_power", [each / factor for each in phases]),
            **_spread("power_factor", [factor] * len(phases), factor),
            "phase_angle": math.degrees(math.acos(factor)),
            "demand": self._demand,
            "active_power_import": max(power, 0.0),
            "active_power_export": max(-power, 0.0),
            "power_alarm": float(power > self._set.power * 1.2),
        }

    def _volts_and_amps(self, power: float) -> dict[str, float]:
        load = abs(power) / self._set.power
        sagged = self._set.voltage * (1 - 0.01 * load + 0.1 * self._noise)
        volts = [sagged * (1 + 0.002 * index) for index in range(len(self._shares))]
        apparent = abs(power) / self._set.power_factor
        amps = [apparent * share / volt for share, volt in zip(self._shares, volts, strict=True)]
        return {
            **_spread("voltage", volts, sum(volts) / len(volts)),
            **_spread("current", amps),
            **_spread("thd_voltage", [2.1 + load] * len(volts), 2.1 + load),
            **_spread("thd_current", [12.0 / (1 + load)] * len(volts), 12.0 / (1 + load)),
            **_line_to_line(volts),
            "current_n": _neutral(amps),
            "frequency": self._set.frequency * (1 + 0.02 * self._noise),
        }

    def _counted(self) -> dict[str, float]:
        found: dict[str, float] = {}
        for name, phases in self._counters.items():
            found |= _spread(name, phases)
        none = [0.0] * len(self._shares)
        both = zip(self._counters["energy_import"], self._counters["energy_export"], strict=True)
        found |= _spread("energy_total", [bought + fed_back for bought, fed_back in both])
        found |= _spread("reactive_energy_total", self._counters["reactive_energy_import"])
        found |= _spread("reactive_energy_export", none)
        tariffs = {f"{name}_t1": found[name] for name in self._counters}
        return found | tariffs | {f"{name}_t2": 0.0 for name in self._counters}


def _spread(name: str, phases: list[float], total: float | None = None) -> dict[str, float]:
    """The total, which is the sum where not given, and every phase."""
    found = {f"{name}_l{index}": value for index, value in enumerate(phases, 1)}
    found[name] = sum(phases) if total is None else total
    return found


def _line_to_line(volts: list[float]) -> dict[str, float]:
    """By the cosine rule: phases are 120° apart, the two of a split phase 180°."""
    cosine = -1.0 if len(volts) == 2 else -0.5
    ring = (volts * 4)[:4]
    sides = [math.sqrt(a * a + b * b - 2 * a * b * cosine) for a, b in pairwise(ring)]
    return dict(zip(("voltage_l1_l2", "voltage_l2_l3", "voltage_l3_l1"), sides, strict=True))


def _neutral(amps: list[float]) -> float:
    """The phasor sum of phases that have one power factor."""
    if len(amps) < 3:
        return abs(amps[0] - sum(amps[1:]))
    a, b, c = amps
    return math.sqrt(max(0.0, a * a + b * b + c * c - a * b - b * c - c * a))
