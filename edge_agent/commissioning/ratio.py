"""Sizes: the transformers' ratio against a clamp meter and a nameplate, and decimal points that are off."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from fractions import Fraction
from math import log10
from statistics import median, quantiles
from typing import Final

from edge_agent.commissioning.finding import GOOD, NOT_JUDGED, PHASES, UNSURE, WRONG, Check, Finding, Snapshot, typical
from edge_agent.commissioning.physics import nominal_voltage

_CLAMP: Final = 0.05  # what a clamp meter and the moment of its reading may differ
_LEAST_A: Final = 0.02
_STEADY: Final = 0.25
_PRIMARIES: Final = (
    *(5, 10, 15, 20, 25, 30, 40, 50, 60, 75, 80, 100, 120, 150, 200, 250, 300, 400, 500, 600, 750, 800),
    *(1000, 1200, 1250, 1500, 1600, 2000, 2500, 3000, 4000, 5000, 6000),
)
STANDARD: Final = tuple(sorted({Fraction(p, s) for p in _PRIMARIES for s in (1, 5)} | {Fraction(1)}))


def nameplate(text: str) -> Fraction:
    """``200/5`` → 40; raises ValueError."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*A?\s*[/:]\s*(\d+(?:\.\d+)?)\s*A?\s*", text)
    if match is None or not float(match[2]):
        raise ValueError(f"{text!r} is no transformer ratio, like 200/5")
    return Fraction(match[1]) / Fraction(match[2])


def clamp_reading(text: str) -> tuple[str, float]:
    """``l1=41.2A`` → ("l1", 41.2); raises ValueError."""
    match = re.fullmatch(r"\s*(l[123])\s*=\s*(\d+(?:[.,]\d+)?)\s*(m|k)?A\s*", text, re.IGNORECASE)
    if match is None:
        raise ValueError(f"{text!r} is no clamp reading, like l1=41.2A")
    factor = {"": 1.0, "m": 1e-3, "k": 1e3}[(match[3] or "").lower()]
    return match[1].lower(), float(match[2].replace(",", ".")) * factor


def transformers(
    window: Sequence[Snapshot], clamps: Mapping[str, float], ct_ratio: float, plate: Fraction | None
) -> tuple[Check, list[Finding]]:
    """The currents against a clamp meter. ``ct_ratio``: what the config multiplies with now."""
    name = "current = clamp meter"
    if not clamps:
        return _plate_only(name, ct_ratio, plate), []
    told, factors, moving = [], {}, False
    for phase, amps in clamps.items():
        seen = [abs(snap.values[f"current_{phase}"]) for snap in window if f"current_{phase}" in snap.values]
        if not seen or median(seen) < _LEAST_A or amps <= 0:
            told.append(f"{phase.upper()} has no current to compare")
            continue
        spread = _spread(seen)
        moving = moving or spread > _STEADY
        factors[phase] = (amps / median(seen), _CLAMP + spread / 2)
        told.append(f"{phase.upper()} clamp {amps:g} A, meter {median(seen):.2f} A")
    words = "; ".join(told)
    if not factors:
        return Check(name, NOT_JUDGED, words), []
    if all(abs(factor - 1) <= slack for factor, slack in factors.values()):
        return Check(name, GOOD, f"{words}: ct_ratio {ct_ratio:g} is proven"), []
    state = UNSURE if moving else WRONG
    return Check(name, state, words), [_ratio(factors, ct_ratio, plate, words, moving=moving)]


def _plate_only(name: str, ct_ratio: float, plate: Fraction | None) -> Check:
    if plate is None:
        return Check(name, NOT_JUDGED, "no clamp reading given: --clamp l1=41.2A proves the ratio")
    if abs(float(plate) / ct_ratio - 1) < 1e-6:
        return Check(
            name, UNSURE, f"the config has the ratio of the nameplate, {ct_ratio:g}; a clamp reading proves it"
        )
    words = f"nameplate {float(plate):g}, config {ct_ratio:g}: right only if the meter multiplies by itself"
    return Check(name, UNSURE, f"{words}; a clamp reading decides")


