"""What is known of a meter: its profile, a YAML table of registers with no code.

One file per meter lies in ``drivers/meters``; a user's own file works the same. A mistake in a file
is named with its line and the nearest right word, all mistakes at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from drivers.decode import Decoder, Register
from drivers.profile_file import DEFAULT_GROUP, IdentityRow, ProfileFile, RegisterRow, SerialRow, Vector
from edge_agent.document import Document, parse, validate
from edge_agent.errors import ProfileError
from edge_agent.vocabulary import QUANTITIES, UNITS, Quantity, Sample, nearest

SHIPPED: Final = Path(__file__).parent / "meters"


@dataclass(frozen=True, eq=False, kw_only=True)
class MeterProfile:
    """A profile ready for use. ``key``: the name that a config says; ``name``: maker and model."""

    key: str
    name: str
    vendor: str
    source: str
    confidence: str
    verified: str
    notes: str
    max_registers: int
    barriers: frozenset[int]
    align: bool
    holes: bool
    bridge: int | None
    groups: Mapping[str, float]
    identity: tuple[IdentityRow, ...]
    serial: SerialRow | None
    discover: str | None
    models: tuple[int, ...]
    registers: tuple[Register, ...]
    quantities: Mapping[str, Quantity]
    vectors: tuple[Vector, ...] = field(repr=False)

    def decode(self, memory: Mapping[int, Mapping[int, bytes]]) -> Sample:
        """Decode register contents (function code → start → bytes): every value that they cover wholly."""
        sample = Sample({}, {})
        for fc, ranges in memory.items():
            for start, data in ranges.items():
                end = start + len(data) // 2
                inside = [row for row in self.registers if row.fc == fc and start <= row.first and row.end <= end]
                Decoder(inside, start).decode(data, sample.values, sample.absent)
        return sample


def profile_names() -> list[str]:
    """The profiles that come with the product."""
    return sorted(path.stem for path in SHIPPED.glob("*.yaml"))


def load_profile(name_or_path: str, folder: Path) -> MeterProfile:
    """A shipped profile by name, or a file (a path with a slash or ``.yaml``) relative to ``folder``.

    Raises ProfileError: close names for an unknown one, every mistake with its line for a wrong one.
    """
    if "/" in name_or_path or name_or_path.endswith((".yaml", ".yml")):
        path = folder / name_or_path
    elif name_or_path in (known := profile_names()):
        path = SHIPPED / f"{name_or_path}.yaml"
    else:
        raise ProfileError(f"there is no profile {name_or_path!r}{nearest(name_or_path, known)}")
    try:
        stat = path.stat()
        return _load(path, stat.st_mtime_ns, stat.st_size)
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "is not UTF-8 text"
        raise ProfileError(f"profile {path} cannot be read: {reason}") from error


@lru_cache(maxsize=64)
def _load(path: Path, _changed_ns: int, _size: int) -> MeterProfile:
    document = parse(path.read_text(encoding="utf-8"), str(path))
    file = None
    if document.data is not None or not document.problems:
        file = validate(document, ProfileFile)
    if isinstance(document.data, dict):
        _check_rows(document)
    if file is None or document.problems:
        raise ProfileError("\n".join(str(problem) for problem in sorted(set(document.problems))))
    return _build(path.stem, file)


def _build(key: str, file: ProfileFile) -> MeterProfile:
    known = dict(QUANTITIES)
    for name, row in file.quantities.items():
        low, high = row.range or (None, None)
        read = file.registers.get(name)
        digits = _FLOAT32_DIGITS if read is not None and read.type == "f32" else None
        known[name] = Quantity(name, row.unit, low, high, row.kind, digits=digits)
    quantities = {name: known[name] for name in file.registers}
    return MeterProfile(
        key=key,
        barriers=frozenset(file.barriers),
        identity=tuple(file.identity),
        models=tuple(file.models or ([file.model] if file.model else [])),
        registers=tuple(_register(file, name, row, quantities[name]) for name, row in file.registers.items()),
        quantities=quantities,
        vectors=tuple(file.vectors),
        **{name: getattr(file, name) for name in _AS_WRITTEN},
    )


_FLOAT32_DIGITS: Final = 9  # with so many every float32 can be told from its neighbours
_AS_WRITTEN: Final = (
    *("name", "vendor", "source", "confidence", "verified", "notes"),
    *("max_registers", "align", "holes", "bridge", "groups", "discover", "serial"),
)


def _register(file: ProfileFile, name: str, row: RegisterRow, quantity: Quantity) -> Register:
    factor = _factor(row.unit, quantity.unit) or Fraction(1)
    return Register(
        name=name,
        at=row.at,
        fc=row.fc,
        type=row.type,
        count=row.size,
        gain=Fraction(str(row.scale)) * factor,
        shift=row.offset * float(factor),
        unit=row.unit,
        group=row.group,
        doc=row.doc,
        sentinels=frozenset(row.raw(value) for value in row.sentinels),
        word_order=row.word_order or file.word_order,
        byte_order=row.byte_order or file.byte_order,
        bit=row.bit,
        scale_from=row.scale_from,
    )


def _factor(unit: str, to: str) -> Fraction | None:
    """What leads from one unit to another; None when they measure different things."""
    if unit == to:
        return Fraction(1)
    (base, factor), (to_base, to_factor) = UNITS.get(unit, ("?", 1.0)), UNITS.get(to, ("", 1.0))
    return Fraction(str(factor)) / Fraction(str(to_factor)) if base == to_base else None


# --- what a table must satisfy beyond the shape of each row; works on the rows that are right


def _check_rows(document: Document) -> None:
    rows: dict[str, RegisterRow] = {}
    for name, raw in _mapping(document, "registers").items():
        try:
            rows[str(name)] = RegisterRow.model_validate(raw)
        except ValidationError:
            continue  # already named
    own = _mapping(document, "quantities")
    for name in own:
        if name in QUANTITIES:
            document.complain(("quantities", name), "is already in the vocabulary; use it as it is")
    for name, row in rows.items():
        _check_meaning(document, name, row, own)
        _check_place(document, name, row)
    _check_overlap(document, rows)
    for index, vector in enumerate(document.at(("vectors",)) or []):
        expected = vector.get("expect") if isinstance(vector, dict) else None
        for name in expected if isinstance(expected, dict) else []:
            if name not in _mapping(document, "registers"):
                message = f"is not among the registers{nearest(str(name), rows)}"
                document.complain(("vectors", index, "expect", name), message)


def _mapping(document: Document, key: str) -> dict[Any, Any]:
    found = document.at((key,))
    return found if isinstance(found, dict) else {}


def _check_meaning(document: Document, name: str, row: RegisterRow, own: dict[Any, Any]) -> None:
    path = ("registers", name)
    groups = _mapping(document, "groups")
    if row.group != DEFAULT_GROUP and row.group not in groups:
        document.complain((*path, "group"), f"there is no group {row.group!r}{nearest(row.group, map(str, groups))}")
    if row.type == "string":
        document.complain((*path, "type"), "a text is no quantity; it belongs under identity")
    if name in QUANTITIES:
        unit = QUANTITIES[name].unit
    elif name in own:
        unit = str(own[name].get("unit", "")) if isinstance(own[name], dict) else row.unit
    else:
        known = [*QUANTITIES, *map(str, own)]
        document.complain(path, f"unknown quantity{nearest(name, known)}; declare your own under quantities")
        return
    if _factor(row.unit, unit) is None:
        right = [word for word in UNITS if UNITS[word][0] == UNITS.get(unit, (unit,))[0]] or [unit]
        close = nearest(row.unit, right) or f" — use {', '.join(repr(word) for word in right[:5])}"
        document.complain((*path, "unit"), f"{row.unit!r} does not measure {name}{close}")


def _check_place(document: Document, name: str, row: RegisterRow) -> None:
    first = min(row.at, row.at if row.scale_from is None else row.scale_from)
    end = max(row.at + row.size, 0 if row.scale_from is None else row.scale_from + 1)
    limit = document.at(("max_registers",))
    if end - first > (limit if isinstance(limit, int) and 1 <= limit <= 125 else 125):
        document.complain(("registers", name), f"takes {end - first} registers, more than one request may read")
    barriers = document.at(("barriers",))
    for barrier in barriers if isinstance(barriers, list) else []:
        if isinstance(barrier, int) and first < barrier < end:
            document.complain(("registers", name), f"the barrier {barrier:#06x} cuts through it")


def _check_overlap(document: Document, rows: dict[str, RegisterRow]) -> None:
    for fc in (3, 4):
        widest: tuple[str, int, int] | None = None
        for name, row in sorted(rows.items(), key=lambda item: (item[1].at, -item[1].size)):
            if row.fc != fc:
                continue
            extent = (row.at, row.at + row.size)
            if widest and row.at < widest[2] and extent != widest[1:]:
                document.complain(("registers", name), f"at {row.at:#06x} overlaps {widest[0]} at {widest[1]:#06x}")
            if widest is None or extent[1] > widest[2]:
                widest = (name, *extent)
