"""Which wire is on which terminal, told by the angle between voltage and current of each phase.

A meter element with the voltage of one phase and the current of another shows the load's angle ±120°; a current
transformer that looks the other way shows it 180° off. All 48 ways to connect three transformers are tried: which of
them makes a load of what is seen? A healthy installation always comes first: unequal phases, capacitors, single-phase
loads, loads between two phases and machines that feed energy back are no faults. What one look cannot tell from
these (all three transformers reversed, a source on one phase) is asked, not said.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from math import atan2, cos, degrees, radians
from statistics import fmean, pstdev
from typing import Final

from edge_agent.commissioning.angles import WIRINGS, Look, Wiring, cost, looks_of, spread_of, unusual, wrap
from edge_agent.commissioning.finding import PHASES, Finding, Snapshot
from edge_agent.commissioning.physics import EXACT

_BEYOND: Final = 112.0  # a load's own angle is not larger, but see _between_phases
_OFTEN: Final = 0.25
_MARGIN: Final = 0.7  # how much worse the next explanation must be: an idle motor and a capacitor are both loads
_MARGIN_OF_ALL: Final = 1.2  # the same where all three transformers are concerned: there a few things look alike
_EVEN: Final = 18.0  # degrees: phases of one machine are as much alike as this, once they are connected right
_ALIKE: Final = 4.0  # degrees, and the share below: so alike that no source on one phase would happen to be
_EQUAL: Final = 0.88
_MOVES: Final = 0.08  # relative: a load that moves this much shows which phases move together
_CAPACITIVE: Final = -62.0  # all phases beyond: a bank of capacitors, or rolled wires


def examine(
    window: Sequence[Snapshot],
    *,
    least_a: float,
    consuming: bool = False,
    resolution: Mapping[str, float] = EXACT,
) -> list[Finding]:
    """What is wrong with the wires, or may be. ``consuming``: a person says that the machine only consumes now."""
    looks = looks_of(window, least_a, resolution)
    if not looks:
        return []
    if not _impossible(looks, consuming=consuming):
        return [_capacitive(looks)] if consuming and _all_capacitive(looks) else []
    ranked = sorted((cost(looks, wiring, consuming=consuming), index) for index, wiring in enumerate(WIRINGS))
    best = WIRINGS[ranked[0][1]]
    if best.is_healthy:
        return [_feeding_back(looks)] if _all_feed_back(looks) else [_odd(looks)]
    rival = next(index for _, index in ranked[1:] if not _same(WIRINGS[index], best))
    margin = _MARGIN_OF_ALL if _rolled(best) or best.signs == (-1, -1, -1) else _MARGIN
    clear = cost(looks, WIRINGS[rival], consuming=consuming) - ranked[0][0] >= margin
    certain = clear and _proven(looks, best, consuming=consuming)
    if not certain and _all_feed_back(looks) and not consuming:
        return [_feeding_back(looks)]
    return [_say(looks, best, certain=certain)]


def angle_words(window: Sequence[Snapshot], *, least_a: float, resolution: Mapping[str, float] = EXACT) -> str:
    """The typical angle of each phase, for people; empty where there is too little load."""
    looks = looks_of(window, least_a, resolution)
    return _seen(looks) if looks else ""


# --- is there anything that no healthy installation shows?


def _impossible(looks: Sequence[Look], *, consuming: bool) -> bool:
    backwards = 0
    for look in looks:
        beyond = [
            abs(look.angles[index]) > _BEYOND and not _between_phases(look, index)
            for index in range(3)
            if look.loaded[index]
        ]
        backwards += any(beyond) and (consuming or len(beyond) == 1 or not all(_negative(look)))
    alone = _all_feed_back(looks)
    return backwards > _OFTEN * len(looks) or alone


def _negative(look: Look) -> list[bool]:
    return [abs(angle) > 90 for angle, loaded in zip(look.angles, look.loaded, strict=True) if loaded]


def _all_feed_back(looks: Sequence[Look]) -> bool:
    """Every loaded phase gives energy back, all the time."""
    return all(all(_negative(look)) and any(abs(angle) > _BEYOND for angle in look.angles) for look in looks)


def _all_capacitive(looks: Sequence[Look]) -> bool:
    return all(look.sure and all(look.loaded) and fmean(look.angles) < _CAPACITIVE for look in looks)


def _between_phases(look: Look, index: int) -> bool:
    """A load between two phases shows its angle +30° on one and −30° on the other: beyond 90° on one when inductive."""
    mine = abs(look.angles[index])
    others = [abs(look.angles[other]) for other in range(3) if other != index and look.loaded[other]]
    return mine < 128 and any(abs(mine - 60 - other) < 18 for other in others)


# --- is it proven, or only the best guess?


def _rolled(wiring: Wiring) -> bool:
    return all(carried != index for index, carried in enumerate(wiring.carries))


def _same(one: Wiring, other: Wiring) -> bool:
    """A roll to the left and one to the right look alike until the rotation of the mains is known."""
    carries_alike = one.carries == other.carries or (_rolled(one) and _rolled(other))
    return carries_alike and one.signs == other.signs


def _proven(looks: Sequence[Look], wiring: Wiring, *, consuming: bool) -> bool:
    """Whether nothing healthy can look like this: once connected right, the phases are one machine's."""
    if consuming:
        return True
    corrected = [_corrected(look, wiring) for look in looks]
    spread = fmean(spread_of([phi for phi, _ in phases]) for phases in corrected)
    amps = [fmean(look.amps[index] for look in looks) for index in range(3)]
    if _all_feed_back(looks) or wiring.signs == (-1, -1, -1) or len(corrected[0]) < 2:
        return False
    if wiring.carries != (0, 1, 2):
        return not _rolled(wiring) and spread < _EVEN and min(amps) > 0.4 * max(amps)
    together = _move_together(looks, wiring)
    if together is not None:
        return together
    # In amounts alone a source on one phase may mirror the others by chance.
    return looks[0].sure and spread < _ALIKE and min(amps) > _EQUAL * max(amps)