def _ratio(
    factors: Mapping[str, tuple[float, float]], ct_ratio: float, plate: Fraction | None, words: str, *, moving: bool
) -> Finding:
    wrong = {phase: factor for phase, (factor, slack) in factors.items() if abs(factor - 1) > slack}
    middle = median(factor for factor, _ in factors.values())
    alike = all(abs(factor / middle - 1) <= 2 * slack for factor, slack in factors.values())
    if moving:
        return Finding(
            "ct-ratio", False, "The clamp reading and the meter differ, but the current moved meanwhile", words,
            "Hold the load steady, read the clamp meter and measure again",
        )  # fmt: skip
    if not alike:
        names = " and ".join(phase.upper() for phase in wrong)
        first = next(iter(wrong.values()))
        return Finding(
            "ct-ratio-" + "-".join(sorted(wrong)), True,
            f"The current transformer of {names} has another ratio than the others", words,
            f"Look at the nameplate of {names}: about {standard(ct_ratio * first)} would fit. All three must be alike",
        )  # fmt: skip
    right = standard(ct_ratio * middle)
    remedy = f"Set ct_ratio: {float(right):g}"
    if plate is not None:
        near = abs(float(plate) / (ct_ratio * middle) - 1) <= 2 * _CLAMP
        right = plate if near else right
        remedy = f"Set ct_ratio: {float(right):g}" + (" as on the nameplate" if near else "")
        if not near:
            remedy += f" only if the meter itself multiplies too: the nameplate says {float(plate):g}"
    if right == 1 and ct_ratio > 1:
        remedy += ": the meter multiplies by itself already"
    sentence = f"The ratio of the current transformers is {float(right):g} and not {ct_ratio:g}"
    return Finding("ct-ratio", True, sentence, words, remedy, {"ct_ratio": float(right)})


def standard(ratio: float) -> Fraction:
    """The ratio that transformers are made with, nearest to a measured one; the measured one where none is near."""
    nearest = min(STANDARD, key=lambda each: abs(log10(float(each) / ratio)))
    near = abs(float(nearest) / ratio - 1) <= 1.5 * _CLAMP
    return nearest if near else Fraction(round(ratio, 2 if ratio < 10 else 1)).limit_denominator(100)


def _spread(values: Sequence[float]) -> float:
    """How far the middle 80 % reach, relative to the median."""
    if len(values) < 3:
        return 0.0
    cuts = quantiles(values, n=10)
    return (cuts[-1] - cuts[0]) / median(values)


def decades(window: Sequence[Snapshot], *, pt_ratio: float = 1.0) -> list[Finding]:
    """Values that would obey physics with the decimal point elsewhere."""
    found = []
    volts = [typical(window, f"voltage_{phase}") or typical(window, "voltage") for phase in PHASES]
    if all(each is not None and nominal_voltage(each, pt_ratio) is None for each in volts):
        for power in (-1, 1, -2, 2, -3, 3):
            if all(nominal_voltage(float(each or 0) * 10.0**power, pt_ratio) for each in volts):
                found.append(
                    _shifted("voltage", power, f"{volts[0]:g} V would be {float(volts[0] or 0) * 10.0**power:g} V")
                )
                break
    hertz = typical(window, "frequency")
    if hertz is not None and not 45 <= hertz <= 65:
        power = next((p for p in (-1, 1, -2, 2) if 49 <= hertz * 10.0**p <= 61), 0)
        if power:
            found.append(_shifted("frequency", power, f"{hertz:g} Hz would be {hertz * 10.0**power:g} Hz"))
    ratios = [
        abs(values[f"active_power_{p}"])
        / abs(values[f"voltage_{p}"] * values[f"current_{p}"] * values[f"power_factor_{p}"])
        for values in (snap.values for snap in window)
        for p in PHASES
        if all(abs(values.get(f"{kind}_{p}", 0.0)) > 0.05 for kind in ("voltage", "current", "power_factor"))
        and f"active_power_{p}" in values
    ]
    if ratios and median(ratios) > 0:
        power = round(log10(median(ratios)))
        if power and abs(log10(median(ratios)) - power) < 0.08:
            words = f"P is {10.0**power:g} times V · I · power factor"
            found.append(_shifted("active_power", -power, words))
    return found


def _shifted(quantity: str, power: int, words: str) -> Finding:
    return Finding(
        f"scale-{quantity}", True, f"The scale of {quantity} is wrong by {10.0 ** -power:g}", words,
        f"In the profile, multiply the scale of every {quantity} row by {10.0**power:g} (or correct its unit)",
    )  # fmt: skip
