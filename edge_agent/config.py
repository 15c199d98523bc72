"""config.yaml: read, checked against everything it names, all mistakes at once.

The declarations stand beside their use (each driver, each stage); here they are put together.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from edge_agent import catalogue, sharing
from edge_agent.alarms import AlarmSettings
from edge_agent.broker import MqttSettings
from edge_agent.clock import ManualClock
from edge_agent.contracts import Profile
from edge_agent.document import Document, parse, validate
from edge_agent.errors import ConfigError, Problem, ProfileError, RuleError
from edge_agent.plan import BusPlan, Config, DevicePlan, KindPlan, Root, is_name
from edge_agent.rules import Rule, check
from edge_agent.rules import parse as parse_rule
from edge_agent.settings import ModelSection
from edge_agent.vocabulary import ANOMALY, DEFECT, GOOD, NORMAL, NOT_INSPECTED, QUANTITIES, UNKNOWN, Quantity, nearest

DEFAULT_PATHS: Final = (Path("/etc/edge-agent/config.yaml"), Path("config.yaml"))
_LATER: Final = ("energy", "web")


def find(path: Path | None) -> Path:
    """The config file to use: the one named, else the first default that exists."""
    if path is not None:
        return path
    for candidate in DEFAULT_PATHS:
        if candidate.exists():
            return candidate
    tried = " or ".join(str(candidate) for candidate in DEFAULT_PATHS)
    raise ConfigError(
        [Problem(0, "", f"no config at {tried}; write one with `edge-agent init` or name it with --config")]
    )


def stated_dir(path: Path) -> Path:
    """What a broken config still says about its state folder."""
    with contextlib.suppress(OSError, UnicodeDecodeError):
        for line in path.read_text(encoding="utf-8").splitlines():
            key, _, value = line.partition(":")
            if key == "state_dir":
                return path.parent / value.split("#")[0].strip().strip("\"'")
    return Path("/var/lib/edge-agent")


def load(path: Path) -> Config:
    """Read and check a config file; raises ConfigError with every mistake in it."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "is not UTF-8 text"
        raise ConfigError([Problem(0, "", reason, str(path))]) from error
    return loads(text, path)


def loads(text: str, path: Path) -> Config:
    """As :func:`load`, from text; ``path`` gives the names in messages and the folder."""
    document = parse(text, str(path))
    if not isinstance(document.data, dict):
        nothing = Problem(1, "", "is not a config: it needs at least site and line", str(path))
        raise ConfigError(document.problems or [nothing])
    config = _Reader(document, path.resolve()).read()
    if document.problems or config is None:
        raise ConfigError(dict.fromkeys(document.problems))
    return config


