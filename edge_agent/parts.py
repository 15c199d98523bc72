"""The parts of a line: which of them a config asks for, what each depends on, and how it is made.

A part that the config does not ask for is not even imported.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from hashlib import blake2b
from typing import Any

from edge_agent.broker import MqttSettings
from edge_agent.bus_watch import BusWatch
from edge_agent.line import Line, Part
from edge_agent.plan import BusPlan, Config, KindPlan
from edge_agent.settings import ModelSection
from edge_agent.stages.poll import Poll
from edge_agent.worker import Worker

ALARMS_FILE = "alarms.json"

State = Callable[[str], dict[str, object]]


def wanted(line: Line, config: Config, state: State) -> dict[str, tuple[str, Callable[[], Part]]]:
    """Name → the fingerprint of what it depends on, and how it is made (no thread is started yet).

    ``state``: the retained state message. Making raises EdgeAgentError or OSError.
    """
    parts: dict[str, tuple[str, Callable[[], Part]]] = {}

    def want(name: str, depends_on: object, make: Callable[[str], Part]) -> None:
        fingerprint = blake2b(repr(depends_on).encode(), digest_size=16).hexdigest()  # whole, it would be kilobytes
        parts[name] = (fingerprint, lambda: make(fingerprint))

    if (mqtt := config.mqtt) is not None:
        want("publish", (mqtt, config.root_topic), partial(_publisher, line, config, mqtt, state))
    for bus in config.buses.values():
        if devices := config.devices_on(bus.name):
            each = [(d.name, d.settings, d.profile, line.corrections.of(d.name)) for d in devices]
            want(f"bus.{bus.name}", (bus.settings, each), partial(_bus, line, config, bus))
    for camera in config.cameras.values():
        models = [config.models[name] for name in camera.settings.model]
        want(f"camera.{camera.name}", (camera.kind, camera.settings, models), partial(_camera, line, config, camera))
    if judging := {name: section for name, section in config.models.items() if section.devices}:
        want("models", judging, partial(_judge, line, config, judging))
    # Alarms that were taken out of the config are ended aloud: they may stand retained at the broker.
    # A folder that may not be looked into has none for us.
    if config.alarms or config.outputs or os.path.exists(config.state_dir / ALARMS_FILE):  # noqa: PTH110
        outputs = [(plan.kind, plan.settings) for plan in config.outputs.values()]
        want("alarms", (config.alarms, outputs, _quiet_s(config)), partial(_alarms, line, config))
    return parts


def _bus(line: Line, config: Config, plan: BusPlan, fingerprint: str) -> Part:
    from edge_agent.oddities import Oddities  # noqa: PLC0415 - only configs with devices pay for it

    plans = config.devices_on(plan.name)
    for device in plans:
        line.oddities[device.name] = Oddities(device.quantities) if device.settings.sanity else None
    bus = plan.kind(plan.name, plan.settings, line.clock)
    devices = [bus.device(d.name, d.settings, d.profile) for d in plans]
    corrections = {d.name: one.apply for d in plans if (one := line.corrections.of(d.name)) is not None}
    poll = Poll(plan.name, bus, devices, line.clock, line.health, line.on_reading, corrections, line.marks)
    line.watches[plan.name] = BusWatch(devices, line.clock.mono_ns(), is_serial=hasattr(plan.settings, "baudrate"))
    # A name behind dead resolvers takes a minute, and that is no reason to restart everybody.
    worker = Worker(f"bus.{plan.name}", poll.body, line.health, line.clock, max_silence_s=90.0)
    # Whoever polls after it goes on counting where it ended.
    return Part(fingerprint, [worker], lambda: line.marks.update(poll.marks()), poll)


def _camera(line: Line, config: Config, plan: KindPlan, fingerprint: str) -> Part:
    from edge_agent.stages.eye import Eye  # noqa: PLC0415 - only configs with a camera pay for it

    eye = Eye(
        plan.name,
        plan.kind,
        plan.settings,
        config.state_dir / "evidence",
        line.clock,
        line.health,
        on_verdict=line.on_verdict,
        on_evidence=line.recorder.evidence,
        relative_to=config.folder,
        **_deciders(line, config, plan.settings.model),
    )
    worker = Worker(f"camera.{plan.name}", eye.body, line.health, line.clock, max_silence_s=60.0)
    return Part(fingerprint, [worker], detail=eye)


def _deciders(line: Line, config: Config, names: Iterable[str]) -> dict[str, Any]:
    """Who is asked for these models, and who keeps the record."""
    if not names:
        return {}
    from edge_agent import deciders  # noqa: PLC0415 - only configs with models pay for it

    return {
        "models": deciders.asked_of(config, names),
        "settle": deciders.settling(config, line.clock, line.health),
    }


def _judge(line: Line, config: Config, models: Mapping[str, ModelSection], fingerprint: str) -> Part:
    from edge_agent.stages.judge import Judge  # noqa: PLC0415 - only configs with models pay for it

    judge = Judge(
        line.clock,
        line.health,
        models,
        on_verdict=line.alarm_about,
        on_news=line.recorder.verdict,
        **_deciders(line, config, models),
    )

    def close() -> None:
        line.judge = None
        judge.forget()

    line.judge = judge
    worker = Worker("models", judge.body, line.health, line.clock, max_silence_s=90.0)
    return Part(fingerprint, [worker], close, judge)


def _alarms(line: Line, config: Config, fingerprint: str) -> Part:
    from edge_agent.stages.alarm import AlarmStage  # noqa: PLC0415 - only configs with alarms pay for it

    outputs = [plan.cls(plan.name, plan.settings) for plan in config.outputs.values()]
    stage = AlarmStage(
        config.alarms,
        outputs,
        line.clock,
        line.health,
        line.recorder.alarm,
        config.state_dir / ALARMS_FILE,
        quiet_s=_quiet_s(config),
    )
    stage.recall()

    def close() -> None:
        line.stage = None

    line.stage = stage
    worker = Worker("alarms", stage.body, line.health, line.clock, wake=stage.wake)
    return Part(fingerprint, [worker], close, stage)


def _quiet_s(config: Config) -> float:
    """Nothing measured for so long is no longer a matter of periods."""
    return max(60.0, 3 * max((device.settings.every for device in config.devices.values()), default=0.0))


def _publisher(line: Line, config: Config, settings: MqttSettings, state: State, fingerprint: str) -> Part:
    from edge_agent.stages.publish import Publisher  # noqa: PLC0415 - only configs with a broker pay for it

    publisher = Publisher(
        settings,
        config.root_topic,
        f"edge-agent-{config.site}-{config.line}",
        line.recorder,
        line.clock,
        line.health,
        state=state,
        on_command=lambda name, payload: line.on_command(name, payload),  # noqa: PLW0108 - it is set later
    )

    def close() -> None:
        line.publisher = None
        line.recorder.on_kept = lambda _rows, _generation: None
        publisher.close()

    line.publisher = publisher
    line.recorder.on_kept = publisher.offer
    # Name resolution, TCP and TLS may each take their time before a step is made again.
    worker = Worker("publish", publisher.body, line.health, line.clock, max_silence_s=90.0, wake=publisher.wake)
    return Part(fingerprint, [worker], close, publisher)
