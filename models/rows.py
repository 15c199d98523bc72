"""Rows of readings from a CSV file: first column ``time``, then one column per quantity.

What ``edge-agent export`` writes can be read; so can tables with ``;`` between the columns. A cell that is empty or
no number is an absent reading.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from math import isfinite
from pathlib import Path
from typing import Final, NamedTuple

from edge_agent.errors import EdgeAgentError
from models.task import Row

_UNIT: Final = re.compile(r" \[[^\]]*\]$")
_LONGEST: Final = 1 << 20  # characters of a line


class TableError(EdgeAgentError, ValueError):
    """A table cannot be read; the message names the line."""


class Table(NamedTuple):
    """``quantities``: the columns; ``rows``: the time as it was written, and the row."""

    quantities: tuple[str, ...]
    rows: Iterator[tuple[str, Row]]


@contextmanager
def opened(path: Path) -> Iterator[Table]:
    """Read it row by row. Raises TableError, also while the rows are read."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            head = file.readline(_LONGEST)
            delimiter = ";" if ";" in head and "," not in head else ","
            names = [name.strip() for name in next(csv.reader([head], delimiter=delimiter), [])]
            if len(names) < 2 or names[0] != "time":
                raise TableError(f"{path}: the first column must be time, then one column per quantity")
            quantities = tuple(_UNIT.sub("", name) for name in names[1:])
            twice = sorted({name for name in quantities if quantities.count(name) > 1})
            if twice:
                raise TableError(f"{path}: there are two columns {', '.join(twice)}")
            yield Table(quantities, _rows(path, csv.reader(file, delimiter=delimiter), quantities))
    except UnicodeDecodeError as error:
        raise TableError(f"{path} is not UTF-8 text") from error
    except csv.Error as error:
        raise TableError(f"{path} is no CSV: {error}") from error
    except OSError as error:
        raise TableError(f"cannot read {path}: {error.strerror}") from error


def _rows(path: Path, lines: Iterator[list[str]], quantities: Sequence[str]) -> Iterator[tuple[str, Row]]:
    for number, cells in enumerate(lines, 2):
        if not cells:
            continue
        try:
            time_s = seconds(cells[0])
        except ValueError:
            raise TableError(
                f"{path}:{number}: {cells[0]!r} is no time; write 2026-11-20T06:00:00Z or seconds"
            ) from None
        values = {
            name: value for name, cell in zip(quantities, cells[1:], strict=False) if isfinite(value := _value(cell))
        }
        yield cells[0], Row(time_s, values)


def seconds(text: str) -> float:
    """Seconds, or a date and time (UTC where no zone is written), as seconds. Raises ValueError."""
    try:
        number = float(text)
    except ValueError:
        moment = datetime.fromisoformat(text.strip())
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    if not isfinite(number):
        raise ValueError(text)
    return number


def _value(cell: str) -> float:
    try:
        return float(cell)
    except ValueError:
        return float("nan")
