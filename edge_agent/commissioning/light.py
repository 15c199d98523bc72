"""What a camera's automatic chose, locked for the pictures that are learned from, and told for the config."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final, NamedTuple

from edge_agent.clock import Clock
from edge_agent.contracts import Settling
from edge_agent.plan import KindPlan

_ALL: Final = ("exposure", "gain", "white_balance")


class Light(NamedTuple):
    """``locked``: setting → value, as the config says it. ``automatic``: what cannot be locked from here."""

    locked: dict[str, Any]
    automatic: tuple[str, ...]


def lock(camera: KindPlan, clock: Clock) -> tuple[KindPlan, Light]:
    """The same camera with everything locked that it allows, where its automatic stands now.

    What the config locks stays as it says. Raises CameraError where the camera cannot be opened or gives no pictures.
    """
    driver = camera.cls(camera.name, camera.settings, clock, clock.mono_ns())
    if not isinstance(driver, Settling):
        return camera, Light({}, _ALL)
    try:
        driver.open()
        settled = driver.settled()
    finally:
        driver.close()
    chosen = {name: value for name, value in settled.items() if value is not None}
    fixed = {name for name in settled if getattr(camera.settings, name) is not None}
    settings = camera.settings.model_copy(update={name: chosen[name] for name in chosen if name not in fixed})
    written = settings.model_dump(mode="json")
    locked = {name: written[name] for name in settled if name in chosen or name in fixed}
    return replace(camera, settings=settings), Light(locked, tuple(name for name in settled if name not in locked))
