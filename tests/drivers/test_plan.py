"""Coalescing: the fewest requests, and nothing that a device could refuse on principle."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from drivers.decode import Register
from drivers.plan import Block, cut, plan


def value(at: int, *, count: int = 2, fc: int = 4, scale_from: int | None = None) -> Register:
    kind = {1: "u16", 2: "f32", 4: "u64"}[count]
    return Register(name=f"q{fc}-{at}", at=at, fc=fc, type=kind, count=count, scale_from=scale_from)


# The Eastron SDM630's whole map: 52 two-register floats (see the protocol's table of input registers).
SDM630 = [
    value(at)
    for at in [
        *range(0x00, 0x24, 2),
        *(0x34, 0x38, 0x3C, 0x3E, 0x42, 0x46, 0x48, 0x4A, 0x4C, 0x4E),
        *(0xEA, 0xEC, 0xEE, 0xF8),
        *range(0x156, 0x17E, 2),
    ]
]


@st.composite
def maps(draw: st.DrawFn) -> list[Register]:
    """Registers that do not overlap, of both function codes, with holes of any width."""
    rows: list[Register] = []
    for fc in (3, 4):
        at = draw(st.integers(0, 100))
        for _ in range(draw(st.integers(0, 25))):
            at += draw(st.integers(0, 40))
            count = draw(st.sampled_from([1, 2, 4]))
            rows.append(value(at, count=count, fc=fc))
            at += count
    return draw(st.permutations(rows))


def holes(block: Block) -> list[int]:
    ends = itertools.accumulate((row.end for row in block.registers), max)
    return [after.first - end for end, after in zip(ends, block.registers[1:], strict=False)]


@given(maps(), st.integers(4, 125), st.integers(0, 60), st.data())
def test_every_plan_keeps_every_promise(rows, most, hole, data):
    """Each register once, no request too long, no hole too wide, no barrier or cut crossed."""
    free = [b for b in range(1200) if not any(row.first < b < row.end for row in rows)]
    barriers = data.draw(st.sets(st.sampled_from(free), max_size=4))
    cuts = data.draw(st.sets(st.tuples(st.sampled_from([3, 4]), st.sampled_from(free)), max_size=4))
    blocks = plan(rows, max_registers=most, hole=hole, barriers=barriers, cuts=cuts)
    assert sorted(row.name for block in blocks for row in block.registers) == sorted(row.name for row in rows)
    for block in blocks:
        assert block.count <= most
        assert max(holes(block), default=0) <= hole
        assert all(row.fc == block.fc for row in block.registers)
        assert block.start == block.registers[0].first
        assert block.start + block.count == max(row.end for row in block.registers)
        edges = {*barriers, *(at for fc, at in cuts if fc == block.fc)}
        assert not any(block.start < edge < block.start + block.count for edge in edges)


def fewest(rows: list[Register], most: int, hole: int) -> int:
    """By trying everything: the fewest groups of neighbours that fit."""
    ordered = sorted(rows, key=lambda row: row.first)
    best = [0]
    for stop in range(1, len(ordered) + 1):
        choices = []
        for start in range(stop):
            group = ordered[start:stop]
            gaps = [b.first - a.end for a, b in itertools.pairwise(group)]
            if group[-1].end - group[0].first <= most and max(gaps, default=0) <= hole:
                choices.append(best[start] + 1)
        best.append(min(choices))
    return best[-1]


@given(maps(), st.integers(4, 60), st.integers(0, 20))
def test_no_plan_with_fewer_requests_exists(rows, most, hole):
    """The number of requests is the least that the limits allow."""
    rows = [row for row in rows if row.fc == 3]
    assert len(plan(rows, max_registers=most, hole=hole)) == fewest(rows, most, hole)


def test_the_whole_sdm630_takes_five_requests_on_rtu():
    """52 values, at most 80 registers each, holes up to 7."""
    assert len(SDM630) == 52
    assert len(plan(SDM630, max_registers=80, hole=7)) <= 5


def test_the_whole_sdm630_takes_three_requests_where_wide_holes_are_allowed():
    """Holes up to 50 leave only the two gaps that no request could span."""
    assert len(plan(SDM630, max_registers=80, hole=50)) == 3


def test_twenty_neighbouring_floats_take_one_request():
    """What lies side by side is asked for at once."""
    (block,) = plan([value(2 * i) for i in range(20)])
    assert (block.fc, block.start, block.count) == (4, 0, 40)


def test_a_value_and_its_scale_register_share_a_request():
    """A SunSpec value is worth nothing beside a scale factor of another moment."""
    rows = [value(at, count=1, fc=3, scale_from=6) for at in (2, 3, 4, 5)] + [value(16, count=1, fc=3, scale_from=17)]
    first, second = plan(rows, hole=7)
    assert (first.start, first.count) == (2, 5)
    assert (second.start, second.count) == (16, 2)
    for block in plan(rows, max_registers=5, hole=7, cuts={(3, 4)}):
        assert all(block.start <= row.first and row.end <= block.start + block.count for row in block.registers)


@given(maps())
def test_dividing_a_refused_request_ends_at_single_values(rows):
    """However often a device refuses, dividing ends with every value in a request of its own."""
    cuts: set[tuple[int, int]] = set()
    for _ in range(200):
        blocks = plan(rows, hole=31, cuts=cuts)
        divisible = [at for block in blocks if (at := cut(block))]
        if not divisible:
            break
        assert not cuts.issuperset(divisible)
        cuts.update(divisible)
    assert len(blocks) == len({(row.fc, row.first) for row in rows})


def test_a_refused_request_is_divided_at_its_widest_hole_first():
    """The registers that the table does not name are the likeliest reason of a refusal."""
    (block,) = plan([value(0), value(2), value(6), value(13), value(15)])
    assert cut(block) == (4, 13)
