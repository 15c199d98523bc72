"""A config as text: what is set, every setting with its sentence above it. For the example file and for `init`."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator, Mapping
from typing import Any, Final

import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from edge_agent import catalogue
from edge_agent.alarms import AlarmSettings
from edge_agent.declarations import as_json, example_of, settings_of, type_of
from edge_agent.plan import Root
from edge_agent.settings import ModelSection

_WIDTH: Final = 100
# A line that many have: two meters on RS-485, one behind Ethernet, a climate sensor, a camera, a stack light.
EXAMPLE: Final[dict[str, Any]] = {
    "site": "ulsan",
    "line": "press-3",
    "state_dir": "/var/lib/edge-agent",
    "mqtt": {
        "brokers": ["mqtts://broker-a:8883", "mqtts://broker-b:8883"],
        "username": "press-3",
        "password_file": "/etc/edge-agent/mqtt-password",
        "ca_file": "/etc/edge-agent/ca.pem",
    },
    "spool": {"limit": "2GiB", "durability": "power-cut"},
    "buses": {
        "rs485-a": {
            "kind": "modbus-rtu",
            "port": "/dev/serial/by-id/usb-FTDI_FT232R_A1B2C3D4-if00-port0",
            "baudrate": 9600,
        },
        "panel": {"kind": "modbus-tcp", "host": "10.0.0.7"},
        "i2c-1": {"kind": "i2c", "number": 1},
    },
    "devices": {
        "main-meter": {"bus": "rs485-a", "profile": "eastron-sdm630", "unit": 1, "every": "2s", "ct_ratio": 40},
        "press-meter": {"bus": "rs485-a", "profile": "eastron-sdm120", "unit": 2, "every": "2s"},
        "feeder": {"bus": "panel", "profile": "schneider-pm5000", "unit": 1, "every": "1s"},
        "cabinet": {"bus": "i2c-1", "profile": "sht31", "address": 0x44, "every": "10s"},
    },
    "cameras": {
        "outfeed": {
            "kind": "v4l2",
            "source": "/dev/v4l/by-id/usb-camera-video-index0",
            "size": "1280x720",
            "every": "200ms",
            "model": "pitting",
        },
    },
    "models": {
        "pitting": {"bundle": "pitting"},
        "normal": {"bundle": "line-normal", "devices": ["main-meter", "cabinet"]},
    },
    "alarms": {
        "overload": {
            "when": "main-meter.active_power > 45 kW",
            "for": "10s",
            "clear": "< 42 kW",
            "severity": "high",
            "latch": True,
        },
        "hot-cabinet": {"when": "cabinet.temperature > 55 °C", "clear": "< 50 °C", "severity": "medium"},
        "meter-gone": {"when": "main-meter is offline", "for": "1min", "severity": "low"},
        "defect": {"when": "outfeed is defect", "severity": "medium"},
        "unusual": {"when": "normal is anomaly", "for": "1min", "severity": "low"},
    },
    "outputs": {
        "stack-light": {
            "kind": "gpio",
            "red": 17,
            "amber": 27,
            "green": 22,
            "buzzer": 23,
            "acknowledge": 24,
            "on_exit": "red",
        },
    },
}
OPEN: Final = ("buses", "devices", "cameras", "models", "alarms", "outputs")
_PLAIN: Final[dict[str, type[BaseModel]]] = {"models": ModelSection, "alarms": AlarmSettings}
_TABLES: Final = {"buses": catalogue.BUSES, "cameras": catalogue.CAMERAS, "outputs": catalogue.OUTPUTS}


def text(data: Mapping[str, Any], *, everything: bool = False) -> str:
    """``data`` as a commented config; ``everything``: also what is left at its default, commented out."""
    lines: list[str] = []
    for key, setting in settings_of(Root).items():
        if key not in data and not everything:
            continue
        lines += ["", *_comment(str(setting.description), 0)]
        if key in OPEN:
            lines += _entries(key, data.get(key, {}), data, everything=everything)
        elif isinstance(data.get(key), Mapping):
            lines += [f"{key}:", *_section(_section_of(setting), data[key], 2, set(), everything=everything)]
        else:
            lines.append(_line(key, setting, data))
    return "\n".join(lines).lstrip("\n") + "\n"


def _entries(key: str, entries: Mapping[str, Any], data: Mapping[str, Any], *, everything: bool) -> Iterator[str]:
    """The entries of an open section; the settings of a kind are explained where it comes first."""
    if not entries:
        yield f"# {key}:"
        return
    yield f"{key}:"
    seen: set[type[BaseModel]] = set()
    explained: set[str] = set()
    for name, entry in entries.items():
        section = section_of(key, entry, data)
        if section in seen:
            yield f"  {name}: {flow(entry)}"
            continue
        seen.add(section)
        yield f"  {name}:"
        yield from _section(section, entry, 4, explained, everything=everything)


def section_of(key: str, entry: Mapping[str, Any], data: Mapping[str, Any]) -> type[BaseModel]:
    """The declaration that an entry of an open section follows."""
    found: type[BaseModel]
    if key in _PLAIN:
        found = _PLAIN[key]
    elif key == "devices":
        found = catalogue.load(catalogue.BUSES, data["buses"][entry["bus"]]["kind"]).DeviceSettings
    else:
        found = catalogue.load(_TABLES[key], entry["kind"]).Settings
    return found


def _section(
    section: type[BaseModel], data: Mapping[str, Any], indent: int, explained: set[str], *, everything: bool
) -> Iterator[str]:
    """What is set, then what could be; a sentence that was said already is not repeated."""
    settings = settings_of(section)
    for key in (*data, *(key for key in settings if key not in data and everything)):
        sentence = str(settings[key].description)
        if key in data or sentence not in explained:
            yield from [] if sentence in explained else _comment(sentence, indent)
            yield " " * indent + _line(key, settings[key], data)
        explained.add(sentence)


def _line(key: str, setting: FieldInfo, data: Mapping[str, Any]) -> str:
    if key in data:
        return f"{key}: {_hexed(key, data[key])}"
    default = setting.get_default(call_default_factory=True)
    shown = flow(as_json(type_of(setting), default)) if default is not None else example_of(type_of(setting))
    return f"# {key}: {shown}"


def _section_of(setting: FieldInfo) -> Any:
    annotation: Any = setting.annotation
    return next(part for part in (annotation, *getattr(annotation, "__args__", ())) if hasattr(part, "model_fields"))


def _comment(sentence: str, indent: int) -> list[str]:
    return [" " * indent + "# " + line for line in textwrap.wrap(sentence, _WIDTH - indent, break_on_hyphens=False)]


def flow(value: Any) -> str:
    """A value on one line of YAML, plain where it can be."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {_hexed(key, each)}" for key, each in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(flow(each) for each in value) + "]"
    if isinstance(value, str) and _is_plain(value):
        return value
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    return json.dumps(value, ensure_ascii=False)


def _hexed(key: str, value: Any) -> str:
    """I2C addresses are known by their hexadecimal form."""
    return f"0x{value:02x}" if key == "address" and isinstance(value, int) else flow(value)


def _is_plain(value: str) -> bool:
    try:
        return bool(yaml.safe_load(f"[{value}]") == [value] and yaml.safe_load(f"a: {value}") == {"a": value})
    except yaml.YAMLError:
        return False
