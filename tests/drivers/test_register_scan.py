"""Finding the registers of a meter that nobody knows: everything that answers, nothing that does not, never a write."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drivers.modbus_unit import RefusedError
from drivers.register_scan import meanings, scan_registers, usual_places
from edge_agent.errors import DeviceError
from edge_agent.vocabulary import TIMEOUT


class Unknown:
    """A meter that has these registers under function 3, and refuses a question that touches any other."""

    def __init__(self, has, *, silent: bool = False, most: int = 125) -> None:
        self.has = set(has)
        self.silent = silent
        self.most = most
        self.asked = 0

    def request(self, unit, fc, address, count, timeout_s=None):
        assert fc in (3, 4)
        self.asked += 1
        if fc == 4:
            raise RefusedError(unit, 1)
        if count > self.most or not self.has >= set(range(address, address + count)):
            if self.silent:
                raise DeviceError(TIMEOUT)
            raise RefusedError(unit, 2)
        return b"".join(struct.pack(">H", at) for at in range(address, address + count))


def scanned(meter, *places) -> dict[int, int]:
    found = scan_registers(meter, 1, places, 0.1, lambda _done, _of: None)
    return {run.at + index: word for run in found for index, word in enumerate(run.words)}


@given(st.sets(st.integers(0, 200)), st.sampled_from([1, 2, 10, 125]))
def test_what_is_there_is_found_and_nothing_else(has, most):
    """However strict the meter: exactly its registers, with what stands in them."""
    meter = Unknown(has, most=most)
    assert scanned(meter, range(201)) == {at: at for at in has}
    assert meter.asked <= 2 + 7 * 53, "a refused block costs at most so many questions"


def test_registers_in_a_row_are_one_run():
    """Runs are joined over blocks; a function that the meter does not know costs one question."""
    meter = Unknown(range(10, 120))
    (run,) = scan_registers(meter, 1, [range(200)], 0.1, lambda _done, _of: None)
    assert (run.fc, run.at, len(run.words)) == (3, 10, 110)


def test_a_meter_that_is_silent_where_others_refuse_is_asked_on():
    """A silent block is passed over; a unit that answers nowhere is an error, soon."""
    assert scanned(Unknown(range(64, 128), silent=True), range(128)) == {at: at for at in range(64, 128)}
    nobody = Unknown((), silent=True)
    with pytest.raises(DeviceError):
        scanned(nobody, range(0x10000))
    assert nobody.asked == 3


def test_progress_ends_at_its_end():
    """Every block is told, in order, up to the last."""
    told = []
    list(scan_registers(Unknown(()), 1, [range(64)], 0.1, lambda done, of: told.append((done, of))))
    assert told == [(0, 4), (1, 4), (2, 4), (4, 4)]


def test_meanings_are_those_that_a_meter_would_say():
    """Floats and long integers in both orders, where they are likely; text where it can be read."""
    high, low = struct.unpack(">2H", struct.pack(">f", 230.5))
    assert meanings((high, low), 0)["f32"] == 230.5
    assert meanings((low, high), 0)["f32 low first"] == 230.5
    assert meanings((1, 0x8000), 0)["u32"] == 98304
    assert meanings((0x8001,), 0) == {"u16": 0x8001, "s16": -32767}
    assert meanings((0x4142,), 0)["text"] == "AB"


@given(st.lists(st.integers(0, 0xFFFF), min_size=1, max_size=4), st.integers(0, 3))
def test_any_word_has_a_meaning(words, index):
    """Whatever stands in a register, it can be shown."""
    index = min(index, len(words) - 1)
    assert meanings(tuple(words), index)["u16"] == words[index]


def test_the_usual_places_are_few_and_in_order():
    """Where known meters have values, once each: minutes, not hours."""
    places = usual_places()
    assert len(places) < 200
    assert places == sorted(set(places), key=lambda place: place.start)
