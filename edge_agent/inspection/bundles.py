"""Models: is the bundle there, is it whole and trusted, and does it fit what it is to judge?"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING

from edge_agent.errors import EdgeAgentError
from edge_agent.inspection.finding import FAIL, OK, WARN, Finding, Scene, Step, failed
from edge_agent.plan import Config
from edge_agent.settings import ModelSection

if TYPE_CHECKING:
    from models.card import Card


def steps(scene: Scene) -> Iterator[Step]:
    """One per model of the config."""
    for name, section in scene.config.models.items():
        yield Step(f"model {name}: verifying {section.bundle}", partial(_look, scene.config, name, section))


def _look(config: Config, name: str, section: ModelSection) -> Iterator[Finding]:
    from models import bundle, keys, releases  # noqa: PLC0415 - only configs with models pay for it

    what = f"model {name}"
    try:
        found = releases.in_use(config.state_dir, section.bundle)
        shipped = releases.SHIPPED / section.bundle
        path = releases.home(config.state_dir, section.bundle) / found.current if found else shipped
        if not path.is_dir():
            does = "edge-agent calibrate line" if section.devices else "edge-agent models install"
            yield Finding(WARN, what, f"no bundle {section.bundle!r} is installed: a rule decides", does)
            return
        card = bundle.load(path, keys.trusted(config.state_dir)).card
    except EdgeAgentError as error:
        yield failed(what, error)
        return
    wrong = _misfit(config, section, card)
    yield Finding(FAIL, what, wrong) if wrong else Finding(OK, what, f"{card.name}@{card.version}, {card.task}")


def _misfit(config: Config, section: ModelSection, card: Card) -> str:
    """Why the bundle cannot judge what it is to judge; empty: it can."""
    from models.card import RowsInput  # noqa: PLC0415 - as above

    if not isinstance(card.input, RowsInput):
        return f"{card.name} judges pictures, not devices" if section.devices else ""
    if not section.devices:
        return f"{card.name} judges readings: name its devices"
    known = {
        f"{device}.{quantity}"
        for device in section.devices
        if device in config.devices
        for quantity in config.devices[device].quantities
    }
    missing = [quantity for quantity in card.input.quantities if quantity not in known]
    return f"{card.name} wants {', '.join(missing)}, which its devices do not have" if missing else ""
