"""Which bundles stand behind the models of a config, as the state folder says now, and what became of a candidate."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import structlog

from edge_agent.clock import Clock
from edge_agent.errors import EdgeAgentError
from edge_agent.eye_link import Trial
from edge_agent.health import Health
from edge_agent.plan import Config
from edge_agent.roster import Asked, Settle, Spec
from edge_agent.settings import ModelSection
from models import choice, releases

log = structlog.get_logger("models")


def asked_of(config: Config, names: Iterable[str]) -> Callable[[], Sequence[Asked]]:
    """Who is asked for each of these models of the config; looked up anew at every call."""
    chosen = {name: config.models[name] for name in names}
    return lambda: [_asked(config, name, section) for name, section in chosen.items()]


def _asked(config: Config, name: str, section: ModelSection) -> Asked:
    def spec(release: str | None, **more: object) -> Spec:
        return {**common, "release": release, **more}

    measured = choice.read(config.state_dir, section.bundle)
    common = {
        "kind": "model",
        "name": section.bundle,
        "state_dir": str(config.state_dir.absolute()),
        "judges": "rows" if section.devices else "picture",
        # What was measured decides which variant is loaded: measured again, it is another one.
        "measured": measured.at if measured is not None else "",
    }
    rules = _rules(config, section)
    try:
        found = releases.in_use(config.state_dir, section.bundle)
    except EdgeAgentError as error:
        return Asked(name, (spec(None, wrong=str(error)), *rules))
    if found is None:
        return Asked(name, (spec(None), *rules))
    order = [spec(found.current)]
    if found.previous is not None:
        order.append(spec(found.previous))
    elif (releases.SHIPPED / section.bundle).is_dir():
        order.append(spec(None))
    candidate = spec(found.candidate) if found.candidate else None
    return Asked(name, (*order, *rules), candidate, section.trial)


def _rules(config: Config, section: ModelSection) -> tuple[Spec, ...]:
    """What decides about a line while no model can; a camera has its own rule."""
    plans = [config.devices[name] for name in section.devices if name in config.devices]
    quantities = [f"{plan.name}.{quantity}" for plan in plans for quantity in plan.quantities]
    return ({"kind": "sanity", "quantities": quantities},) if quantities else ()


def settling(config: Config, clock: Clock, health: Health) -> Settle:
    """Puts on record what became of a candidate: it leads from here on, or it is gone."""

    def settle(model: str, candidate: Spec, trial: Trial) -> None:
        from models.library import Library  # noqa: PLC0415 - only when there was a candidate

        seen = {"judgements": trial.judgements, "same": trial.same, "old_ms": trial.old_ms, "new_ms": trial.new_ms}
        name, release = str(candidate["name"]), str(candidate["release"])
        try:
            Library(config.state_dir, clock).settle(name, release, good=trial.good, why=trial.why, **seen)
        except EdgeAgentError as error:
            health.fault(f"model.{model}.candidate", f"cannot be put on record: {error}", hint=error.hint)
            return
        health.clear(f"model.{model}.candidate")
        log.info("candidate", model=model, bundle=name, release=release, leads=trial.good, why=trial.why)

    return settle
