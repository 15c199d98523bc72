"""One meter examined: every check, every finding, and what was seen meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from statistics import median
from typing import Final

from drivers.decode import Register
from drivers.registers import MeterProfile
from edge_agent.commissioning import physics, ratio, variants, wiring
from edge_agent.commissioning.finding import GOOD, WRONG, Check, Finding, Snapshot

DIRECT_LEAST_A: Final = 0.3
_SECONDARY_A: Final = 5.0
_STARTS_AT: Final = 0.01  # of the transformer's current: below it angles are its own errors


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known besides: clamp readings by phase, the nameplate, whether the machine only consumes.

    ``resolution``: the smallest step of each quantity, where the meter is coarse.
    """

    ct_ratio: float = 1.0
    pt_ratio: float = 1.0
    clamps: Mapping[str, float] = field(default_factory=dict)
    plate: Fraction | None = None
    consuming: bool = False
    resolution: Mapping[str, float] = field(default_factory=dict)

    @property
    def least_a(self) -> float:
        """Currents below it prove nothing of angles."""
        through = float(self.plate or self.ct_ratio)
        return max(DIRECT_LEAST_A, _STARTS_AT * _SECONDARY_A * through if through > 1 else 0.0)


@dataclass(frozen=True, slots=True)
class Examination:
    """``readings``: quantity → lowest, median and highest value seen."""

    checks: tuple[Check, ...]
    findings: tuple[Finding, ...]
    readings: Mapping[str, tuple[float, float, float]]

    @property
    def is_good(self) -> bool:
        return not self.findings and all(check.state != WRONG for check in self.checks)

    @property
    def is_proven(self) -> bool:
        """Everything that the meter says was judged under load and is right."""
        loaded = any(check.name == "load on" and check.state == GOOD for check in self.checks)
        return self.is_good and loaded


def examine(
    window: Sequence[Snapshot],
    facts: Facts,
    *,
    profile: MeterProfile | None = None,
    reread: Callable[[MeterProfile], Snapshot | None] | None = None,
    tell: Callable[[str], None] = lambda _: None,
) -> Examination:
    """Judge a window. ``reread``: reads a snapshot with another table, where the wire is ours."""
    laws = physics.checks(window, least_a=facts.least_a, pt_ratio=facts.pt_ratio, resolution=facts.resolution)
    clamp, findings = ratio.transformers(window, facts.clamps, facts.ct_ratio, facts.plate)
    found = list(laws)
    if any(check.state == WRONG for check in laws):
        layout = ratio.decades(window, pt_ratio=facts.pt_ratio)
        if not layout and profile is not None and reread is not None:
            variant = variants.search(
                reread, profile, least_a=facts.least_a, pt_ratio=facts.pt_ratio, resolution=facts.resolution, tell=tell
            )
            layout = [variant] if variant else []
        # With wrong numbers nothing can be said of wires and ratios.
        findings = layout or [_unexplained(laws)]
    else:
        findings += wiring.examine(
            window, least_a=facts.least_a, consuming=facts.consuming, resolution=facts.resolution
        )
        found.append(_wires(window, facts, findings))
        found.append(clamp)
    return Examination(tuple(found), tuple(findings), _readings(window))


def resolution_of(rows: Iterable[Register]) -> dict[str, float]:
    """The smallest step of each quantity that a meter gives as whole numbers."""
    return {row.name: abs(float(row.gain)) for row in rows if not row.is_float}


def _unexplained(laws: Sequence[Check]) -> Finding:
    broken = [check for check in laws if check.state == WRONG]
    names = ", ".join(check.name for check in broken)
    evidence = "; ".join(check.evidence for check in broken)
    remedy = "Is it the right profile? Look at the meter's own display: which of these numbers differ?"
    return Finding("physics", True, f"What this meter says cannot be: {names}", evidence, remedy)


def _wires(window: Sequence[Snapshot], facts: Facts, findings: Sequence[Finding]) -> Check:
    name = "each current with its own voltage"
    words = wiring.angle_words(window, least_a=facts.least_a, resolution=facts.resolution)
    if not words:
        return Check(name, "not-judged", "needs power, voltage and current of each phase, under load")
    wires = [finding for finding in findings if not finding.code.startswith("ct-ratio")]
    state = GOOD if not wires else WRONG if any(finding.certain for finding in wires) else "unsure"
    return Check(name, state, words)


def _readings(window: Sequence[Snapshot]) -> dict[str, tuple[float, float, float]]:
    names = sorted({name for snap in window for name in snap.values})
    found = {}
    for name in names:
        values = [snap.values[name] for snap in window if name in snap.values]
        found[name] = (min(values), median(values), max(values))
    return found
