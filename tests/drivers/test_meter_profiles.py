"""Every meter table that ships, held to one standard: it decodes, says where it comes from, and is cheap to read."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from functools import cache
from pathlib import Path

import pytest
import yaml

from drivers.decode import Register
from drivers.plan import plan
from drivers.profile_file import Vector
from drivers.registers import SHIPPED, MeterProfile, load_profile, profile_names
from edge_agent.vocabulary import NOT_A_NUMBER, QUANTITIES, SENTINEL

NAMES = profile_names()
each_profile = pytest.mark.parametrize("name", NAMES)
SIGNED = {"s16", "s32", "s64", "f32", "f64"}


@cache
def _profile(name: str) -> MeterProfile:
    return load_profile(name, Path())


@cache
def _written(name: str) -> dict:
    return yaml.safe_load((SHIPPED / f"{name}.yaml").read_text())


def _words(vector: Vector, row: Register) -> bytes:
    """The row's own bytes in the vector, most significant first; empty when the vector leaves it out."""
    for start, data in vector.registers.get(row.fc, {}).items():
        offset = (row.at - start) * 2
        if 0 <= offset <= len(data) - 2 * row.count:
            raw = data[offset : offset + 2 * row.count]
            words = [raw[i : i + 2] for i in range(0, len(raw), 2)]
            return b"".join(words if row.word_order == "big" else reversed(words))
    return b""


def test_the_families_that_lines_have_are_there():
    """The meters that the product promises ship with it."""
    promised = {
        *("eastron-sdm120", "eastron-sdm230", "eastron-sdm630", "eastron-sdm72", "eastron-sdm72-v2"),
        *("carlo-gavazzi-em24", "carlo-gavazzi-em24-e1", "carlo-gavazzi-em340"),
        *("schneider-iem3155", "schneider-iem3255", "abb-b23", "abb-b24", "peacefair-pzem-016"),
        *("sunspec-201", "sunspec-202", "sunspec-203", "sunspec-204"),
    }
    assert promised <= set(NAMES)


@each_profile
def test_its_vectors_decode_exactly(name):
    """Known register contents give the known values, in base units, and what is not there is absent."""
    profile = _profile(name)
    assert profile.vectors
    for vector in profile.vectors:
        sample = profile.decode(vector.registers)
        for quantity, expected in vector.expect.items():
            if expected is None:
                assert sample.absent[quantity] in (SENTINEL, NOT_A_NUMBER), vector.note
                assert quantity not in sample.values
            else:
                assert sample.values[quantity] == pytest.approx(expected, rel=1e-10, abs=1e-12), vector.note
        assert not set(sample.values) & set(sample.absent)


@each_profile
def test_its_vectors_would_catch_the_usual_mistakes(name):
    """A wrong word order, a lost high word, a lost sign or an unknown sentinel makes a vector fail."""
    profile = _profile(name)
    seen = [
        (row, vector.expect[row.name], words)
        for vector in profile.vectors
        for row in profile.registers
        if row.name in vector.expect and (words := _words(vector, row))
    ]
    valued = [(row, value, words) for row, value, words in seen if value is not None]
    rows = profile.registers
    if any(row.count > 1 for row in rows):  # beyond 16 bits, with both words different
        assert any(int.from_bytes(words[:-2]) and words[-2:] not in (words[:2], b"\0\0") for _, _, words in valued)
    if any(row.type in SIGNED and "power" in row.name for row in rows):
        assert any(value < 0 and row.type in SIGNED for row, value, _ in valued)
    if any(row.sentinels or row.is_float for row in rows):
        assert any(value is None for _, value, _ in seen)


@each_profile
def test_its_vectors_are_physically_possible(name):
    """What a vector expects lies within the range of its quantity, so the gate would let it pass."""
    profile = _profile(name)
    for vector in profile.vectors:
        for quantity, value in vector.expect.items():
            if value is not None:
                known = profile.quantities[quantity]
                assert (known.low if known.low is not None else -math.inf) <= value
                assert value <= (known.high if known.high is not None else math.inf)


@each_profile
def test_it_says_where_it_comes_from_and_what_is_doubtful(name):
    """Source, confidence, the manual's wording of every row, and notes wherever one source stands alone."""
    profile = _profile(name)
    assert profile.vendor
    assert len(profile.source) > 10
    assert profile.confidence == "A" or profile.notes
    assert all(row.doc for row in profile.registers)


@each_profile
def test_its_units_are_those_of_the_vocabulary(name):
    """A quantity of the vocabulary has the vocabulary's unit; one of its own is declared with unit and range."""
    profile, own = _profile(name), _written(name).get("quantities", {})
    for quantity in profile.quantities.values():
        if quantity.name in QUANTITIES:
            assert quantity == QUANTITIES[quantity.name]
        else:
            assert own[quantity.name]["unit"] == quantity.unit
            assert own[quantity.name]["range"]


@each_profile
def test_its_printed_numbers_keep_their_distance_from_the_wire(name):
    """The number in the manual and the wire address differ by one constant: a slip by one stands out."""
    rows = _written(name)["registers"].values()
    bases = {int(row["doc_ref"]) - row["at"] for row in rows if "doc_ref" in row}
    assert len(bases) <= 1
    if bases:
        assert bases <= {0, 1, 30001, 40001, 300001}
        assert all("doc_ref" in row for row in rows)


@each_profile
def test_no_two_values_share_a_register(name):
    """Each register belongs to one value (bits of one register excepted): a copied address stands out."""
    owner: dict[tuple[int, int], str] = {}
    for row in _profile(name).registers:
        for at in range(row.at, row.at + row.count):
            assert owner.setdefault((row.fc, at), row.name) == row.name


@each_profile
def test_reading_it_is_cheap(name):
    """What follows the device's own period takes few requests, on RTU and on TCP; none is beyond the device."""
    profile = _profile(name)
    groups = defaultdict(list)
    for row in profile.registers:
        groups[row.group].append(row)
    assert set(groups) - {"default"} == set(profile.groups)
    for usual, most in ((7, 4), (31, 2)):
        hole = profile.bridge if profile.bridge is not None else usual if profile.holes else 0
        for rows in groups.values():
            blocks = plan(rows, max_registers=profile.max_registers, hole=hole, barriers=profile.barriers)
            assert max(block.count for block in blocks) <= profile.max_registers
            assert len(blocks) <= (most if rows is groups["default"] else 12)


def test_the_sdm630_takes_three_requests():
    """The full map of the SDM630 is three requests on RTU; what changes every second is one."""
    profile = _profile("eastron-sdm630")
    limits = {"max_registers": profile.max_registers, "hole": profile.bridge or 7, "barriers": profile.barriers}
    assert len(plan(profile.registers, **limits)) == 3
    assert len(plan([row for row in profile.registers if row.group == "default"], **limits)) == 1


@each_profile
def test_it_is_written_as_a_table(name):
    """Columns stand under each other and addresses are hexadecimal, so that a manual compares line by line."""
    lines = (SHIPPED / f"{name}.yaml").read_text().splitlines()
    assert lines[0].startswith("# ")
    rows = [line for line in lines if re.match(r"  \w+: +\{at: ", line)]
    assert len(rows) == len(_profile(name).registers)
    for column in ("{at: 0x", "fc: ", "type: ", "doc: "):
        assert len({line.find(column) for line in rows}) == 1, column
    assert all(re.search(r"at: 0x[0-9A-F]{4},", line) for line in rows)


def test_names_are_told_apart():
    """Every profile names another maker and model."""
    names = [_profile(name).name for name in NAMES]
    assert len(set(names)) == len(names)
