"""Profiles: what a file may say, what is wrong with it, and what register contents mean."""

from __future__ import annotations

import struct
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drivers.decode import TYPES, Decoder, Register
from drivers.profile_file import IdentityRow
from drivers.registers import MeterProfile, load_profile, profile_names
from edge_agent.errors import ProfileError
from edge_agent.vocabulary import NOT_A_NUMBER, SENTINEL

HEAD = "{name: X, vendor: Y, source: Z, confidence: C, verified: simulator, "


def write(folder: Path, text: str, name: str = "meter.yaml") -> str:
    (folder / name).write_text(text, encoding="utf-8")
    return f"./{name}"


def load(folder: Path, text: str) -> MeterProfile:
    return load_profile(write(folder, text), folder)


def mistakes(folder: Path, text: str) -> str:
    with pytest.raises(ProfileError) as caught:
        load(folder, text)
    return str(caught.value)


def decode(registers: list[Register], data: bytes, start: int = 0) -> tuple[dict[str, float], dict[str, str]]:
    values: dict[str, float] = {}
    absent: dict[str, str] = {}
    Decoder(registers, start).decode(data, values, absent)
    return values, absent


# --- decoding

LIMITS = {
    "u16": (0, 2**16 - 1),
    "s16": (-(2**15), 2**15 - 1),
    "u32": (0, 2**32 - 1),
    "s32": (-(2**31), 2**31 - 1),
    "u64": (0, 2**64 - 1),
    "s64": (-(2**63), 2**63 - 1),
}
orders = st.sampled_from(["big", "little"])
gains = st.sampled_from(
    [Fraction(1), Fraction(1, 10), Fraction(1, 1000), Fraction(1000), Fraction(-40), Fraction(1, 3)]
)


@st.composite
def registers_with_raws(draw: st.DrawFn, at: int = 0, name: str = "q") -> tuple[Register, float]:
    kind = draw(st.sampled_from(sorted(TYPES)))
    row = Register(
        name=name,
        at=at,
        fc=3,
        type=kind,
        count=TYPES[kind][0],
        gain=draw(gains),
        shift=draw(st.sampled_from([0.0, -50.0])),
        word_order=draw(orders),
        byte_order=draw(orders),
    )
    if kind in LIMITS:
        return row, draw(st.integers(*LIMITS[kind]))
    raw = draw(st.floats(-1e9, 1e9, width=32 if kind == "f32" else 64))
    return row, raw


@given(registers_with_raws())
def test_decoding_undoes_encoding(row_and_raw):
    """For every type, word order, byte order, scale and offset."""
    row, raw = row_and_raw
    values, absent = decode([row], row.encode_raw(raw))
    assert not absent
    expected = float(raw * row.gain) + row.shift if isinstance(raw, int) else raw * float(row.gain) + row.shift
    assert values["q"] == pytest.approx(expected, rel=1e-12, abs=1e-9)
    if abs(raw) < 2**52:  # beyond, a float no longer holds every integer
        again, _ = decode([row], row.encode(values["q"]))
        assert again["q"] == pytest.approx(values["q"], rel=1e-6, abs=1e-6)


@given(st.data())
def test_a_block_means_what_its_registers_mean_alone(data):
    """Neighbours, holes and mixed orders in one request change no value."""
    at, rows, memory, alone = 100, [], bytearray(), {}
    for index in range(data.draw(st.integers(1, 12))):
        gap = data.draw(st.integers(0, 3))
        memory += data.draw(st.binary(min_size=2 * gap, max_size=2 * gap))
        row, raw = data.draw(registers_with_raws(at=at + gap, name=f"q{index}"))
        memory += row.encode_raw(raw)
        rows.append(row)
        alone |= decode([row], row.encode_raw(raw), start=row.at)[0]
        at = row.at + row.count
    assert decode(rows, bytes(memory) + b"\xff\xff", start=100) == (alone, {})


def test_a_scale_of_a_tenth_gives_the_decimal_that_is_printed_on_the_display():
    """2302 × 0.1 is 230.2 and not 230.20000000000002."""
    row = Register(name="q", at=0, fc=3, type="u16", count=1, gain=Fraction(1, 10))
    assert decode([row], struct.pack(">H", 2302)) == ({"q": 230.2}, {})


