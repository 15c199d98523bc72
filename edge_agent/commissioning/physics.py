"""The laws that any honest three-phase reading obeys, as pure functions over a window of snapshots.

Each law gives one :class:`Check`. A law is broken only when most snapshots break it: meters do not read all of their
registers at one instant, and a load may step in between.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from math import hypot, sqrt
from statistics import fmean
from typing import Final

from edge_agent.commissioning.finding import GOOD, NOT_JUDGED, PHASES, UNSURE, WRONG, Check, Snapshot, typical

# Line to neutral voltages of the world's low-voltage mains, and of the secondaries of voltage transformers.
MAINS: Final = (100.0, 110.0, 115.0, 120.0, 127.0, 220.0, 230.0, 240.0, 254.0, 277.0, 347.0, 400.0)
SECONDARIES: Final = (57.7, 63.5, 66.4, 69.3)
_BAND: Final = 0.12  # what a mains may differ from its nominal voltage
_FREQUENCIES: Final = ((49.0, 51.0), (59.0, 61.0))
_MOST_MUST_OBEY: Final = 0.6
_LINE_TO_LINE: Final = (("voltage_l1_l2", "l1", "l2"), ("voltage_l2_l3", "l2", "l3"), ("voltage_l3_l1", "l3", "l1"))
_LEAST_A: Final = 0.3  # below it a meter's own errors are larger than what is looked for
_POWER_FLOOR: Final = 0.03  # of the apparent power: rounding, and readings that are not of one instant

EXACT: Final[Mapping[str, float]] = {}

Law = Callable[[Snapshot], tuple[bool, str] | None]
"""Whether a snapshot obeys, and the numbers; None where it does not say."""


def checks(
    window: Sequence[Snapshot],
    *,
    least_a: float = _LEAST_A,
    pt_ratio: float = 1.0,
    resolution: Mapping[str, float] = EXACT,
) -> list[Check]:
    """Every law.

    ``least_a``: currents below it prove nothing; ``pt_ratio``: of voltage transformers; ``resolution``: the smallest
    step of a quantity, where that is coarse.
    """
    return [
        voltage(window, pt_ratio=pt_ratio),
        line_to_line(window),
        frequency(window),
        load(window, least_a=least_a),
        _judged("P = P1 + P2 + P3", window, lambda snap: _power_sum(snap, least_a, resolution)),
        _judged("S² ≥ P² + Q²", window, lambda snap: _triangle(snap, least_a, resolution)),
        _judged("power factor = P / S", window, lambda snap: _power_factor(snap, least_a, resolution)),
        _judged("power within volts times amps", window, lambda snap: _phase_power(snap, least_a, resolution)),
        energy(window),
    ]


def voltage(window: Sequence[Snapshot], *, pt_ratio: float = 1.0) -> Check:
    """Every phase near one nominal voltage, and all near each other."""
    name = "voltages in band"
    found = {phase: typical(window, f"voltage_{phase}") for phase in PHASES}
    volts = {phase: value for phase, value in found.items() if value is not None}
    if not volts:
        lone = typical(window, "voltage")
        if lone is None:
            reasons = {why for snap in window for key, why in snap.absent.items() if key.startswith("voltage")}
            words = f"no voltage: {', '.join(sorted(reasons))}" if reasons else "no voltage among its quantities"
            return Check(name, WRONG if reasons else NOT_JUDGED, words)
        volts = {"l1": lone}
    words = ", ".join(f"{phase.upper()} {value:.1f} V" for phase, value in volts.items())
    nominal = nominal_voltage(max(volts.values()), pt_ratio)
    if nominal is None:
        return Check(name, WRONG, f"{words}: no mains is like that")
    dead = [phase.upper() for phase, value in volts.items() if value < 0.2 * nominal]
    if dead:
        return Check(name, UNSURE, f"{words}: {' and '.join(dead)} without voltage")
    if any(abs(value / nominal - 1) > 0.2 for value in volts.values()):
        return Check(name, WRONG, f"{words}: the phases do not belong together")
    missing = [phase.upper() for phase in PHASES if f"voltage_{phase}" in window[-1].absent]
    if missing:
        return Check(name, WRONG, f"{words}; {' and '.join(missing)} without a value")
    return Check(name, GOOD, f"{words}: {nominal:g} V mains")


def nominal_voltage(volts: float, pt_ratio: float = 1.0) -> float | None:
    """The nominal line to neutral voltage that a reading belongs to, on the primary side."""
    table = MAINS if pt_ratio == 1 else (*SECONDARIES, *MAINS)
    nearest = min(table, key=lambda nominal: abs(volts / pt_ratio - nominal))
    return nearest * pt_ratio if abs(volts / pt_ratio / nearest - 1) <= _BAND else None


def line_to_line(window: Sequence[Snapshot]) -> Check:
    """By the cosine rule the voltage between two phases that are 120° apart."""
    name = "line to line = √3 × line to neutral"
    told, worst = [], GOOD
    for between, one, other in _LINE_TO_LINE:
        found = [typical(window, key) for key in (between, f"voltage_{one}", f"voltage_{other}")]
        if any(value is None for value in found):
            continue
        pair, a, b = (float(value or 0) for value in found)
        right = sqrt(a * a + b * b + a * b)
        told.append(f"{one.upper()}-{other.upper()} {pair:.0f} V")
        if right > 1 and abs(pair / right - 1) > 0.04:
            worst = WRONG
            told[-1] += f" instead of {right:.0f} V"
    return Check(name, worst if told else NOT_JUDGED, ", ".join(told) or "not both among its quantities")


def frequency(window: Sequence[Snapshot]) -> Check:
    """49 to 51 or 59 to 61 Hz; a generator may run a little beside."""
    name = "frequency 50 or 60 Hz"
    found = typical(window, "frequency")
    if found is None:
        absent = next((snap.absent["frequency"] for snap in window if "frequency" in snap.absent), None)
        return Check(name, WRONG if absent else NOT_JUDGED, f"no frequency: {absent}" if absent else "it does not say")
    if any(low <= found <= high for low, high in _FREQUENCIES):
        return Check(name, GOOD, f"{found:.2f} Hz")
    return Check(name, UNSURE if 45 <= found <= 65 else WRONG, f"{found:.2f} Hz")


def load(window: Sequence[Snapshot], *, least_a: float = _LEAST_A) -> Check:
    """Whether enough current flows to judge anything of currents and powers."""
    name = "load on"
    found = {phase: typical(window, f"current_{phase}") for phase in PHASES}
    amps = {phase: abs(value) for phase, value in found.items() if value is not None}
    if not amps:
        lone = typical(window, "current")
        if lone is None:
            return Check(name, NOT_JUDGED, "no current among its quantities")
        amps = {"l1": abs(lone)}
    words = ", ".join(f"{phase.upper()} {value:.2f} A" for phase, value in amps.items())
    low = [phase.upper() for phase, value in amps.items() if value < least_a]
    if not low:
        return Check(name, GOOD, words)
    return Check(name, UNSURE, f"{words}: cannot tell yet, put load on {' and '.join(low)}")


def energy(window: Sequence[Snapshot]) -> Check:
    """The import counter rises by the integral of the power."""
    name = "energy = power over time"
    told = [snap for snap in window if "energy_import" in snap.values and "active_power" in snap.values]
    steps = sorted({snap.values["energy_import"] for snap in told})
    if len(steps) < 4:
        return Check(name, NOT_JUDGED, "the counter did not move enough while it was watched")
    quantum = min(later - earlier for earlier, later in itertools.pairwise(steps))
    counted = told[-1].values["energy_import"] - told[0].values["energy_import"]
    due = sum(
        (max(0.0, a.values["active_power"]) + max(0.0, b.values["active_power"])) / 2 * (b.at_s - a.at_s) / 3600
        for a, b in itertools.pairwise(told)
    )
    slack = 2 * quantum + 0.1 * due
    words = f"counted {counted:.1f} Wh, power says {due:.1f} Wh"
    if abs(counted - due) <= slack:
        return Check(name, GOOD, words)
    return Check(name, UNSURE, f"{words}: is the counter's unit right, or does it count each phase by itself?")


def residual(window: Sequence[Snapshot]) -> float:
    """How far the readings are from obeying P = ΣPi, S = V·I and P = V·I·PF, relative to V·I; small is exact."""
    misses = []
    for values in (snap.values for snap in window):
        apparent = sum(values.get(f"voltage_{p}", 0.0) * abs(values.get(f"current_{p}", 0.0)) for p in PHASES)
        if apparent < 1:
            continue
        parts = [values[f"active_power_{p}"] for p in PHASES if f"active_power_{p}" in values]
        if "active_power" in values and len(parts) == 3:
            misses.append(abs(values["active_power"] - sum(parts)) / apparent)
        for p in PHASES:
            own = values.get(f"voltage_{p}", 0.0) * abs(values.get(f"current_{p}", 0.0))
            if f"apparent_power_{p}" in values:
                misses.append(abs(abs(values[f"apparent_power_{p}"]) - own) / apparent)
            if f"active_power_{p}" in values and f"power_factor_{p}" in values:
                due = abs(values[f"power_factor_{p}"]) * own
                misses.append(abs(abs(values[f"active_power_{p}"]) - due) / apparent)
    return fmean(min(each, 1.0) for each in misses) if misses else 1.0


def _judged(name: str, window: Sequence[Snapshot], law: Law) -> Check:
    found = [verdict for snap in window if (verdict := law(snap)) is not None]
    if not found:
        return Check(name, NOT_JUDGED, "not enough load, or not among its quantities")
    good = [words for is_good, words in found if is_good]
    bad = [words for is_good, words in found if not is_good]
    if len(good) >= _MOST_MUST_OBEY * len(found):
        return Check(name, GOOD, good[-1])
    return Check(name, WRONG, bad[-1] + (f" (in {len(bad)} of {len(found)} readings)" if good else ""))


def _volt_amps(snap: Snapshot, least_a: float) -> float | None:
    """Σ V·I of the phases, in VA; None without load."""
    pairs = [(snap.values.get(f"voltage_{phase}"), snap.values.get(f"current_{phase}")) for phase in PHASES]
    if any(volts is None or amps is None for volts, amps in pairs):
        return None
    total = sum(float(volts or 0) * abs(amps or 0) for volts, amps in pairs)
    return total if any(abs(amps or 0) >= least_a for _, amps in pairs) else None


def _power_sum(snap: Snapshot, least_a: float, resolution: Mapping[str, float]) -> tuple[bool, str] | None:
    values, apparent = snap.values, _volt_amps(snap, least_a)
    if apparent is None or "active_power" not in values or any(f"active_power_{p}" not in values for p in PHASES):
        return None
    parts = sum(values[f"active_power_{phase}"] for phase in PHASES)
    words = f"{_kilo(values['active_power'])}W, phases {_kilo(parts)}W"
    step = sum(resolution.get(f"active_power{end}", 0.0) for end in ("", "_l1", "_l2", "_l3"))
    return abs(values["active_power"] - parts) <= _POWER_FLOOR * apparent + 2 + step, words


def _triangle(snap: Snapshot, least_a: float, resolution: Mapping[str, float]) -> tuple[bool, str] | None:
    values = snap.values
    if _volt_amps(snap, least_a) is None or not {"active_power", "reactive_power", "apparent_power"} <= values.keys():
        return None
    least = hypot(values["active_power"], values["reactive_power"])
    found = abs(values["apparent_power"])
    # Only a lower bound: harmonics and unequal phases make S larger, nothing makes it smaller.
    step = sum(resolution.get(name, 0.0) for name in ("active_power", "reactive_power", "apparent_power"))
    return found >= least * (1 - _POWER_FLOOR) - 2 - step, f"S {_kilo(found)}VA, √(P² + Q²) {_kilo(least)}VA"


def _power_factor(snap: Snapshot, least_a: float, resolution: Mapping[str, float]) -> tuple[bool, str] | None:
    values, worst = snap.values, None
    for phase in PHASES:
        keys = [f"{kind}_{phase}" for kind in ("power_factor", "active_power", "voltage", "current")]
        if any(key not in values for key in keys) or abs(values[keys[3]]) < least_a:
            continue
        factor, power, volts, amps = (values[key] for key in keys)
        if factor == 0 and power < 0:
            continue  # a factor without a sign has nothing to say about energy that flows back
        right = abs(power) / (volts * abs(amps)) if volts > 1 else 0.0
        # Some give cos φ, which is larger than P / S where currents are distorted.
        slack = 0.05 + resolution.get(keys[1], 0.0) / max(volts * abs(amps), 1.0)
        good = abs(factor) <= 1.001 and right * 0.93 - slack <= abs(factor) <= right * 1.3 + slack + 0.03
        if worst is None or (worst[0] and not good):
            worst = (good, f"{phase.upper()} {abs(factor):.2f}, P / S {right:.2f}")
    return worst


def _phase_power(snap: Snapshot, least_a: float, resolution: Mapping[str, float]) -> tuple[bool, str] | None:
    values, worst = snap.values, None
    for phase in PHASES:
        keys = [f"{kind}_{phase}" for kind in ("active_power", "voltage", "current")]
        if any(key not in values for key in keys) or abs(values[keys[2]]) < least_a:
            continue
        power, volts, amps = (values[key] for key in keys)
        # A coarse current of 4 ± 0.5 A may stand for more than it says.
        step = resolution.get(keys[0], 0.0) + volts * resolution.get(keys[2], 0.0)
        good = abs(power) <= 1.08 * volts * abs(amps) + 2 + step
        if worst is None or (worst[0] and not good):
            worst = (good, f"{phase.upper()} {_kilo(power)}W of {_kilo(volts * abs(amps))}VA")
    return worst


def _kilo(value: float) -> str:
    """12340 → ``12.34 k``."""
    return f"{value / 1e3:.2f} k" if abs(value) >= 1000 else f"{value:.1f} "
