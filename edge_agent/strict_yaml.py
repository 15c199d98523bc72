"""YAML as people mean it, with the line of everything, and all mistakes at once.

Only ``true`` and ``false`` are booleans (so ``on_exit: off`` is a word), only decimal and ``0x``
numbers are numbers, a key that stands twice is an error, and a file cannot expand without end.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from edge_agent.errors import ConfigError, Problem

MAX_FILE_BYTES = 1 << 20
_MAX_NODES = 200_000

Path_ = tuple[str | int, ...]

_INT = re.compile(r"^[+-]?(0|[1-9][0-9_]*|0[0-9]+)$")
_HEX = re.compile(r"^0x[0-9a-fA-F_]+$")
_FLOAT = re.compile(r"^[+-]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][+-]?[0-9]+)?$")
_NULLS = {"", "~", "null", "Null", "NULL"}
_BOOLS = {"true": True, "True": True, "false": False, "False": False}


class Document:
    """Plain data and the line of every path in it. Paths are tuples of keys and indices."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.data: Any = None
        self.lines: dict[Path_, int] = {}
        self.problems: list[Problem] = []

    def line(self, path: Path_) -> int:
        """Line of the path, or of the nearest thing around it that is in the file."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path, 1)

    def problem(self, path: Path_, message: str) -> Problem:
        return Problem(self.line(path), ".".join(str(part) for part in path), message, self.file)


def read(path: Path) -> Document:
    """Read a file; raises ConfigError when it is not YAML at all. Lesser mistakes are in ``problems``."""
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise ConfigError([Problem(0, "", error.strerror or str(error), str(path))]) from error
    if len(raw) > MAX_FILE_BYTES:
        raise ConfigError([Problem(0, "", f"is larger than {MAX_FILE_BYTES} bytes", str(path))])
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise ConfigError([Problem(line, "", "is not UTF-8 text", str(path))]) from error
    return parse(text, str(path))


def parse(text: str, file: str) -> Document:
    """As :func:`read`, from text."""
    document = Document(file)
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        message = f"{error.problem or error.context}" + (f" (column {mark.column + 1})" if mark else "")
        raise ConfigError([Problem(mark.line + 1 if mark else 0, "", message, file)]) from error
    except (yaml.YAMLError, RecursionError) as error:
        raise ConfigError([Problem(0, "", f"is not YAML: {error}", file)]) from error
    budget = [_MAX_NODES]
    try:
        document.data = _convert(node, (), document, budget) if node is not None else None
    except RecursionError as error:
        raise ConfigError([Problem(0, "", "is nested too deep", file)]) from error
    if budget[0] < 0:
        raise ConfigError([Problem(0, "", "expands to far too much (anchors that repeat anchors?)", file)])
    return document


def _convert(node: yaml.Node, path: Path_, document: Document, budget: list[int]) -> Any:
    budget[0] -= 1
    if budget[0] < 0:
        return None
    document.lines.setdefault(path, node.start_mark.line + 1)
    if isinstance(node, yaml.MappingNode):
        return _mapping(node, path, document, budget)
    if isinstance(node, yaml.SequenceNode):
        return [_convert(item, (*path, index), document, budget) for index, item in enumerate(node.value)]
    return _scalar(node)


def _mapping(node: yaml.MappingNode, path: Path_, document: Document, budget: list[int]) -> dict[Any, Any]:
    found: dict[Any, Any] = {}
    for key_node, value_node in node.value:
        line = key_node.start_mark.line + 1
        if not isinstance(key_node, yaml.ScalarNode):
            document.problems.append(Problem(line, ".".join(map(str, path)), "a key must be a word", document.file))
            continue
        key = _scalar(key_node)
        here = (*path, key)
        if key in found:
            first = document.lines[here]
            name = ".".join(map(str, here))
            document.problems.append(Problem(line, name, f"stands twice (first in line {first})", document.file))
            continue
        document.lines[here] = line
        found[key] = _convert(value_node, here, document, budget)
    return found


def _scalar(node: yaml.Node) -> Any:
    text: str = node.value
    if getattr(node, "style", None) is not None:  # quoted: it is text
        return text
    if text in _NULLS:
        return None
    if text in _BOOLS:
        return _BOOLS[text]
    if _HEX.match(text):
        return int(text.replace("_", ""), 16)
    if _INT.match(text):
        return int(text.replace("_", ""))
    if _FLOAT.match(text):
        return float(text)
    return text
