"""Random installations of a three-phase meter, healthy ones and ones with a fault planted.

``consuming``: what the engineer would truthfully answer to "does it only consume?".
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

SWAPS = {"l1-l2": [1, 0, 2], "l2-l3": [0, 2, 1], "l1-l3": [2, 1, 0]}
MAINS = ((120, 60), (220, 60), (230, 50), (240, 50), (277, 60))
RATIOS = ((100, 5), (150, 5), (200, 5), (250, 5), (300, 5), (400, 5), (600, 5), (200, 1), (400, 1))


class Planted(NamedTuple):
    """``code``: what must be named; empty: nothing may be blamed."""

    kind: str
    code: str
    fields: dict[str, Any]
    consuming: bool


def mains(rng):
    nominal, hertz = rng.choice(MAINS)
    level = nominal * rng.uniform(0.95, 1.06)
    return {
        "volts": [level * rng.uniform(0.985, 1.015) for _ in range(3)],
        "hertz": hertz + rng.uniform(-0.05, 0.05),
        "rotation": rng.choice([1] * 9 + [-1]),
        "seed": rng.randrange(1 << 30),
    }


def machine(rng, kind=None, *, phi=(-10, 45)):
    """A three-phase machine as most lines have one; its angle at full load."""
    watts = 10 ** rng.uniform(3.6, 5.0)
    share = [1 / 3 * rng.uniform(0.93, 1.07) for _ in range(3)]
    return {
        "watts": watts,
        "vars": watts * math.tan(math.radians(rng.uniform(*phi))),
        "kind": kind or rng.choice(["cycle", "switching", "ramp", "cycle", "steady"]),
        "period": rng.uniform(6, 25),
        "share": [each / sum(share) for each in share],
    }


def singles(rng, watts, most=0.25):
    """Lamps, control cabinets and sockets on each phase."""
    found = []
    for _ in range(3):
        power = watts / 3 * rng.uniform(0, most)
        found.append([power, power * rng.uniform(-0.1, 0.6)])
    return found


def rectifier(rng):
    return {5: rng.uniform(0.05, 0.35), 7: rng.uniform(0.02, 0.15)} if rng.random() < 0.35 else {}


def ordinary(rng):
    """A machine with some single-phase loads beside it."""
    own = machine(rng)
    return mains(rng) | {"machine": own, "single": singles(rng, own["watts"]), "harmonics": rectifier(rng)}


def healthy(rng) -> Planted:
    """Everything that a fault finder might take for a fault."""
    kind = rng.choice(
        ["ordinary", "ordinary", "unbalanced", "regenerative", "generator", "capacitive", "single-phase", "idle",
         "between-phases", "solar", "light-motor", "one-phase-loaded"]
    )  # fmt: skip
    load = mains(rng)
    consuming = kind not in ("regenerative", "generator", "solar")
    own = machine(rng)
    if kind == "ordinary":
        load |= {"machine": own, "single": singles(rng, own["watts"]), "harmonics": rectifier(rng)}
    elif kind == "unbalanced":
        load |= {"machine": own, "single": singles(rng, own["watts"], most=3.0)}
    elif kind == "regenerative":
        load |= {"machine": own | {"kind": "regen"}, "single": singles(rng, own["watts"])}
    elif kind == "generator":
        load |= {"machine": own | {"kind": "generator"}}
    elif kind == "capacitive":
        load |= {"machine": own | {"vars": -own["watts"] * rng.uniform(0.3, 1.5)}}
    elif kind == "single-phase":
        load |= {"single": [[rng.uniform(500, 9000), rng.uniform(-500, 4000)] for _ in range(3)]}
    elif kind == "idle":
        load |= {"machine": own | {"watts": rng.uniform(0, 60), "vars": rng.uniform(-30, 60), "kind": "steady"}}
    elif kind == "between-phases":
        pairs = [[rng.uniform(300, 6000), rng.uniform(0, 9000)] if rng.random() < 0.6 else [0, 0] for _ in range(3)]
        load |= {"between": pairs, "single": singles(rng, 4000)}
    elif kind == "solar":
        sun = [0, 0, 0]
        sun[rng.randrange(3)] = -rng.uniform(0.5, 1.2) * own["watts"]
        load |= {"machine": own, "single": [[watts, 0] for watts in sun]}
    elif kind == "light-motor":
        load |= {"machine": own | {"watts": own["watts"] * 0.1, "vars": own["watts"] * rng.uniform(0.3, 0.7)}}
    else:
        only = [[0, 0], [0, 0], [0, 0]]
        only[rng.randrange(3)] = [rng.uniform(800, 4000), rng.uniform(-200, 2500)]
        load |= {"single": only}
    return Planted(kind, "", {"load": load}, consuming)


def swapped(rng) -> Planted:
    name = rng.choice(list(SWAPS))
    wires = {"carries": SWAPS[name]} if rng.random() < 0.6 else {"volts": SWAPS[name]}
    return Planted("swapped", f"ct-swapped-{name}", {"load": ordinary(rng), "wiring": wires}, consuming=True)


def reversed_(rng) -> Planted:
    which = rng.sample([0, 1, 2], rng.choice([1, 1, 1, 2]))
    signs = [-1 if index in which else 1 for index in range(3)]
    code = "ct-reversed-" + "-".join(f"l{index + 1}" for index in sorted(which))
    return Planted("reversed", code, {"load": ordinary(rng), "wiring": {"signs": signs}}, consuming=True)


def rolled(rng) -> Planted:
    carries = rng.choice([[1, 2, 0], [2, 0, 1]])
    return Planted("rolled", "ct-rolled", {"load": ordinary(rng), "wiring": {"carries": carries}}, consuming=True)
