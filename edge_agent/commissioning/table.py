"""A vendor's register table in CSV, read as people write such tables, into the rows of a profile.

Every mistake is named with its line, all at once. Rows whose name is no quantity that we know are left out, and told.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from drivers.decode import TYPES
from edge_agent.commissioning.draft import DraftRow
from edge_agent.errors import ConfigError, Problem
from edge_agent.vocabulary import QUANTITIES, UNITS

_COLUMNS: Final = {
    "address": ("address", "addr", "register", "reg", "modbusaddress", "registeraddress", "offset", "registernumber"),
    "name": ("name", "quantity", "parameter", "measurement", "measurand", "description", "value", "signal"),
    "type": ("type", "datatype", "format", "dataformat"),
    "unit": ("unit", "units"),
    "scale": ("scale", "factor", "multiplier", "gain", "resolution", "scaling", "scalefactor"),
    "fc": ("fc", "function", "functioncode", "functioncodes", "access"),
}
_TYPES: Final = {
    **{name: name for name in TYPES},
    **dict.fromkeys(("uint16", "unsigned16", "unsigned", "word", "ushort", "unsignedint16", "uint"), "u16"),
    **dict.fromkeys(("int16", "signed16", "signed", "short", "int", "integer"), "s16"),
    **dict.fromkeys(("uint32", "unsigned32", "dword", "ulong", "unsignedlong", "udint"), "u32"),
    **dict.fromkeys(("int32", "signed32", "long", "dint", "signedlong"), "s32"),
    **dict.fromkeys(("float", "float32", "real", "ieee754", "single", "fp32"), "f32"),
    **dict.fromkeys(("double", "float64", "lreal"), "f64"),
    **dict.fromkeys(("uint64", "unsigned64", "ulint"), "u64"),
    **dict.fromkeys(("int64", "signed64", "lint"), "s64"),
}
_FUNCTIONS: Final = {"3": 3, "03": 3, "0x03": 3, "holding": 3, "4": 4, "04": 4, "0x04": 4, "input": 4}
_KINDS: Final = (
    (r"reactive.*energy|energy.*reactive|k?varh", "reactive_energy"),
    (r"energy|k?wh\b", "energy"),
    (r"apparent|k?va\b", "apparent_power"),
    (r"reactive|k?var\b", "reactive_power"),
    (r"power ?factor|\bpf\b|cos", "power_factor"),
    (r"freq|\bhz\b", "frequency"),
    (r"active power|real power|\bk?w\b|\bpower\b|\bp\b", "active_power"),
    (r"volt|\bu\b|\bv\b", "voltage"),
    (r"current|\bamp|\bi\b|\ba\b", "current"),
)
_PAIRS: Final = {"12": "l1_l2", "23": "l2_l3", "31": "l3_l1"}
_LETTERS: Final = {"a": "1", "b": "2", "c": "3", "r": "1", "s": "2", "t": "3"}


@dataclass(slots=True)
class Table:
    """``rows``: quantity → row; ``left_out``: line and name of what is no quantity of ours."""

    rows: dict[str, DraftRow] = field(default_factory=dict)
    left_out: list[tuple[int, str]] = field(default_factory=list)


def read(path: Path, *, base: int = 0, fc: int = 3) -> Table:
    """Read a table. ``base``: what the first register is called, 0 or 1; ``fc``: where no column says it.

    Raises ConfigError with every mistake.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "is not UTF-8 text"
        raise ConfigError([Problem(0, "", reason, str(path))]) from error
    return reads(text, str(path), base=base, fc=fc)


def reads(text: str, file: str, *, base: int = 0, fc: int = 3) -> Table:
    """As :func:`read`, from text."""
    lines = text.splitlines()
    head = next((index for index, line in enumerate(lines) if line.strip()), 0)
    delimiter = max(",;\t", key=lines[head].count) if lines else ","
    rows = list(csv.reader(lines[head:], delimiter=delimiter))
    columns = _columns(rows[0]) if rows else {}
    missing = [name for name in ("address", "name", "type") if name not in columns]
    if missing:
        known = "; ".join(f"{name}: {', '.join(_COLUMNS[name][:4])}" for name in missing)
        raise ConfigError([Problem(head + 1, "", f"has no column for {' and '.join(missing)} ({known})", file)])
    table, problems = Table(), list[Problem]()
    seen: dict[str, int] = {}
    for number, cells in enumerate(rows[1:], head + 2):
        if not any(cell.strip() for cell in cells):
            continue
        row = {name: cells[index].strip() if index < len(cells) else "" for name, index in columns.items()}
        quantity = quantity_of(row["name"], row.get("unit", ""))
        if quantity is None:
            table.left_out.append((number, row["name"]))
            continue
        found, wrong = _row(row, quantity, base=base, fc=fc)
        problems += [Problem(number, row["name"], message, file) for message in wrong]
        if quantity in seen:
            problems.append(Problem(number, row["name"], f"{quantity} stands in line {seen[quantity]} already", file))
        elif found is not None:
            table.rows[quantity] = found
        seen.setdefault(quantity, number)
    if not problems and not table.rows:
        problems.append(Problem(head + 1, "", "no row is a quantity that we know", file))
    if problems:
        raise ConfigError(problems)
    return table


def _columns(header: Sequence[str]) -> dict[str, int]:
    found: dict[str, int] = {}
    words = [re.sub(r"[^a-z]", "", re.sub(r"\(.*?\)|\[.*?\]", "", cell.lower())) for cell in header]
    for name, aliases in _COLUMNS.items():
        position = next((words.index(alias) for alias in aliases if alias in words), None)
        if position is not None:
            found[name] = position
    return found


