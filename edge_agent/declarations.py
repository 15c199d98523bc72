"""Reading what a section declares: its keys, their types, and how a value of such a type is written."""

from __future__ import annotations

from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, PlainSerializer
from pydantic.fields import FieldInfo

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
    return [key for found in candidates if _is_section(found) for key in settings_of(found)]


def as_written(annotation: Any, value: Any) -> str:
    """A number as a person writes it in a setting of this type: with its unit, where it has one."""
    for part in (annotation, *get_args(annotation)):
        for mark in getattr(part, "__metadata__", ()):
            if isinstance(mark, PlainSerializer):
                write: Any = mark.func
                return str(write(value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def _is_section(found: Any) -> bool:
    return isinstance(found, type) and issubclass(found, BaseModel)
