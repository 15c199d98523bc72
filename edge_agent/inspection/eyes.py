"""Cameras and outputs: one judged picture of each camera, and every line of each output claimed."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Event, Thread
from typing import Any, Final

from edge_agent.clock import NS
from edge_agent.errors import OutputError
from edge_agent.health import Health
from edge_agent.inspection.finding import DAEMON, FAIL, OK, WARN, Finding, Scene, Step, failed
from edge_agent.plan import KindPlan
from edge_agent.roster import Asked
from edge_agent.vocabulary import NOT_INSPECTED, Verdict

_GRACE_S: Final = 3.0  # for the process around the camera
_NAP_S: Final = 0.2


def steps(scene: Scene) -> Iterator[Step]:
    """One per camera and output."""
    for camera in scene.config.cameras.values():
        yield Step(f"camera {camera.name}: waiting for a picture", partial(look, scene, camera))
        if camera.settings.trigger.kind == "gpio":
            yield Step(f"camera {camera.name}: claiming the line of its sensor", partial(sense, scene, camera))
    for output in scene.config.outputs.values():
        yield Step(f"output {output.name}: claiming its lines", partial(claim, scene, output))


def look(scene: Scene, camera: KindPlan) -> Iterator[Finding]:
    """Grab and judge a picture as the daemon does, in a process that may hang and is killed then."""
    what = f"camera {camera.name}"
    if camera.name in scene.daemon.get("cameras", {}):
        yield scene.fault(f"camera.{camera.name}", what) or Finding(OK, what, DAEMON)
        return
    from edge_agent.stages.eye import Eye, at_once  # noqa: PLC0415 - only configs with a camera pay for it

    # Its own health: faults of this look are told by what is returned, and not logged as the daemon's.
    verdicts: SimpleQueue[Verdict] = SimpleQueue()
    health, stop = Health(scene.clock), Event()
    with tempfile.TemporaryDirectory(prefix="edge-agent-check-") as folder:
        eye = Eye(
            camera.name,
            camera.kind,
            at_once(camera.settings),
            Path(folder),
            scene.clock,
            health,
            on_verdict=verdicts.put,
            on_evidence=lambda _: None,
            relative_to=scene.config.folder,
            models=_models(scene, camera),
        )
        thread = Thread(target=eye.body, args=(stop, lambda: None), daemon=True)
        began_ns = scene.clock.mono_ns()
        thread.start()
        yield _first_picture(scene, camera, verdicts, health, began_ns)
        stop.set()
        thread.join(_GRACE_S)


def _models(scene: Scene, camera: KindPlan) -> Callable[[], Sequence[Asked]]:
    if not camera.settings.model:
        return tuple
    from edge_agent.deciders import asked_of  # noqa: PLC0415 - only configs with models pay for it

    return asked_of(scene.config, camera.settings.model)


def _first_picture(
    scene: Scene, camera: KindPlan, verdicts: SimpleQueue[Verdict], health: Health, began_ns: int
) -> Finding:
    what = f"camera {camera.name}"
    patience_ns = int((camera.settings.open_deadline + _GRACE_S) * NS)
    while scene.clock.mono_ns() - began_ns < patience_ns:
        try:
            verdict = verdicts.get(timeout=_NAP_S)
        except Empty:
            pass
        else:
            took_s = (scene.clock.mono_ns() - began_ns) / NS
            if verdict.label != NOT_INSPECTED:
                return Finding(
                    OK, what, f"a picture after {took_s:.1f} s, judged {verdict.label} by {verdict.decided_by}"
                )
            if verdict.decided_by == "gate" and not health.faults():
                why = verdict.details.get("why") or verdict.reason
                return Finding(
                    WARN, what, f"a picture, but not good enough to judge: {why}", _hint(str(verdict.reason))
                )
        for fault in health.faults():
            return Finding(FAIL, what, f"no picture: {fault.reason}", fault.hint)
    return Finding(FAIL, what, f"no picture within {camera.settings.open_deadline:g} s", "cable, power, address?")


def _hint(reason: str) -> str:
    return {
        "black": "is the light on, the cap off?",
        "over-exposed": "lock a shorter exposure",
        "wrong-size": "ask for a size that the camera has",
    }.get(reason, "look at the camera")


def sense(scene: Scene, camera: KindPlan) -> Iterator[Finding]:
    """Claim the line of what sees the parts, and give it up again."""
    what = f"trigger of {camera.name}"
    if camera.name in scene.daemon.get("cameras", {}):
        yield scene.fault(f"camera.{camera.name}.trigger", what) or Finding(OK, what, DAEMON)
        return
    from drivers.gpio_input import PartSensor  # noqa: PLC0415 - only configs with a sensor pay for it

    sensor = PartSensor(what, camera.settings.trigger)
    try:
        sensor.open()
    except OutputError as error:
        yield failed(what, error)
        return
    sensor.close()
    yield Finding(OK, what, f"claimed line {camera.settings.trigger.line}")


def claim(scene: Scene, output: KindPlan) -> Iterator[Finding]:
    """Claim every line and give it up again; the lamps go to their safe state for that moment."""
    what = f"output {output.name}"
    if scene.daemon:
        yield scene.fault(f"output.{output.name}", what) or Finding(OK, what, DAEMON)
        return
    made: Any = output.cls(output.name, output.settings)
    try:
        made.open()
    except OutputError as error:
        yield failed(what, error)
        return
    made.close()
    numbers = output.settings.model_dump(exclude_none=True)
    lines = [
        f"{name} {numbers[name]}"
        for name in ("red", "amber", "green", "buzzer", "acknowledge", "line")
        if name in numbers
    ]
    yield Finding(OK, what, f"claimed {', '.join(lines)}" if output.kind != "simulated" else "simulated")
