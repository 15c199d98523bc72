"""A proposed meter profile as a file that ``profile: ./my.yaml`` takes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from edge_agent.vocabulary import QUANTITIES


class DraftRow(NamedTuple):
    """One value: wire address, and ``value = raw × scale`` in ``unit``."""

    fc: int
    at: int
    type: str
    scale: float
    unit: str
    doc: str = ""


def text_of(
    rows: Mapping[str, DraftRow],
    *,
    name: str,
    source: str,
    notes: Sequence[str],
    word_order: str = "big",
    byte_order: str = "big",
    max_registers: int = 125,
    holes: bool = True,
    align: bool = False,
) -> str:
    """The YAML; confidence C, because nobody has compared it with the meter's own display yet."""
    lines = [
        "# A proposal: compare every value with the meter's own display before you rely on it.",
        "",
        f"name: {_quoted(name)}",
        'vendor: "unknown"',
        f"source: {_quoted(source)}",
        "confidence: C",
        "verified: device",
        f"notes: {_quoted(' '.join(notes))}",
    ]
    lines += [f"word_order: {word_order}"] if word_order != "big" else []
    lines += [f"byte_order: {byte_order}"] if byte_order != "big" else []
    lines += [f"max_registers: {max_registers}"] if max_registers != 125 else []
    lines += ["holes: false"] if not holes else []
    lines += ["align: true"] if align else []
    lines += ["", "registers:"]
    order = {quantity: index for index, quantity in enumerate(QUANTITIES)}
    width = max((len(quantity) for quantity in rows), default=0) + 1
    for quantity, row in sorted(rows.items(), key=lambda item: (order.get(item[0], 999), item[0])):
        head = f"{quantity}:"
        doc = f", doc: {_quoted(row.doc)}" if row.doc else ""
        scale = "" if row.scale == 1 else f", scale: {_number(row.scale)}"
        body = f"at: {row.at:#06x}, fc: {row.fc}, type: {row.type}, unit: {_quoted(row.unit)}{scale}{doc}"
        lines.append(f"  {head:<{width}} {{{body}}}")
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _number(value: float) -> str:
    """A number that YAML 1.1 reads as one: an exponent needs its dot and sign."""
    text = f"{value:.12g}"
    if "e" in text:
        mantissa, _, exponent = text.partition("e")
        mantissa = mantissa if "." in mantissa else f"{mantissa}.0"
        text = f"{mantissa}e{int(exponent):+d}"
    return text
