"""Reading what a section declares: its keys, their types, and how a value of such a type is written."""

from __future__ import annotations

from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Final, Literal, Union, get_args, get_origin

from pydantic import BaseModel, PlainSerializer, TypeAdapter
from pydantic.fields import FieldInfo

from edge_agent import settings

Place = tuple[object, ...]
"""Keys and list positions that lead from a section to something within."""


def settings_of(section: type[BaseModel]) -> dict[str, FieldInfo]:
    """The settings of a section by the key that a file says."""
    return {info.alias or name: info for name, info in section.model_fields.items()}


def type_of(setting: FieldInfo) -> Any:
    """The type of a setting with everything that was annotated to it."""
    annotation: Any = setting.annotation
    return Annotated[annotation, *setting.metadata] if setting.metadata else annotation


def type_at(annotation: Any, place: Place) -> Any:
    """The type that stands at a place: through settings, lists, maps and unions; None where there is none."""
    if not place:
        return annotation
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        setting = settings_of(annotation).get(str(place[0]))
        return type_at(type_of(setting), place[1:]) if setting else None
    arguments = get_args(annotation)
    if get_origin(annotation) is Annotated:
        return type_at(arguments[0], place)
    if get_origin(annotation) in (Union, UnionType):
        # pydantic may name the member of the union in the place; both ways are tried
        tried = (type_at(member, rest) for member in arguments for rest in (place, place[1:]))
        return next((found for found in tried if found is not None), None)
    return type_at(arguments[-1], place[1:]) if arguments else None


def keys_at(annotation: Any, place: Place) -> list[str]:
    """The keys that may stand at a place."""
    section = type_at(annotation, place)
    candidates = [section, *get_args(section)]
    return [key for found in candidates if is_section(found) for key in settings_of(found)]


def as_written(annotation: Any, value: Any) -> str:
    """A number as a person writes it in a setting of this type: with its unit, where it has one."""
    if list in (get_origin(part) for part in (annotation, *get_args(annotation))):
        return "[text]"
    for part in (annotation, *get_args(annotation)):
        for mark in getattr(part, "__metadata__", ()):
            if isinstance(mark, PlainSerializer):
                write: Any = mark.func
                return str(write(value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def as_json(annotation: Any, value: Any) -> Any:
    """A value as it stands in a file: durations and sizes with their unit, sections as mappings."""
    return TypeAdapter(annotation).dump_python(value, mode="json", exclude_none=True, by_alias=True, warnings=False)


def in_words(annotation: Any) -> str:
    """What a setting takes, for people: ``duration``, ``whole number, 1 to 247``, ``N or E or O``."""
    arguments = get_args(annotation)
    kind = get_origin(annotation)
    if kind is Annotated:
        words = _with_bounds(_measure(annotation) or in_words(arguments[0]), annotation)
    elif kind in (Union, UnionType):
        words = " or ".join(in_words(member) for member in arguments if member is not NoneType)
    elif kind is Literal:
        words = " or ".join(f"`{word}`" for word in arguments)
    elif kind in (list, tuple):
        words = f"list of {in_words(arguments[0])}"
    elif kind is dict:
        words = "entries, by name" if get_origin(arguments[1]) is dict else f"by name, a {in_words(arguments[1])}"
    else:
        words = "section" if is_section(annotation) else _WORDS.get(annotation, "value")
    return words


def example_of(annotation: Any) -> str:
    """What may stand where a setting has no default."""
    for part in (
        annotation,
        *get_args(annotation),
        *(deep for each in get_args(annotation) for deep in get_args(each)),
    ):
        if (measure := _measure(part)) is not None:
            return _EXAMPLES[measure]
        if part in _EXAMPLES:
            return _EXAMPLES[part]
        if get_origin(part) is Literal:
            return str(get_args(part)[0])
    return "…"


_WORDS: Final[dict[Any, str]] = {str: "text", int: "whole number", float: "number", bool: "true or false", Path: "path"}
_EXAMPLES: Final[dict[Any, str]] = {
    "duration": "10s",
    "size": "64MiB",
    "width x height": "1280x720",
    "width x height + left + top": "640x480+100+50",
    "power": "20 kW",
    "voltage": "230 V",
    str: "text",
    int: "1",
    float: "1.0",
    bool: "true",
    Path: "/path/to/file",
}
_MEASURES: Final = {
    settings.Duration: "duration",
    settings.Size: "size",
    settings.Resolution: "width x height",
    settings.Region: "width x height + left + top",
    settings.Watts: "power",
    settings.Volts: "voltage",
}


def _measure(annotation: Any) -> str | None:
    """Which of the types with a unit it is."""
    marks = getattr(annotation, "__metadata__", ())
    for measure, word in _MEASURES.items():
        own: Any = measure
        if own.__metadata__[0] in marks:
            return word
    return None


def _with_bounds(words: str, annotation: Any) -> str:
    low = high = None
    for mark in annotation.__metadata__:
        for part in getattr(mark, "metadata", (mark,)):
            low = next((getattr(part, name) for name in ("ge", "gt") if getattr(part, name, None) is not None), low)
            high = next((getattr(part, name) for name in ("le", "lt") if getattr(part, name, None) is not None), high)
    if high is not None:
        low_words = as_written(annotation, 0 if low is None else low)
        return f"{words}, {low_words} to {as_written(annotation, high)}"
    return f"{words}, from {as_written(annotation, low)}" if low else words


def is_section(found: Any) -> bool:
    """Whether a type is a section with settings of its own."""
    return isinstance(found, type) and issubclass(found, BaseModel)
