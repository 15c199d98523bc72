"""The daemon put together: which parts run, what flows between them, how it starts, reloads and ends.

    bus threads ─┬──────────────▶ recorder ──▶ publisher ──▶ broker
    eye processes┤                   ▲
                 └──▶ alarm stage ───┘ (lights first)

A part is a named group of threads with the settings it was made from; a reload restarts only the
parts whose settings changed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import structlog

from edge_agent import calibration
from edge_agent.bus_watch import BusWatch, failures, seen
from edge_agent.calibration import Calibration
from edge_agent.clock import NS, Clock, iso
from edge_agent.counters import Mark
from edge_agent.errors import EdgeAgentError
from edge_agent.flight import MqttSettings
from edge_agent.health import Health
from edge_agent.payload import number_format, stamp_fields
from edge_agent.plan import BusPlan, Config, DevicePlan
from edge_agent.settings import ModelSection
from edge_agent.spool import Spool
from edge_agent.stages.poll import Poll
from edge_agent.stages.record import Recorder
from edge_agent.tap import Tap
from edge_agent.vocabulary import COUNTER, Reading, Verdict
from edge_agent.worker import Worker, stop_all

log = structlog.get_logger("agent")

STOP_DEADLINE_S = 8.0
TELL_BUSES_EVERY_S = 60.0  # how they fare; spares the broker
ALARMS_FILE = "alarms.json"
_SAYS = {"publish": ("mqtt",), "alarms": ("alarm", "output")}  # part → other names that its faults have


def product_version() -> str:
    try:
        return version("edge-agent")
    except PackageNotFoundError:
        return "0+unknown"


@dataclass(slots=True)
class Part:
    """Threads that were made from the same settings. ``close`` runs after they ended."""

    fingerprint: str
    workers: list[Worker]
    close: Callable[[], None] | None = None
    detail: Any = None


class Agent:
    """One line's daemon. ``start``, then ``stop``; ``reload`` in between."""

    def __init__(self, config: Config, clock: Clock) -> None:
        self.config = config
        self.clock = clock
        self.health = Health(clock)
        self._parts: dict[str, Part] = {}
        self._stage: Any = None
        self._since = clock.stamp()
        self._formats: dict[str, dict[str, str]] = {}
        self._counters: dict[str, list[str]] = {}
        self._marks: dict[str, dict[str, Mark]] = {}
        self._faults_seen: object = None
        self._watches: dict[str, BusWatch] = {}
        self._buses: dict[str, object] = {}  # as last told the broker
        self._buses_ns = self._since.mono_ns
        self._latest: dict[str, Reading] = {}
        self._judge: Any = None
        self.tap = Tap(clock)
        self._oddities: dict[str, Any] = {}
        self._calibrations: dict[str, Calibration] = {}
        settings = config.spool
        self.spool = Spool(
            config.state_dir / "spool.db",
            clock,
            self.health,
            limit_bytes=settings.limit,
            durable=settings.durability == "power-cut",
            floor_bytes=settings.free_floor,
        )
        self.recorder = Recorder(
            self.spool,
            clock,
            self.health,
            commit_every_s=settings.commit_every,
            history_days=settings.history / 86400,
            formats=self._formats,
            counters=self._counters,
        )
        self.publisher: Any = None
        self.on_command: Callable[[str, bytes], dict[str, object] | None] = lambda _name, _payload: None

    # --- life

    def start(self) -> None:
        """Open the spool and start every part. Nothing outside (broker, meters, disk) can make it fail."""
        self.spool.open()
        self._marks = self.spool.marks()
        recorder = Worker("record", self.recorder.body, self.health, self.clock, wake=self.recorder.wake)
        self._parts["record"] = Part("", [recorder])
        recorder.start()
        self._apply(self.config)
        log.info(
            "started",
            version=product_version(),
            line=f"{self.config.site}/{self.config.line}",
            stream=self.spool.stream,
        )

    def reload(self, config: Config) -> list[str]:
        """Go over to another config: parts whose settings are the same are not touched; those that changed."""
        changed = self._apply(config)
        self.config = config
        self._faults_seen = None  # the next look has the broker told what there is now
        log.info("reloaded", changed=changed)
        return changed

    def stop(self, deadline_s: float = STOP_DEADLINE_S) -> list[str]:
        """Producers first, then what keeps and sends; outputs go safe. Names of threads that did not end."""
        hanging: list[str] = []
        groups = [[name for name in self._parts if name not in ("record", "publish")], ["record"], ["publish"]]
        for names, share in zip(groups, (0.4, 0.3, 0.3), strict=True):
            hanging += self._stop_parts(names, deadline_s * share)
        if "record" not in hanging:
            self.recorder.close()
        log.info("stopped", hanging=hanging or None)
        return hanging

    def safe(self) -> None:
        """Outputs to their safe state, whatever else hangs."""
        if self._stage is not None:
            self._stage.safe()

    def _stop_parts(self, names: list[str], deadline_s: float) -> list[str]:
        parts = [self._parts.pop(name) for name in names if name in self._parts]
        hanging = stop_all([worker for part in parts for worker in part.workers], self.clock, deadline_s)
        for part in parts:
            if part.close is not None:
                part.close()
        return hanging

    # --- parts

    def _apply(self, config: Config) -> list[str]:
        self._calibrations = self._calibrated(config)
        wanted = self._wanted(config)
        changed = [
            name
            for name in {*self._parts, *wanted} - {"record"}
            if name not in wanted or name not in self._parts or self._parts[name].fingerprint != wanted[name][0]
        ]
        self._stop_parts(changed, STOP_DEADLINE_S)
        self._forget_faults(changed)
        for device in config.devices.values():
            self._formats[device.name] = {name: number_format(q) for name, q in device.quantities.items()}
            self._counters[device.name] = [name for name, q in device.quantities.items() if q.kind == COUNTER]
        # Alarms before what they watch; the publisher first of all, so that it connects meanwhile.
        for name in sorted(changed, key=_starting_order):
            if name in wanted:
                fingerprint, make = wanted[name]
                try:
                    part = make(fingerprint)
                except (EdgeAgentError, OSError) as error:
                    self.health.fault(name, str(error))
                    continue
                self.health.clear(name)
                self._parts[name] = part
                for worker in part.workers:
                    worker.start()
        return sorted(changed)

    def _forget_faults(self, names: Iterable[str]) -> None:
        """What a part said of itself ends with it; its successor says what is still so."""
        sources = {source for name in names for source in (name, f"worker.{name}", *_SAYS.get(name, ()))}
        sources |= {
            f"device.{device.name}" for device in self.config.devices.values() if f"bus.{device.bus}" in sources
        }
        for fault in self.health.faults():
            if any(f"{fault.source}.".startswith(f"{source}.") for source in sources):
                self.health.clear(fault.source)

    def _calibrated(self, config: Config) -> dict[str, Calibration]:
        """The calibrations in use. One that cannot be used is a fault: its sensor goes on uncorrected, and says so."""
        found: dict[str, Calibration] = {}
        for device in config.devices.values():
            source = f"calibration.{device.name}"
            try:
                one = calibration.load(config.state_dir, device.name, device.settings.profile)
            except EdgeAgentError as error:
                self.health.fault(source, f"not corrected: {error}", hint=error.hint)
                continue
            self.health.clear(source)
            if one is not None:
                found[device.name] = one
        for name in self._calibrations.keys() - config.devices.keys():
            self.health.clear(f"calibration.{name}")
        return found

    def _watch_calibrations(self) -> None:
        """An expired calibration goes on correcting, and is a fault until somebody calibrates again."""
        now_ms = self.clock.stamp().wall_ms  # a clock that nobody sets is late, not early: it says so late at worst
        for name, one in self._calibrations.items():
            if one.has_expired(now_ms):
                hint = f"edge-agent calibrate sensor {name} --reference …; until then it goes on correcting"
                self.health.fault(f"calibration.{name}", f"expired on {iso(one.expires_ms)[:10]}", hint=hint)

    def _wanted(self, config: Config) -> dict[str, tuple[str, Callable[[str], Part]]]:
        """Every part that the config asks for: what it depends on, and how it is made."""
        wanted: dict[str, tuple[str, Callable[[str], Part]]] = {}
        if (mqtt := config.mqtt) is not None:
            wanted["publish"] = (repr((mqtt, config.root_topic)), lambda mark: self._publish_part(mark, config, mqtt))
        for bus in config.buses.values():
            devices = config.devices_on(bus.name)
            if devices:
                mark = repr(
                    (bus.settings, [(d.name, d.settings, d.profile, self._calibrations.get(d.name)) for d in devices])
                )
                wanted[f"bus.{bus.name}"] = (mark, partial(self._bus_part, config=config, plan=bus))
        for camera in config.cameras.values():
            mark = repr((camera.kind, camera.settings, [config.models[name] for name in camera.settings.model]))
            wanted[f"camera.{camera.name}"] = (mark, partial(self._camera_part, config=config, plan=camera))
        lines = {name: section for name, section in config.models.items() if section.devices}
        if lines:
            wanted["models"] = (repr(lines), partial(self._judge_part, config=config, models=lines))
        # Alarms that were taken out of the config are ended aloud: they may stand retained at the broker.
        if config.alarms or config.outputs or _is_there(config.state_dir / ALARMS_FILE):
            mark = repr((config.alarms, [(o.kind, o.settings) for o in config.outputs.values()]))
            wanted["alarms"] = (mark, lambda mark: self._alarm_part(mark, config))
        return wanted

    def _bus_part(self, mark: str, config: Config, plan: BusPlan) -> Part:
        self._watch_oddities(config.devices_on(plan.name))
        bus = plan.kind(plan.name, plan.settings, self.clock)
        devices = [bus.device(d.name, d.settings, d.profile) for d in config.devices_on(plan.name)]
        corrections = {
            device.name: self._calibrations[device.name].apply
            for device in devices
            if device.name in self._calibrations
        }
        poll = Poll(plan.name, bus, devices, self.clock, self.health, self._on_reading, corrections, self._marks)
        worker = Worker(f"bus.{plan.name}", poll.body, self.health, self.clock, max_silence_s=60.0)
        is_serial = hasattr(plan.settings, "baudrate")
        self._watches[plan.name] = BusWatch(devices, self.clock.mono_ns(), is_serial=is_serial)
        # Whoever polls after it goes on counting where it ended.
        return Part(mark, [worker], lambda: self._marks.update(poll.marks()), poll)

    def _watch_oddities(self, devices: Iterable[DevicePlan]) -> None:
        from edge_agent.oddities import Oddities  # noqa: PLC0415 - only configs with devices pay for it

        for device in devices:
            self._oddities[device.name] = Oddities(device.quantities) if device.settings.sanity else None

    def _camera_part(self, mark: str, config: Config, plan: Any) -> Part:
        from edge_agent.stages.eye import Eye  # noqa: PLC0415 - only configs with a camera pay for it

        eye = Eye(
            plan.name,
            plan.kind,
            plan.settings,
            config.state_dir / "evidence",
            self.clock,
            self.health,
            on_verdict=self._on_verdict,
            on_evidence=self.recorder.evidence,
            relative_to=config.folder,
            **self._deciders(config, plan.settings.model),
        )
        worker = Worker(f"camera.{plan.name}", eye.body, self.health, self.clock, max_silence_s=60.0)
        return Part(mark, [worker], detail=eye)

    def _deciders(self, config: Config, names: Iterable[str]) -> dict[str, Any]:
        """Who is asked for these models, and who keeps the record."""
        if not names:
            return {}
        from edge_agent import deciders  # noqa: PLC0415 - only configs with models pay for it

        return {
            "models": deciders.asked_of(config, names),
            "settle": deciders.settling(config, self.clock, self.health),
        }

    def _judge_part(self, mark: str, config: Config, models: Mapping[str, ModelSection]) -> Part:
        from edge_agent.stages.judge import Judge  # noqa: PLC0415 - only configs with models pay for it

        judge = Judge(
            self.clock,
            self.health,
            models,
            on_verdict=self._alarm_about,
            on_news=self.recorder.verdict,
            **self._deciders(config, models),
        )
        self._judge = judge
        worker = Worker("models", judge.body, self.health, self.clock, max_silence_s=90.0)
        return Part(mark, [worker], self._forget_judge, judge)

    def _forget_judge(self) -> None:
        judge, self._judge = self._judge, None
        judge.forget()

    def models_changed(self) -> None:
        """Another release was installed, offered or left: whoever judges with models looks again."""
        for part in self._parts.values():
            if (roster := getattr(part.detail, "roster", None)) is not None:
                roster.look_again()

    def _alarm_part(self, mark: str, config: Config) -> Part:
        from edge_agent.stages.alarm import AlarmStage  # noqa: PLC0415 - only configs with alarms pay for it

        outputs = [plan.cls(plan.name, plan.settings) for plan in config.outputs.values()]
        slowest_s = max((device.settings.every for device in config.devices.values()), default=0.0)
        stage = AlarmStage(
            config.alarms,
            outputs,
            self.clock,
            self.health,
            self.recorder.alarm,
            config.state_dir / ALARMS_FILE,
            quiet_s=max(60.0, 3 * slowest_s),
        )
        stage.recall()
        self._stage = stage
        worker = Worker("alarms", stage.body, self.health, self.clock, wake=stage.wake)
        return Part(mark, [worker], self._forget_stage, stage)

    def _forget_stage(self) -> None:
        self._stage = None

    def _publish_part(self, mark: str, config: Config, settings: MqttSettings) -> Part:
        from edge_agent.stages.publish import Publisher  # noqa: PLC0415 - only configs with a broker pay for it

        publisher = Publisher(
            settings,
            config.root_topic,
            f"edge-agent-{config.site}-{config.line}",
            self.recorder,
            self.clock,
            self.health,
            state=self.state,
            on_command=lambda name, payload: self.on_command(name, payload),  # noqa: PLW0108 - it is set later
        )
        self.publisher = publisher
        self.recorder.on_kept = publisher.offer
        # Name resolution, TCP and TLS may each take their time before a step is made again.
        worker = Worker("publish", publisher.body, self.health, self.clock, max_silence_s=90.0, wake=publisher.wake)
        return Part(mark, [worker], publisher.close, publisher)

    # --- flow

    def _on_reading(self, reading: Reading) -> None:
        if (oddities := self._oddities.get(reading.device)) is not None:
            oddities.note(reading)
        self._latest[reading.device] = reading
        self.tap.offer(reading)
        if self._stage is not None:
            self._stage.offer(reading)
        if self._judge is not None:
            self._judge.offer(reading)
        self.recorder.reading(reading)

    def _on_verdict(self, verdict: Verdict) -> None:
        self._alarm_about(verdict)
        self.recorder.verdict(verdict)

    def _alarm_about(self, verdict: Verdict) -> None:
        if self._stage is not None:
            self._stage.offer(verdict)

    # --- what others may ask

    def state(self, state: str) -> dict[str, object]:
        """The retained state message, also the last will (with ``state`` offline)."""
        fields: dict[str, object] = {
            "state": state,
            "version": product_version(),
            "stream": self.spool.stream,
            "boot": self.clock.boot_id,
            **stamp_fields(self.clock.stamp()),
        }
        if state != "online":
            return fields
        faults = {fault.source: fault.reason for fault in self.health.faults()}
        fields["devices"] = {
            plan.name: {
                "profile": plan.settings.profile,
                "state": "offline" if {f"device.{plan.name}", f"bus.{plan.bus}"} & faults.keys() else "online",
                "quantities": {name: quantity.unit for name, quantity in plan.quantities.items()},
            }
            for plan in self.config.devices.values()
        }
        if self.config.cameras:
            fields["cameras"] = {plan.name: {"kind": plan.kind} for plan in self.config.cameras.values()}
        if self._buses:
            fields["buses"] = self._buses
        if faults:
            fields["faults"] = faults
        return fields

    def watch_state(self) -> None:
        """Have the state message sent again when faults came or went, and once a minute. Called every few seconds."""
        self._watch_calibrations()
        buses = self._bus_reports(remember=True)
        now_ns = self.clock.mono_ns()
        is_due = bool(buses) and now_ns - self._buses_ns >= TELL_BUSES_EVERY_S * NS
        if is_due:
            self._buses, self._buses_ns = buses, now_ns
        faults = [(fault.source, fault.reason) for fault in self.health.faults() if fault.source != "mqtt"]
        if faults != self._faults_seen or is_due:
            self._faults_seen = faults
            if self.publisher is not None:
                self.publisher.state_changed()

    def _bus_reports(self, *, remember: bool = False) -> dict[str, object]:
        """How each bus fares; ``remember``: also for the comparison with later."""
        now_ns, counts = self.clock.mono_ns(), self.health.counters()
        reports: dict[str, object] = {}
        for name, part in sorted(self._parts.copy().items()):
            if not name.startswith("bus."):
                continue
            bus, poll = name.removeprefix("bus."), part.detail
            work = poll.work()
            seen_now = {
                device.name: seen(device, work[device.name], failures(counts, device.name)) for device in poll.devices
            }
            watch = self._watches[bus]
            if remember:
                watch.look(now_ns, seen_now)
            reports[bus] = watch.report(now_ns, seen_now, poll.utilisation())
        return reports

    def status(self) -> dict[str, object]:
        """Everything a person may want to know, for ``edge-agent status``."""
        publisher = self.publisher
        state = self.state("online")
        devices: Any = state["devices"]
        for name, fields in devices.items():
            fields.update(self._device_status(name))
        return {
            **state,
            "line": f"{self.config.site}/{self.config.line}",
            "since": stamp_fields(self._since)["at"],
            "uptime_s": (self.clock.mono_ns() - self._since.mono_ns) // NS,
            "broker": publisher.broker if publisher else None,
            "spool": self.spool.usage(),
            "recorded": self.recorder.recorded,
            "buses": self._bus_reports(),
            "models": self._judge.summary() if self._judge is not None else {},
            "alarms": self.alarms(),
            "lamps": self._stage.lamps() if self._stage is not None else {},
            "faults": [
                {"source": fault.source, "reason": fault.reason, "hint": fault.hint, "since": iso(fault.since_ms)}
                for fault in self.health.faults()
            ],
            "counters": self.health.counters(),
        }

    def _device_status(self, name: str) -> dict[str, object]:
        """What it said last, and how it answers where its driver counts that."""
        plan = self.config.devices[name]
        fields: dict[str, object] = {"bus": plan.bus}
        last = self._latest.get(name)
        if last is not None:
            fields |= {"at": iso(last.at.wall_ms), "values": last.values, "absent": last.absent}
        if (one := self._calibrations.get(name)) is not None:
            corrections = {quantity: asdict(correction) for quantity, correction in one.corrections.items()}
            fields["calibration"] = {"at": iso(one.at_ms), "expires": iso(one.expires_ms), "corrections": corrections}
        part = self._parts.get(f"bus.{plan.bus}")
        for device in part.detail.devices if part else ():
            if device.name == name and hasattr(device, "stats"):
                fields |= {"stats": dict(device.stats), "latency_ms": device.latency_ms()}
            if device.name == name and (origin := getattr(device, "origin", None)) is not None and origin.serial:
                fields["serial"] = origin.serial
        return fields

    def alarms(self) -> list[dict[str, object]]:
        return list(self._stage.snapshot()) if self._stage is not None else []

    @property
    def stage(self) -> Any:
        """The alarm stage, or None when no alarms are configured."""
        return self._stage


def _is_there(path: Path) -> bool:
    """A folder that may not be looked into has nothing for us."""
    try:
        return path.exists()
    except OSError:
        return False


def _starting_order(name: str) -> tuple[int, str]:
    order: Mapping[str, int] = {"publish": 0, "alarms": 1}
    return (order.get(name.partition(".")[0], 2), name)