def _corrected(look: Look, wiring: Wiring) -> list[tuple[float, float]]:
    """Angle and apparent power of every loaded phase, as they would be with the wires right."""
    best: tuple[float, list[tuple[float, float]]] | None = None
    for rotation, (doubt, angles) in product((1, -1), look.readings()):
        phases = [(wrap(angles[e] - wiring.shift(e, rotation)), look.volt_amps[e]) for e in range(3) if look.loaded[e]]
        cost = doubt + sum(unusual(phi) for phi, _ in phases) + spread_of([phi for phi, _ in phases]) / 15
        if best is None or cost < best[0]:
            best = cost, phases
    return best[1] if best else []


def _move_together(looks: Sequence[Look], wiring: Wiring) -> bool | None:
    """Whether the reversed phases move against the others as seen; None while the load hardly moves.

    A source on one phase (a solar inverter) does not fall when the machine draws more on all three.
    """
    powers = [
        [va * cos(radians(angle)) for va, angle in zip(look.volt_amps, look.angles, strict=True)] for look in looks
    ]
    turned = [index for index in range(3) if wiring.signs[index] < 0]
    straight = [index for index in range(3) if wiring.signs[index] > 0]
    theirs = [sum(row[index] for index in straight) for row in powers]
    scale = max(abs(fmean(theirs)), 1e-9)
    if len(looks) < 6 or pstdev(theirs) < _MOVES * scale:
        return None
    for index in turned:
        mine = [row[index] for row in powers]
        middle, other = fmean(mine), fmean(theirs)
        covariance = fmean((a - middle) * (b - other) for a, b in zip(mine, theirs, strict=True))
        deviation = pstdev(mine)
        if deviation < 0.02 * max(map(abs, mine)) or covariance / (deviation * pstdev(theirs)) > -0.6:
            return False
    return True


# --- in words