def quantity_of(name: str, unit: str = "") -> str | None:
    """``Phase 1 line to neutral volts`` → ``voltage_l1``; None for what we have no word for."""
    plain = name.strip().lower().replace(" ", "_")
    if plain in QUANTITIES:
        return plain
    words = re.sub(r"[_\-/.,]+", " ", name.lower())
    if re.search(
        r"thd|harmonic|demand|max|min|average|avg|unbalance|angle|tariff|setting|ratio|neutral current", words
    ):
        return None
    base = UNITS.get(unit, ("", 1.0))[0]
    by_unit = {"V": "voltage", "A": "current", "W": "active_power", "var": "reactive_power", "VA": "apparent_power"}
    by_unit |= {"Hz": "frequency", "Wh": "energy", "varh": "reactive_energy"}
    short = re.fullmatch(r"(pf|[uvipqs])\s?l?([123abcrst]{1,2})?", words.strip())
    letters = {"u": "voltage", "v": "voltage", "i": "current", "p": "active_power", "q": "reactive_power"}
    letters |= {"s": "apparent_power", "pf": "power_factor"}
    kind = letters[short[1]] if short else by_unit.get(base)
    kind = kind or next((kind for pattern, kind in _KINDS if re.search(pattern, words)), None)
    if kind is None:
        return None
    return _with_phase(kind, short[2] or "" if short else _phases(words), words)


def _phases(words: str) -> str:
    """Which phases a name speaks of: ``1``, ``12`` or nothing."""
    found = re.findall(
        r"\b(?:l|phase|ph|line)?\s?([123])\b|\bl([123])(?:n|l|\b)|\b(?:phase\s)?([abcrst])(?:n|\b)", words
    )
    digits = [next(part for part in match if part) for match in found]
    digits += [digit for pair in re.findall(r"\bl([123])l([123])\b", words) for digit in pair]
    return "".join(digits)[:2]


def _with_phase(kind: str, phases: str, words: str) -> str | None:
    digits = "".join(_LETTERS.get(each, each) for each in phases)
    if kind in ("energy", "reactive_energy"):
        out = re.search(r"export|deliver|reverse|received|minus|\(-\)|negative", words)
        kind += "_export" if out else "_import"
        if re.search(r"total|sum|net", words) and not re.search(r"import|export|forward|reverse", words):
            kind = kind.replace("_import", "_total")
    if kind == "voltage" and digits in _PAIRS:
        return f"voltage_{_PAIRS[digits]}"
    name = f"{kind}_l{digits}" if len(digits) == 1 and kind != "frequency" else kind
    return name if name in QUANTITIES else None


def _row(row: Mapping[str, str], quantity: str, *, base: int, fc: int) -> tuple[DraftRow | None, list[str]]:
    problems: list[str] = []
    at, own_fc = _address(row["address"], base, problems)
    kind = _TYPES.get(re.sub(r"[^a-z0-9]", "", row["type"].lower()))
    if kind is None:
        problems.append(f"{row['type']!r} is no type: {', '.join(TYPES)}")
    unit = row.get("unit", "") or QUANTITIES[quantity].unit
    if UNITS.get(unit, ("?",))[0] != UNITS.get(QUANTITIES[quantity].unit, ("",))[0]:
        problems.append(f"{unit!r} does not measure {quantity}")
    scale = _scale(row.get("scale", ""), problems)
    function = own_fc or fc
    if told := row.get("fc", "").lower():
        known = next((code for word, code in _FUNCTIONS.items() if re.search(rf"\b{word}\b", told)), None)
        if known is None:
            problems.append(f"{row['fc']!r} is no function code: 3 or 4")
        function = known or function
    if problems or kind is None or at is None:
        return None, problems
    return DraftRow(function, at, kind, scale, unit, row["name"]), []


def _address(text: str, base: int, problems: list[str]) -> tuple[int | None, int | None]:
    """Wire address, and the function code where the number says it (30001, 40001)."""
    plain = text.replace(" ", "").split("-")[0].lower()
    try:
        number = (
            int(plain, 16) if plain.startswith("0x") else int(plain[:-1], 16) if plain.endswith("h") else int(plain)
        )
    except ValueError:
        problems.append(f"{text!r} is no address")
        return None, None
    if base == 1 and re.fullmatch(r"[34]\d{4,5}", plain):  # 30001: the first input register
        return number % (10 ** (len(plain) - 1)) - 1, 4 if plain[0] == "3" else 3
    if not 0 <= number - base <= 0xFFFF:
        problems.append(f"{text!r} is no address between {base} and {0xFFFF + base}")
        return None, None
    return number - base, None


def _scale(text: str, problems: list[str]) -> float:
    plain = text.replace(" ", "").replace(",", ".").lower().lstrip("x*×")
    if not plain:
        return 1.0
    if power := re.fullmatch(r"10\^\(?(-?\d{1,2})\)?", plain):
        return float(10.0 ** int(power[1]))
    divided = re.fullmatch(r"1?[/÷](\d+(?:\.\d+)?)", plain)
    plain_number = re.fullmatch(r"[-+]?\d+(?:\.\d+)?(?:e[-+]?\d{1,2})?", plain)
    if divided and float(divided[1]):
        return 1 / float(divided[1])
    if plain_number and float(plain):
        return float(plain)
    problems.append(f"{text!r} is no scale, like 0.1 or /10")
    return 1.0
