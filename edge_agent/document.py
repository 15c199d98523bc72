"""A YAML file that remembers where everything stands, so that each mistake is named with its line.

Closed by default: no tags, no aliases (so no alias bombs), no duplicate keys, bounded size and depth.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from edge_agent.declarations import as_written, keys_at, type_at
from edge_agent.errors import Problem
from edge_agent.vocabulary import nearest

MAX_CHARACTERS: Final = 1_000_000
MAX_DEPTH: Final = 20

_PLAIN: Final = ("tag:yaml.org,2002:map", "tag:yaml.org,2002:seq")
Loader: Final[Any] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_SYNTAX_HINTS: Final = {
    "found a tab character that violates indentation": "; indent with spaces",
    "found character that cannot start any token": "; indent with spaces, and put text with @, ` or % in quotes",
    "mapping values are not allowed in this context": "; put text with a colon in quotes",
    "did not find expected key": "; look at the indentation here and in the line above",
    "did not find expected ',' or ']'": "; a [ is not closed",
    "did not find expected ',' or '}'": "; a { is not closed",
}
Path = tuple[object, ...]
S = TypeVar("S", bound=BaseModel)


@dataclass(slots=True)
class Document:
    """What a file says (``data``), the line of every key and item, and what is wrong with it."""

    file: str
    data: Any = None
    lines: dict[Path, int] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def line(self, path: Path) -> int:
        """The line of a path, or of the nearest thing around it."""
        for length in range(len(path), 0, -1):
            if path[:length] in self.lines:
                return self.lines[path[:length]]
        return 1

    def complain(self, path: Path, message: str) -> None:
        """Add a problem at a path."""
        self.problems.append(Problem(self.line(path), ".".join(map(str, path)), message, self.file))

    def at(self, path: Path) -> Any:
        """The data at a path; None where there is none."""
        data = self.data
        for key in path:
            try:
                data = data[key]
            except (KeyError, IndexError, TypeError):
                return None
        return data


def parse(text: str, file: str) -> Document:
    """Read YAML; mistakes of syntax go to ``problems``, and ``data`` is then what could be read."""
    document = Document(file)
    if len(text) > MAX_CHARACTERS:
        document.complain((), f"is larger than {MAX_CHARACTERS} characters")
        return document
    try:
        _check_depth(text)
        root = yaml.compose(text, Loader=Loader)
        if root is not None:
            document.data = _build(document, root, (), set())
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f", column {mark.column + 1}" if mark else ""
        message = f"is not YAML{where}: {error.problem}{_SYNTAX_HINTS.get(str(error.problem), '')}"
        document.problems.append(Problem(mark.line + 1 if mark else 1, "", message, file))
    except (yaml.YAMLError, UnicodeEncodeError) as error:
        document.problems.append(Problem(1, "", f"is not YAML: {error}", file))
    return document


def _check_depth(text: str) -> None:
    # Before composing: the composer recurses in C, where Python's recursion limit does not protect.
    depth = 0
    event: Any
    for event in yaml.parse(text, Loader=Loader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH:
            raise yaml.MarkedYAMLError(problem="nested too deeply", problem_mark=event.start_mark)


def _build(document: Document, node: yaml.Node, path: Path, seen: set[int]) -> Any:
    document.lines.setdefault(path, node.start_mark.line + 1)
    if id(node) in seen:
        document.complain(path, "repeats another part by an alias (*name); write it out")
        return None
    seen.add(id(node))
    if isinstance(node, yaml.ScalarNode):
        return _scalar(document, node, path)
    if node.tag not in _PLAIN:
        document.complain(path, f"has a tag ({node.tag}); write plain YAML")
    if isinstance(node, yaml.SequenceNode):
        return [_build(document, item, (*path, index), seen) for index, item in enumerate(node.value)]
    mapping: dict[Any, Any] = {}
    for key_node, value_node in node.value:
        line = key_node.start_mark.line + 1
        if not isinstance(key_node, yaml.ScalarNode):
            document.problems.append(Problem(line, ".".join(map(str, path)), "a key must be one word", document.file))
            continue
        key = _scalar(document, key_node, path)
        if key in mapping:
            first = document.lines[(*path, key)]
            message = f"stands twice; first in line {first}"
            document.problems.append(Problem(line, ".".join(map(str, (*path, key))), message, document.file))
            continue
        document.lines[(*path, key)] = line
        mapping[key] = _build(document, value_node, (*path, key), seen)
    return mapping


def _scalar(document: Document, node: yaml.ScalarNode, path: Path) -> Any:
    # YAML 1.1 would make a boolean of ``off``, minutes of ``1:30`` and a date of ``2026-11-20``: people mean words.
    kind = node.tag.rpartition(":")[2]
    if "\0" in node.value:
        message = "cannot be read: it contains a NUL character"
        document.problems.append(Problem(node.start_mark.line + 1, ".".join(map(str, path)), message, document.file))
        return None
    if (
        (kind == "bool" and node.value.lower() not in ("true", "false"))
        or (kind in ("int", "float") and ":" in node.value)
        or kind == "timestamp"
    ):
        return node.value
    constructor: Any = yaml.constructor.SafeConstructor()
    try:
        return constructor.construct_object(node)
    except (yaml.YAMLError, ValueError) as error:
        reason = getattr(error, "problem", None) or str(error)
        message = f"cannot be read: {reason}"
        document.problems.append(Problem(node.start_mark.line + 1, ".".join(map(str, path)), message, document.file))
        return None


def validate(document: Document, model: type[S], at: Path = ()) -> S | None:
    """Check one part of a document against a model; its mistakes go to ``problems``, then None."""
    try:
        return model.model_validate(document.at(at))
    except ValidationError as error:
        for detail in error.errors(include_url=False):
            path = _as_in_the_file(document.data, (*at, *detail["loc"]))
            document.complain(
                (*path, *detail["loc"][-1:]) if detail["type"] == "missing" else path, _sentence(detail, model)
            )
    return None


def _as_in_the_file(data: Any, path: Path) -> Path:
    """Only the steps that the file has: pydantic also names the member of a union."""
    kept: Path = ()
    for step in path:
        inside = data if isinstance(data, dict) else dict(enumerate(data)) if isinstance(data, list) else {}
        if step in inside:
            data = inside[step]
            kept = (*kept, step)
    return kept


_BOUNDS: Final = {
    "greater_than": ("gt", "more than"),
    "greater_than_equal": ("ge", "at least"),
    "less_than": ("lt", "less than"),
    "less_than_equal": ("le", "at most"),
}
_SHAPES: Final = {
    "dict_type": "must be lines of `key: value`",
    "model_type": "must be lines of `key: value`",
    "model_attributes_type": "must be lines of `key: value`",
    "list_type": "must be a list, like [a, b]",
    "tuple_type": "must be a list, like [a, b]",
    "string_type": "must be text; put it in quotes",
    "path_type": "must be a path",
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "finite_number": "must be a finite number",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
}


def _sentence(detail: Mapping[str, Any], model: type[BaseModel]) -> str:
    kind, place, found = detail["type"], detail["loc"], detail["input"]
    if kind == "extra_forbidden":
        return f"unknown key{nearest(str(place[-1]), keys_at(model, place[:-1]))}"
    if kind == "missing":
        return "is missing"
    message = str(detail["msg"]).removeprefix("Value error, ")
    if kind == "value_error":
        return message  # ours: it already says what was written
    written, close = "empty" if found is None else repr(found), ""
    if kind in ("literal_error", "enum"):
        expected = str(detail.get("ctx", {}).get("expected", ""))
        message, close = f"must be {expected}", nearest(str(found), re.findall(r"'([^']*)'", expected))
    elif kind in _BOUNDS:
        annotation = type_at(model, place)
        key, words = _BOUNDS[kind]
        message = f"must be {words} {as_written(annotation, detail['ctx'][key])}"
        written = found if isinstance(found, str) else as_written(annotation, found)
    else:
        message = _SHAPES.get(kind) or message.replace("Input should", "must")
    return message if isinstance(found, dict | list) else f"{message}, not {written}{close}"
