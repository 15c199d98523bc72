"""The configuration reference and the example file, rendered from the declarations.

``python -m edge_agent.reference --write`` renders both, and the blocks between the markers of the READMEs.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Final, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from drivers.registers import load_profile, profile_names
from edge_agent import catalogue, sample
from edge_agent.alarms import AlarmSettings
from edge_agent.camera_settings import CameraSection
from edge_agent.declarations import as_json, in_words, is_section, settings_of, type_of
from edge_agent.plan import Root
from edge_agent.settings import BusSection, DeviceSection, ModelSection

ROOT: Final = Path(__file__).parent.parent
_HEAD: Final = """\
# Configuration

One file: `/etc/edge-agent/config.yaml`, else `./config.yaml`, else the one named with `--config`.
`edge-agent init` writes one, `edge-agent check` proves it, `systemctl reload edge-agent` takes it over: only what
changed is restarted, and a file with a mistake is refused while the running config stays in use.
[config.yaml.example](../config.yaml.example) is a whole line with every setting.

- Durations carry their unit (`200ms`, `10s`, `15min`, `8h`, `30d`), and so do sizes (`64MiB`, `2GiB`), powers
  (`180 kW`) and voltages (`230 V`).
- An unknown key is a mistake. All mistakes are named at once, with line, path and the nearest right word.
- Relative paths are relative to the file. Secrets stand in files of their own, never in the config.
- Names (of buses, devices, cameras, alarms, outputs) are made of letters, digits, `_` and `-`: they become topics.

This page is rendered from the declarations in the code; settings in **bold** must be given.
"""

Rendered = tuple[str, type[BaseModel], frozenset[str]]
"""Title, section, and the keys that were explained before."""


def sections() -> Iterator[tuple[str, type[BaseModel]]]:
    """Every section that a config can have, with its title; nested ones follow theirs."""
    for title, section, _ in _rendered():
        yield title, section


def _rendered() -> Iterator[Rendered]:
    none: frozenset[str] = frozenset()
    yield "The whole file", Root, none
    for key, setting in settings_of(Root).items():
        for part in get_args(setting.annotation) or (setting.annotation,):
            if is_section(part):
                yield f"`{key}`", part, none
    yield from _kinds("buses", BusSection, catalogue.BUSES, "Settings")
    yield from _kinds("devices", DeviceSection, catalogue.BUSES, "DeviceSettings")
    yield from _kinds("cameras", CameraSection, catalogue.CAMERAS, "Settings")
    yield "`models`", ModelSection, none
    yield "`alarms`", AlarmSettings, none
    yield from _kinds("outputs", None, catalogue.OUTPUTS, "Settings")


def _kinds(key: str, common: type[BaseModel] | None, table: dict[str, str], attribute: str) -> Iterator[Rendered]:
    """What all kinds have, then what each has besides; sections within come after the first that has them."""
    known: dict[str, FieldInfo] = {}
    nested: dict[type[BaseModel], str] = {}
    if common is not None:
        yield f"`{key}`: every one", common, frozenset()
        known = settings_of(common)
        yield from _nested(key, common, nested)
    kinds: dict[type[BaseModel], list[str]] = {}
    for kind in table:
        kinds.setdefault(getattr(catalogue.load(table, kind), attribute), []).append(f"`{kind}`")
    for section, names in kinds.items():
        same = {
            name for name, setting in settings_of(section).items() if name in known and _alike(setting, known[name])
        }
        where = "on a bus of kind" if attribute == "DeviceSettings" else "of kind"
        title = f"`{key}` {where} {' or '.join(names)}"
        yield title, section, frozenset(same)
        yield from _nested(key, section, nested)


def _alike(one: FieldInfo, other: FieldInfo) -> bool:
    return (one.description, one.default) == (other.description, other.default)


def _nested(where: str, section: type[BaseModel], seen: dict[type[BaseModel], str]) -> Iterator[Rendered]:
    for key, setting in settings_of(section).items():
        for part in _within(setting.annotation):
            if part not in seen:
                seen[part] = key
                yield f"`{where}`: `{key}`", part, frozenset()
                yield from _nested(f"{where}.{key}", part, seen)


def _within(annotation: Any) -> Iterator[type[BaseModel]]:
    """The sections that a type holds."""
    if is_section(annotation):
        yield annotation
    for part in get_args(annotation):
        yield from _within(part) if get_origin(part) is not None or is_section(part) else ()


def page() -> str:
    """``docs/configuration.md``."""
    return _HEAD + "".join(_table(*rendered) for rendered in _rendered()) + _RULES


def _table(title: str, section: type[BaseModel], explained: frozenset[str]) -> str:
    lines = [f"\n## {title}\n", " ".join((section.__doc__ or "").split()), ""]
    rows = [(key, setting) for key, setting in settings_of(section).items() if key not in explained]
    rows.sort(key=lambda row: not row[1].is_required())
    if rows:
        lines += ["| setting | takes | default | |", "|---|---|---|---|"]
        lines += [_row(key, setting) for key, setting in rows]
    return "\n".join(lines).rstrip() + "\n"


def _row(key: str, setting: FieldInfo) -> str:
    annotation = type_of(setting)
    name, default = f"`{key}`", ""
    if setting.is_required():
        name = f"**{name}**"
    else:
        value = setting.get_default(call_default_factory=True)
        default = _short(annotation, value) if value is not None else ""
    cells = (name, in_words(annotation), default, str(setting.description))
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"


def _short(annotation: Any, value: Any) -> str:
    inner = get_args(annotation)[0] if get_origin(annotation) is Annotated else annotation
    if is_section(inner):
        return "see below"
    text = sample.flow(as_json(annotation, value))
    return f"`{text}`" if text not in ("[]", "{}") else ""


_RULES: Final = """
## Rules of alarms

