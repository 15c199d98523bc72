"""The gate: what is physically impossible is absent with its reason, and a counter never runs back unseen."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from edge_agent.clock import ManualClock
from edge_agent.plausibility import Gate
from edge_agent.vocabulary import COUNTER_BACKWARDS, NOT_A_NUMBER, OUT_OF_RANGE, QUANTITIES, SLEW, Sample

NAMES = ("active_power", "power_factor", "energy_import", "temperature")


class Judge:
    def __init__(self) -> None:
        self.clock = ManualClock()
        self.gate = Gate("main", {name: QUANTITIES[name] for name in NAMES})

    def see(self, name: str, value: float, after_s: float = 1.0):
        self.clock.advance(after_s)
        return self.gate.judge(Sample({name: value}, {}), self.clock.stamp())


def test_what_is_possible_passes_untouched():
    """Good values come out as they are, at the time they were taken, with what the driver said absent."""
    judge = Judge()
    stamp = judge.clock.stamp()
    reading = judge.gate.judge(Sample({"active_power": -5.0}, {"temperature": "timeout"}), stamp)
    assert (reading.device, reading.at, reading.values, reading.absent) == (
        "main",
        stamp,
        {"active_power": -5.0},
        {"temperature": "timeout"},
    )


@given(st.sampled_from(NAMES), st.floats())
def test_no_value_is_better_than_a_wrong_value(name, value):
    """A value stands in values or in absent, never in both, and never outside of what is possible."""
    reading = Judge().see(name, value)
    low, high = QUANTITIES[name].low, QUANTITIES[name].high
    possible = low <= value <= high
    assert (name in reading.values, name in reading.absent) == (possible, not possible)
    if not possible:
        assert reading.absent[name] == (OUT_OF_RANGE if math.isfinite(value) else NOT_A_NUMBER)


def test_one_frame_back_is_refused_and_forgotten():
    """A counter that reads low once is absent once; the next good value goes on without an event."""
    judge = Judge()
    judge.see("energy_import", 1000)
    assert judge.see("energy_import", 3).absent == {"energy_import": COUNTER_BACKWARDS}
    reading = judge.see("energy_import", 1001)
    assert (reading.values, reading.events) == ({"energy_import": 1001}, ())


def test_a_counter_that_was_reset_is_followed_with_an_event():
    """The second reading on the new count is believed, and says before and after."""
    judge = Judge()
    judge.see("energy_import", 1000)
    judge.see("energy_import", 3)
    reading = judge.see("energy_import", 4)
    assert reading.values == {"energy_import": 4}
    assert reading.events == ({"event": "counter-reset", "quantity": "energy_import", "before": 1000, "after": 4},)
    assert judge.see("energy_import", 5).events == ()


def test_the_rounding_of_a_float_counter_is_no_reset():
    """A float32 counter may step back by its own resolution."""
    judge = Judge()
    judge.see("energy_import", 16_777_216.0)
    assert judge.see("energy_import", 16_777_215.0).values


@given(st.lists(st.floats(0, 1e6), min_size=2, max_size=30))
def test_without_an_event_a_counter_never_falls(seen):
    """Over any sequence: each believed value is at least the one before, unless an event says so."""
    judge = Judge()
    believed = None
    for value in seen:
        reading = judge.see("energy_import", value)
        if "energy_import" in reading.values:
            if believed is not None and not reading.events:
                assert value >= believed * (1 - 1e-6)
            believed = value


def test_a_jump_faster_than_physics_must_come_twice():
    """One spike is absent; the same new level a second time is believed."""
    judge = Judge()
    judge.see("temperature", 20)
    assert judge.see("temperature", 90).absent == {"temperature": SLEW}
    assert judge.see("temperature", 21).values
    assert judge.see("temperature", 90).absent == {"temperature": SLEW}
    assert judge.see("temperature", 91).values == {"temperature": 91}


def test_after_long_silence_any_level_is_believed():
    """Nothing is known of how fast it moved while nobody looked."""
    judge = Judge()
    judge.see("temperature", 20)
    assert judge.see("temperature", 90, after_s=700).values