def _seen(looks: Sequence[Look]) -> str:
    parts = []
    for index, phase in enumerate(PHASES):
        rows = [look for look in looks if look.loaded[index]]
        if rows:
            x = fmean(cos(radians(look.angles[index])) for look in rows)
            y = fmean(cos(radians(look.angles[index] - 90)) for look in rows)
            kilowatts = fmean(look.volt_amps[index] * cos(radians(look.angles[index])) for look in rows) / 1e3
            angle = degrees(atan2(y, x))
            parts.append(f"{phase.upper()} {kilowatts:+.2f} kW at {'' if rows[0].signed else '±'}{angle:.0f}°")
    return ", ".join(parts)


def _say(looks: Sequence[Look], wiring: Wiring, *, certain: bool) -> Finding:
    after = ", ".join(f"{phi:.0f}°" for phi, _ in _corrected(max(looks, key=lambda look: sum(look.amps)), wiring))
    evidence = f"{_seen(looks)}; connected right it would be {after}"
    turned = [PHASES[index] for index in range(3) if wiring.signs[index] < 0]
    moved = [index for index, carried in enumerate(wiring.carries) if carried != index]
    codes, sentences, remedies = [], [], []
    if len(moved) == 2:
        one, other = (PHASES[index] for index in moved)
        codes.append(f"ct-swapped-{one}-{other}")
        sentences.append(
            f"{one.upper()} and {other.upper()} are exchanged: the meter measures the current of {other.upper()} "
            f"with the voltage of {one.upper()}, and the other way round"
        )
        remedies.append(
            f"exchange the current transformers of {one.upper()} and {other.upper()} at the meter, both wires of each "
            "(or the two voltage wires, if those are the wrong ones: look at the colours)"
        )
    elif moved:
        codes.append("ct-rolled")
        chain = ", ".join(
            f"input {PHASES[i].upper()} carries {PHASES[c].upper()}" for i, c in enumerate(wiring.carries)
        )
        sentences.append(f"the three current transformers are shifted by one phase ({chain}, if the mains turns right)")
        remedies.append("move all three current transformers on by one input, or the three voltage wires")
    if turned:
        codes.append("ct-reversed-" + "-".join(turned))
        names = " and ".join(phase.upper() for phase in turned)
        sentences.append(f"the current transformer of {names} looks the other way")
        remedies.append(f"exchange its two wires (S1 and S2) at the meter, or turn the transformer of {names} round")
    sentence, remedy = "; ".join(sentences), "; ".join(remedies)
    if not certain:
        sentence = f"it looks as if {sentence}"
        remedy = (
            "put a load on all three phases that goes up and down and measure again, with --consuming if the machine "
            f"feeds nothing back; if it stays: {remedy}"
        )
    settings = {"invert": True} if turned == list(PHASES) and not moved else {}
    return Finding("+".join(codes), certain, _capital(sentence), evidence, _capital(remedy), settings)


def _feeding_back(looks: Sequence[Look]) -> Finding:
    return Finding(
        "feeds-back-or-all-reversed",
        False,
        "All phases say that energy flows back to the mains",
        _seen(looks),
        "Does the machine feed back now (braking drive, generator)? Then all is well. If it only consumes, measure "
        "again with --consuming: then the transformers look the other way, or are on the wrong phases",
    )


def _capacitive(looks: Sequence[Look]) -> Finding:
    return Finding(
        "capacitive-or-rolled",
        False,
        "All phases take capacitive current and hardly any power",
        _seen(looks),
        "Is a bank of capacitors on, and the machine idle? Then all is well. Else the current transformers are shifted "
        "by one phase: move all three on by one input",
    )


def _odd(looks: Sequence[Look]) -> Finding:
    return Finding(
        "odd-angles",
        False,
        "One phase gives energy back while another takes it",
        _seen(looks),
        "Is there a source on that phase (solar, a braking single-phase drive)? Else put an even load on all phases "
        "and measure again",
    )


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
