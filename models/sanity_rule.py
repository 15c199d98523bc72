"""The rule ``sanity``: decides about a line while no model can; every quantity by itself, without any training."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from math import isnan
from typing import TYPE_CHECKING, Any, Final

from pydantic import Field

from edge_agent.settings import Section
from edge_agent.vocabulary import ANOMALY, NORMAL, UNKNOWN, Judgement
from models.sanity import Sanity

if TYPE_CHECKING:  # NumPy comes with it, and a rule needs none
    from models.task import Row

_FRESH_S: Final = 60.0  # nothing at all for so long, and nothing is known


class SanityRuleSection(Section):
    """Which quantities: not written by people, but by who knows the devices."""

    kind: str = Field(default="sanity", description="What it is.")
    quantities: tuple[str, ...] = Field(description="`device.quantity` each.")


class SanityRule:
    """A :class:`models.task.Decider` and a judge of the catalogue. An anomaly is whatever :class:`Sanity` has open."""

    Settings = SanityRuleSection
    decided_by: Final = "rule/sanity@1"
    model_sha256: Final = None

    def __init__(self, settings: SanityRuleSection) -> None:
        self.quantities = settings.quantities
        self._devices = {device: Sanity(names) for device, names in _by_device(settings.quantities).items()}
        self._seen_s: float | None = None

    def open(self) -> None:
        """Nothing to load."""

    def judge(self, given: Any) -> Judgement:
        row: Row = given
        present: dict[str, dict[str, float]] = defaultdict(dict)
        for name, value in row.values.items():
            device, _, quantity = name.rpartition(".")
            if not isnan(value) and device in self._devices:
                present[device][quantity] = value
        if present:
            self._seen_s = row.time_s
        for device, values in present.items():
            self._devices[device].step(values, row.time_s, row.time_s)
        if self._seen_s is None or row.time_s - self._seen_s > _FRESH_S:
            return Judgement(UNKNOWN, 0.0, 1.0, {})
        off = [
            {"quantity": f"{device}.{quantity}", "kind": kind}
            for device, sanity in self._devices.items()
            for quantity, kind in sanity.open
        ]
        if not off:
            return Judgement(NORMAL, 0.0, 1.0, {})
        since_s = min(since for sanity in self._devices.values() for since in sanity.open.values())
        return Judgement(ANOMALY, 1.0, 1.0, {"off": off, "since_s": since_s})


def _by_device(names: Iterable[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = defaultdict(list)
    for name in names:
        device, _, quantity = name.rpartition(".")
        found[device].append(quantity)
    return found