class _Reader:
    """Checks section after section; every mistake goes to the document's problems."""

    def __init__(self, document: Document, path: Path) -> None:
        self._document = document
        self._path = path
        self._folder = path.parent
        self._data: dict[str, Any] = document.data
        self._told: dict[str, Mapping[str, Quantity]] = {}  # device → what its profile says, whatever else is wrong

    def read(self) -> Config | None:
        for key in _LATER:
            if key in self._data:
                self._document.complain((key,), "is not part of this version")
                del self._data[key]
        self._check_shapes()
        root = validate(self._document, Root)
        buses = self._buses()
        devices = self._devices(buses)
        cameras = self._kinds("cameras", catalogue.CAMERAS)
        outputs = self._kinds("outputs", catalogue.OUTPUTS)
        sharing.units(self._document, devices)
        sharing.ports(self._document, buses)
        models = self._models(cameras)
        sharing.lines(self._document, outputs, cameras)
        alarms, rules = self._alarms(devices, models)
        if root is None:
            return None
        return Config(
            file=self._path,
            folder=self._folder,
            site=root.site,
            line=root.line,
            state_dir=self._folder / root.state_dir,
            mqtt=self._absolute_secrets(root),
            spool=root.spool,
            shifts=root.shifts,
            buses=buses,
            devices=devices,
            cameras=cameras,
            models=models,
            alarms=alarms,
            rules=rules,
            outputs=outputs,
        )

    def _absolute_secrets(self, root: Root) -> MqttSettings | None:
        """Relative paths are relative to the config file, also those of secrets."""
        if root.mqtt is None:
            return None
        files = {
            name: self._folder / path
            for name in ("password_file", "ca_file", "cert_file", "key_file")
            if (path := getattr(root.mqtt, name)) is not None
        }
        return root.mqtt.model_copy(update=files)

    def _entries(self, section: str) -> list[tuple[str, dict[str, Any]]]:
        entries = self._data.get(section)
        if not isinstance(entries, dict):
            return []
        return [(name, entry) for name, entry in entries.items() if isinstance(entry, dict) and is_name(name)]

    def _check_shapes(self) -> None:
        """Names become topic levels; entries are mappings. What is not is named, and left out of the rest."""
        for section in ("buses", "devices", "cameras", "models", "alarms", "outputs"):
            entries = self._data.get(section)
            if entries is None:
                self._data.pop(section, None)
                continue
            if not isinstance(entries, dict):
                continue  # the model says it
            for name in list(entries):
                if not is_name(name):
                    self._document.complain(
                        (section, name), "a name is made of letters, digits, _ and - (it becomes a topic)"
                    )
                    del entries[name]

    def _buses(self) -> dict[str, BusPlan]:
        plans = {}
        for name, entry in self._entries("buses"):
            cls = self._class(("buses", name), entry, catalogue.BUSES)
            settings = validate(self._document, cls.Settings, ("buses", name)) if cls else None
            if cls and settings is not None:
                plans[name] = BusPlan(name, cls, settings)
        return plans

    def _class(self, at: tuple[str, str], entry: Mapping[str, Any], table: dict[str, str]) -> Any:
        kind = entry.get("kind")
        if kind is None:
            self._document.complain(at, f"kind is missing; one of {', '.join(table)}")
            return None
        if not isinstance(kind, str) or kind not in table:
            self._document.complain(
                (*at, "kind"), f"{kind!r} is not a kind" + (nearest(str(kind), table) or "; one of " + ", ".join(table))
            )
            return None
        return catalogue.load(table, kind)

    def _devices(self, buses: Mapping[str, BusPlan]) -> dict[str, DevicePlan]:
        plans = {}
        known = self._data.get("buses") or {}
        wires = {name: bus.kind(name, bus.settings, ManualClock()) for name, bus in buses.items()}
        for name, entry in self._entries("devices"):
            at = ("devices", name)
            wanted = entry.get("bus")
            kind = self._bus_kind(wanted)
            if kind is None:
                self._explain_bus(at, entry, known)
                continue
            settings = validate(self._document, kind.DeviceSettings, at)
            profile = self._profile(at, kind, entry, settings)
            if profile is not None:
                self._told[name] = profile.quantities
            bus = buses.get(str(wanted))
            if bus is None or settings is None or profile is None:
                continue
            try:
                device = wires[bus.name].device(name, settings, profile)  # as the daemon will, and no I/O
            except ProfileError as error:
                self._document.complain(at, str(error))
                continue
            plans[name] = DevicePlan(name, bus.name, settings, profile, device.quantities, device.groups)
        for bus in buses.values():
            sharing.time(self._document, bus, [plan for plan in plans.values() if plan.bus == bus.name])
        return plans

    def _bus_kind(self, name: object) -> Any:
        """The class of a bus of this file, also when its settings are wrong; None when it has none."""
        entry = dict(self._entries("buses")).get(name) if isinstance(name, str) else None
        kind = entry.get("kind") if entry else None
        return catalogue.load(catalogue.BUSES, kind) if isinstance(kind, str) and kind in catalogue.BUSES else None

    def _explain_bus(self, at: tuple[str, str], entry: Mapping[str, Any], known: Mapping[str, Any]) -> None:
        wanted = entry.get("bus")
        if wanted is None:
            self._document.complain(at, "bus is missing")
        elif not isinstance(wanted, str) or wanted not in known:
            self._document.complain((*at, "bus"), f"{wanted!r} is not a bus of this file{nearest(str(wanted), known)}")
        # else: the kind of the bus is wrong, which is said there

    def _profile(self, at: tuple[str, str], kind: Any, entry: Mapping[str, Any], settings: Any) -> Profile | None:
        if settings is None:
            # The entry is wrong somewhere; its profile may still be, and all mistakes come at once.
            fields = kind.DeviceSettings.model_fields
            words = [name for name, setting in fields.items() if setting.annotation is str]
            if not all(isinstance(entry.get(name), str) for name in words):
                return None
            settings = kind.DeviceSettings.model_construct(**{name: entry[name] for name in words})
        try:
            profile: Profile = kind.profile(settings, self._folder)
        except ProfileError as error:
            self._document.complain((*at, "profile"), str(error))
            return None
        return profile

    def _models(self, cameras: Mapping[str, KindPlan]) -> dict[str, ModelSection]:
        """What their bundles are is known only when they are loaded: a config does not become wrong by itself."""
        models: dict[str, ModelSection] = {}
        taken = {name: f"a {what[:-1]}" for what in ("devices", "cameras") for name, _ in self._entries(what)}
        known = self._data.get("devices") or {}
        for name, _ in self._entries("models"):
            found = validate(self._document, ModelSection, ("models", name))
            if found is None:
                continue
            models[name] = found
            if found.devices and name in taken:  # both would be subjects of alarms
                self._document.complain(("models", name), f"{name} is {taken[name]} already")
            for index, device in enumerate(found.devices):
                if device not in known:
                    message = f"{device!r} is no device of this file{nearest(device, known)}"
                    self._document.complain(("models", name, "devices", index), message)
        for camera in cameras.values():
            self._check_camera(camera, models)
        return models

    def _check_camera(self, camera: KindPlan, models: Mapping[str, ModelSection]) -> None:
        written = [name for name, _ in self._entries("models")]
        for name in camera.settings.model:
            at = ("cameras", camera.name, "model")
            if name not in written:
                self._document.complain(at, f"{name!r} is no model of this file{nearest(name, written)}")
            elif name in models and models[name].devices:
                self._document.complain(at, f"{name!r} judges devices, not pictures")

    def _kinds(self, section: str, table: dict[str, str]) -> dict[str, KindPlan]:
        plans = {}
        for name, entry in self._entries(section):
            cls = self._class((section, name), entry, table)
            settings = validate(self._document, cls.Settings, (section, name)) if cls else None
            if settings is not None:
                plans[name] = KindPlan(name, entry["kind"], cls, settings)
        return plans

    def _alarms(
        self, devices: Mapping[str, DevicePlan], models: Mapping[str, ModelSection]
    ) -> tuple[dict[str, AlarmSettings], dict[str, Rule]]:
        quantities: dict[str, Mapping[str, Quantity]] = {name: plan.quantities for name, plan in devices.items()}
        subjects = {name: frozenset({GOOD, DEFECT, NOT_INSPECTED, UNKNOWN}) for name, _ in self._entries("cameras")}
        subjects |= {name: frozenset({NORMAL, ANOMALY, UNKNOWN}) for name, model in models.items() if model.devices}
        # A device that is itself wrong is complained about at its own place, not here again; its profile still counts.
        for name in self._told.keys() - quantities.keys():
            quantities[name] = {**QUANTITIES, **self._told[name]}
        broken = {name for name, _ in self._entries("devices") if name not in quantities}
        broken |= {name for name, _ in self._entries("models") if name not in models}
        settings: dict[str, AlarmSettings] = {}
        rules: dict[str, Rule] = {}
        for name, entry in self._entries("alarms"):
            found = validate(self._document, AlarmSettings, ("alarms", name))
            try:
                rule = found.rule() if found else parse_rule(str(entry.get("when", "")))
            except RuleError:
                continue  # named already
            if found is not None:
                settings[name], rules[name] = found, rule
            for message in check(rule, quantities, subjects):
                if not any(repr(word) in message for word in broken):
                    self._document.complain(("alarms", name, "when"), message)
        return settings, rules