`when` is a condition over devices, cameras and what they say:

| | |
|---|---|
| `main-meter.active_power > 45 kW` | a quantity against a level, with its unit; `>`, `>=`, `<`, `<=` |
| `cabinet.temperature is absent` | the quantity has no value that can be trusted |
| `main-meter is offline` | the device does not answer |
| `outfeed is defect` | what the camera's judge says: `good`, `defect`, `not-inspected`, `unknown` |
| `outfeed.fallbacks > 20 %` | of the last hundred decisions of a camera or model: the share that a fallback made |
| `A and B`, `A or B`, `not A`, `( … )` | put together; `not` binds closest, then `and`, then `or` |

`clear` is the level at which a comparison ends (`< 42 kW`), so that the alarm does not flutter around one level.
"""


def _sections_block() -> str:
    """The sections of a config."""
    lines = ["| section | what it is |", "|---|---|"]
    for key, setting in settings_of(Root).items():
        kinds = {"buses": catalogue.BUSES, "cameras": catalogue.CAMERAS, "outputs": catalogue.OUTPUTS}.get(key, {})
        words = ", ".join(f"`{kind}`" for kind in kinds)
        lines.append(f"| `{key}` | {setting.description}{f' Kinds: {words}.' if words else ''} |")
    return "\n".join(lines)


def _devices_block() -> str:
    """Every meter and sensor of the catalogue."""
    makers: dict[str, list[str]] = {}
    for key in profile_names():
        profile = load_profile(key, ROOT)
        makers.setdefault(profile.vendor, []).append(f"`{key}` ({profile.confidence})")
    parts: dict[str, list[str]] = {}
    for key in catalogue.SENSORS:
        parts.setdefault(catalogue.load(catalogue.SENSORS, key).title, []).append(f"`{key}`")
    lines = ["| meters (Modbus) | profile, and how sure its table is |", "|---|---|"]
    lines += [f"| {maker} | {', '.join(keys)} |" for maker, keys in sorted(makers.items())]
    lines += ["", "| sensors (I2C) | profile |", "|---|---|"]
    lines += [f"| {title} | {', '.join(keys)} |" for title, keys in parts.items()]
    return "\n".join(lines)


_BLOCKS: Final = {"config": _sections_block, "devices": _devices_block}


def example() -> str:
    """``config.yaml.example``."""
    head = "# A whole line. What is commented out stands at its default. Prove your own with: edge-agent check\n\n"
    return head + sample.text(sample.EXAMPLE, everything=True)


def rendered_files(root: Path = ROOT) -> dict[Path, str]:
    """Every rendered file and what it must contain."""
    files = {root / "docs" / "configuration.md": page(), root / "config.yaml.example": example()}
    for path in sorted(root.glob("README*.md")):
        text = path.read_text(encoding="utf-8")
        for name, render in _BLOCKS.items():
            begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
            before, found, rest = text.partition(begin)
            _, closed, after = rest.partition(end)
            if found and closed:
                text = f"{before}{begin}\n{render()}\n{end}{after}"
        files[path] = text
    return files


def main() -> int:
    """Write what is out of date, or only name it; exit code 1: something is."""
    stale = {
        path: text
        for path, text in rendered_files().items()
        if not path.exists() or path.read_text(encoding="utf-8") != text
    }
    for path, text in stale.items():
        if "--write" in sys.argv:
            path.write_text(text, encoding="utf-8")
        sys.stdout.write(f"{path.relative_to(ROOT)}\n")
    return 1 if stale and "--write" not in sys.argv else 0


if __name__ == "__main__":
    sys.exit(main())