FLOATS = [Register(name=f"q{i}", at=2 * i, fc=4, type="f32", count=2) for i in range(3)]


@pytest.mark.parametrize("bad", ["7fc00000", "ffc00000", "7f800000", "ff800000"])
def test_a_float_that_is_no_number_is_absent_and_its_neighbours_are_not(bad):
    """NaN and infinity never become a value."""
    data = struct.pack(">f", 1.5) + bytes.fromhex(bad) + struct.pack(">f", -2.5)
    assert decode(FLOATS, data) == ({"q0": 1.5, "q2": -2.5}, {"q1": NOT_A_NUMBER})


def test_a_sum_that_overflows_is_no_reason_to_lose_values():
    """Only a value that is itself infinite is absent."""
    rows = [Register(name=f"q{i}", at=4 * i, fc=4, type="f64", count=4) for i in range(2)]
    assert decode(rows, struct.pack(">dd", 1.7e308, 1.7e308))[0] == {"q0": 1.7e308, "q1": 1.7e308}


@pytest.mark.parametrize(
    ("kind", "sentinel", "raw"),
    [
        ("u16", "0xFFFF", "ffff"),
        ("s16", "0x8000", "8000"),
        ("s16", "-1", "ffff"),
        ("u32", "0xFFFFFFFF", "ffffffff"),
        ("s32", "0x7FFFFFFF", "7fffffff"),
        ("u64", "0xFFFFFFFFFFFFFFFF", "ff" * 8),
        ("f32", "-1.0", "bf800000"),
    ],
)
def test_a_sentinel_is_no_value(tmp_path, kind, sentinel, raw):
    """What the maker chose for "not available" is absent, also where it is the bit pattern of a negative number."""
    row = f"{{at: 7, fc: 3, type: {kind}, unit: W, sentinels: [{sentinel}]}}"
    profile = load(tmp_path, f"{HEAD} registers: {{active_power: {row}}}}}")
    assert profile.decode({3: {7: bytes.fromhex(raw)}}) == ({}, {"active_power": SENTINEL})
    other = bytes(len(raw) // 2)
    assert profile.decode({3: {7: other}}) == ({"active_power": 0.0}, {})


def test_bits_of_one_register_are_values_of_their_own(tmp_path):
    """Several rows may share one register when they name different bits."""
    rows = ", ".join(f"b{bit}: {{at: 5, fc: 3, type: bits, bit: {bit}}}" for bit in (0, 3, 15))
    own = ", ".join(f"b{bit}: {{unit: '', range: [0, 1]}}" for bit in (0, 3, 15))
    profile = load(tmp_path, f"{HEAD} quantities: {{{own}}}, registers: {{{rows}}}}}")
    assert profile.decode({3: {5: b"\x80\x01"}}).values == {"b0": 1.0, "b3": 0.0, "b15": 1.0}


@pytest.mark.parametrize(
    ("exponent", "expected"), [("ffff", 123.4), ("0002", 123400.0), ("8000", None), ("0063", None)]
)
def test_a_scale_register_scales_and_an_absent_one_leaves_no_value(tmp_path, exponent, expected):
    """Value = raw × 10^sunssf; "not implemented" or nonsense there means that nothing is known."""
    row = "{at: 8, fc: 3, type: u16, unit: V, scale_from: 10, sentinels: [0xFFFF]}"
    profile = load(tmp_path, f"{HEAD} registers: {{voltage_l1: {row}}}}}")
    sample = profile.decode({3: {8: bytes.fromhex("04d2 0000" + exponent)}})
    assert sample == (({"voltage_l1": expected}, {}) if expected else ({}, {"voltage_l1": SENTINEL}))


def test_units_lead_to_the_base_unit_exactly(tmp_path):
    """kWh become Wh, kW become W; scale and offset belong to the written unit."""
    profile = load(
        tmp_path,
        HEAD + "registers: {energy_import: {at: 0, fc: 3, type: u32, scale: 0.01, unit: kWh},"
        " active_power: {at: 2, fc: 3, type: s16, scale: 0.1, offset: -5, unit: kW}}}",
    )
    sample = profile.decode({3: {0: struct.pack(">Ih", 70_000, -12)}})
    assert sample.values == {"energy_import": 700_000.0, "active_power": -6200.0}


@given(st.binary(min_size=40, max_size=60).filter(lambda data: len(data) % 2 == 0))
def test_no_content_of_registers_breaks_decoding(data):
    """Whatever stands in the registers, each is a finite value or absent."""
    kinds = sorted(TYPES)
    rows, at = [], 0
    for index, kind in enumerate(kinds):
        row = Register(name=kind, at=at, fc=3, type=kind, count=TYPES[kind][0], word_order=["big", "little"][index % 2])
        rows.append(replace(row, scale_from=19 if index == 3 else None))
        at += row.count
    values, absent = decode(rows, data)
    assert values.keys() | absent.keys() == set(kinds)
    assert not values.keys() & absent.keys()
    assert all(value - value == 0 for value in values.values())


@pytest.mark.parametrize(
    ("row", "data", "same"),
    [
        ({"at": 0, "count": 2, "match": "B23"}, b"B23 ", True),
        ({"at": 0, "count": 2, "match": "B23"}, b"B24 ", False),
        ({"at": 0, "count": 4, "match": ["A43", "A44"]}, b"A44 111 ", True),
        ({"at": 11, "type": "u16", "match": [1648, 1650]}, b"\x06\x72", True),
        ({"at": 11, "type": "u16", "match": 1648}, b"\x06\x71", False),
        ({"at": 0, "type": "u32", "word_order": "little", "match": 1}, b"\x00\x01\x00\x00", True),
        ({"at": 0, "type": "f32", "match": 1}, b"\x7f\xc0\x00\x00", False),
    ],
)
def test_an_identity_register_tells_meters_apart(row, data, same):
    """A text begins so, a number equals, and any of a list will do."""
    assert IdentityRow.model_validate(row).matches(data) is same


# --- what a file may not say

GOOD = """\
name: X
vendor: Y
source: Z
confidence: C
verified: simulator
max_registers: 50
barriers: [0x0100]
groups: {energy: 10s}
quantities:
  flow: {unit: L/min, range: [0, 500]}
registers:
  voltage_l1:    {at: 0x0000, fc: 4, type: f32, unit: V}
  energy_import: {at: 0x0048, fc: 4, type: u32, unit: kWh, scale: 0.1, group: energy}
  flow:          {at: 0x0060, fc: 4, type: u16, unit: L/min}
vectors:
  - registers: {4: {0x0000: "4366 3333"}}
    expect: {voltage_l1: 230.2}
"""


def test_the_good_file_is_good(tmp_path):
    """The file that the tests below break one line at a time loads."""
    profile = load(tmp_path, GOOD)
    assert list(profile.quantities) == ["voltage_l1", "energy_import", "flow"]
    assert profile.quantities["flow"].high == 500
    assert profile.groups == {"energy": 10.0}


@pytest.mark.parametrize(
    ("right", "wrong", "line", "said"),
    [
        ("vendor: Y", "vendr: Y", 2, "did you mean 'vendor'"),
        ("vendor: Y", "", 1, "vendor: is missing"),
        ("confidence: C", "confidence: D", 4, "'A', 'B' or 'C'"),
        ("max_registers: 50", "max_registers: 126", 6, "125"),
        ("energy: 10s", "energy: 10", 8, "needs its unit"),
        ("energy: 10s", "default: 10s", 8, "another name"),
        ("flow: {unit: L/min, r", "active_power: {unit: W, r", 10, "already in the vocabulary"),
        ("range: [0, 500]", "range: [a, 500]", 10, "number"),
        ("voltage_l1: ", "voltag_l1: ", 12, "did you mean 'voltage_l1'"),
        ("type: f32", "type: f31", 12, "did you mean 'f32'"),
        ("type: f32", "type: string, count: 2", 12, "belongs under identity"),
        ("fc: 4, type: f32", "fc: 6, type: f32", 12, "3 or 4"),
        ("fc: 4, type: f32", "fc: 4, typ: f32", 12, "did you mean 'type'"),
        ("unit: V}", "unit: kW}", 12, "does not measure voltage_l1"),
        ("unit: V}", "unit: Volt}", 12, "does not measure voltage_l1"),
        ("unit: V}", "unit: V, bit: 3}", 12, "needs type bits"),
        ("unit: V}", "unit: V, count: 3}", 12, "f32 has 2 registers, not 3"),
        ("unit: V}", "unit: V, scale: 0}", 12, "scale 0.0 is not usable"),
        ("unit: V}", "unit: V, scale_from: 0x60}", 12, "more than one request may read"),
        ("at: 0x0000", "at: 0xFFFF", 12, "beyond address 0xFFFF"),
        ("at: 0x0000", "at: 0x10000", 12, "65535"),
        ("at: 0x0000", "at: 0x0047", 13, "overlaps voltage_l1"),
        ("at: 0x0000", "at: 0x00FF", 12, "the barrier 0x0100 cuts through it"),
        ("group: energy", "group: enrgy", 13, "did you mean 'energy'"),
        ("scale: 0.1", "sentinels: [0x1FFFFFFFF]", 13, "does not fit into u32"),
        ("flow:          {at", "flow:          {at: 3, at", 14, "stands twice; first in line 14"),
        ("4366 3333", "4366 33", 16, "16-bit words"),
        ("4366 3333", "xyz", 16, "not hexadecimal"),
        ("{voltage_l1: 230.2}", "{voltage: 230.2}", 17, "did you mean 'voltage_l1'"),
        ("name: X", "name: X\ndiscover: sunspec", 1, "go together"),
        ("name: X", "name: *a", 1, "is not YAML"),
        ("name: X", "name: &a X\nnotes: *a", 2, "alias"),
        ("name: X", "name: !!python/object:os.system X", 1, "cannot be read"),
        ("name: X", "name: [", 3, "is not YAML"),
        ("name: X", "name: " + "[" * 50 + "]" * 50, 1, "nested too deeply"),
    ],
)
def test_a_mistake_is_named_with_its_line_and_the_right_word(tmp_path, right, wrong, line, said):
    """Each single mistake in the good file."""
    assert right in GOOD
    message = mistakes(tmp_path, GOOD.replace(right, wrong, 1))
    assert any(f"meter.yaml:{line}:" in each and said in each for each in message.splitlines()), message


def test_all_mistakes_of_a_file_come_at_once(tmp_path):
    """Whoever mends a file mends it once."""
    text = (
        GOOD.replace("vendor", "vendr")
        .replace("confidence: C", "confidence: Z")
        .replace("voltage_l1: ", "voltag_l1: ")
        .replace("unit: kWh", "unit: kW")
        .replace("group: energy", "group: enrgy")
        .replace("type: u16", "type: u17")
        .replace("4366 3333", "436")
    )
    message = mistakes(tmp_path, text)
    for said in ("vendr", "vendor: is missing", "confidence", "voltag_l1", "'kW'", "enrgy", "u17", "436"):
        assert said in message, said


@given(st.text(max_size=200))
def test_no_text_does_worse_than_a_profile_error(text):
    """Loading ends in a profile or in a ProfileError, whatever the file holds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pathlib.Path.read_text", lambda *_, **__: text)
        from drivers.registers import _load

        with pytest.raises(ProfileError):
            _load.__wrapped__(Path("x.yaml"), 0, 0)


def test_an_unknown_profile_lists_close_ones():
    """A name is looked up among the shipped profiles."""
    assert "eastron-sdm630" in profile_names()
    with pytest.raises(ProfileError, match="did you mean 'eastron-sdm630'"):
        load_profile("eastron-smd630", Path())


def test_a_file_that_cannot_be_read_says_why(tmp_path):
    """Missing files, folders and other encodings."""
    with pytest.raises(ProfileError, match="No such file"):
        load_profile("./none.yaml", tmp_path)
    with pytest.raises(ProfileError, match="directory"):
        load_profile("./", tmp_path)
    (tmp_path / "latin.yaml").write_bytes(b"name: M\xfcller")
    with pytest.raises(ProfileError, match="UTF-8"):
        load_profile("latin.yaml", tmp_path)


def test_a_changed_file_is_read_anew_and_an_unchanged_one_is_not(tmp_path):
    """A profile is cached until its file changes."""
    first = load(tmp_path, GOOD)
    assert load_profile("./meter.yaml", tmp_path) is first
    assert load(tmp_path, GOOD.replace("name: X", "name: Another")).name == "Another"
