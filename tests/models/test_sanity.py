"""Climate and meter sanity, and what is new for one quantity."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models import sanity
from models.novelty import HUSH, THRESHOLD, Novelty
from models.sanity import CONDENSATION, DRIFT, FLATLINE, JUMP, SPIKE, UNUSUAL, Limits, Sanity

CLIMATE = ("temperature", "relative_humidity")


def told(readings, quantities=CLIMATE, every_s=5.0, **how):
    """All changes of a row of readings at an even pace."""
    watch = Sanity(quantities, **how)
    return [
        change for step, values in enumerate(readings) for change in watch.step(values, step * every_s, step * every_s)
    ]


def climate(count, seed=0):
    """A calm room: 22 °C, 45 %, with the noise of a good sensor."""
    noise = random.Random(seed)
    return [
        {"temperature": 22 + noise.gauss(0, 0.02), "relative_humidity": 45 + noise.gauss(0, 0.1)} for _ in range(count)
    ]


def test_a_calm_room_is_never_mentioned():
    """Half a day of calm climate has nothing to tell."""
    assert told(climate(8640)) == []


def test_steam_is_found_at_its_second_reading_and_ends():
    """Hot steam for two minutes is a jump of the humidity within ten seconds, told once, and its end is told."""
    readings = climate(600)
    for step in range(300, 324):
        readings[step]["relative_humidity"] = 85.0 + step % 3
    changes = told(readings)
    assert [(change.kind, change.began) for change in changes] == [(JUMP, True), (JUMP, False)]
    assert changes[0].quantity == "relative_humidity"
    assert changes[0].since_s == 1500.0
    assert changes[0].share > 3


def test_one_reading_alone_is_a_spike():
    """A single wrong reading is a spike, told when the next one is back, and no jump."""
    readings = climate(300)
    readings[200]["temperature"] = 40.0
    changes = told(readings)
    assert [(change.kind, change.quantity) for change in changes if change.began] == [(SPIKE, "temperature")]
    assert changes[0].since_s == 1000.0


def test_a_level_that_stays_becomes_the_level():
    """A jump that lasts is told once; after half an hour it is the new level, and the way back is a jump again."""
    readings = climate(1600)
    for step in range(300, 1000):
        readings[step]["temperature"] += 6.0
    began = [(change.kind, change.since_s) for change in told(readings) if change.began]
    assert began == [(JUMP, 1500.0), (JUMP, 5000.0)]


def test_warming_up_is_no_jump():
    """A cabinet that warms by 8 K in an hour is followed by the running median."""
    readings = [{"temperature": 20 + 8 * step / 720 + 0.01 * (step % 3)} for step in range(720)]
    assert told(readings) == []


def test_flatline():
    """A voltage that stays exactly the same for ten minutes is dead; one that flickers in its last digit is not."""
    dead = told([{"voltage_l1": 231.4}] * 700, ("voltage_l1",), every_s=1.0)
    assert [(change.kind, change.began, change.since_s) for change in dead] == [(FLATLINE, True, 0.0)]
    assert told([{"voltage_l1": 231.4 + 0.1 * (step % 2)} for step in range(700)], ("voltage_l1",), every_s=1.0) == []


def test_a_machine_that_is_off_is_no_flatline():
    """Zero watts may last for ever."""
    assert told([{"active_power": 0.0}] * 9000, ("active_power",), every_s=1.0) == []


def test_a_flatline_ends_with_the_first_other_value():
    """When the sensor lives again, that is told."""
    readings = [{"frequency": 50.0}] * 2000 + [{"frequency": 50.01}]
    assert [change.began for change in told(readings, ("frequency",), every_s=1.0)] == [True, False]


def test_condensation_is_told_before_it_drips():
    """Five minutes within 2 K of the dew point; it ends only above 3 K, so that it does not flicker."""
    wet, dry = {"temperature": 20.0, "relative_humidity": 93.0}, {"temperature": 20.0, "relative_humidity": 70.0}
    between = {"temperature": 20.0, "relative_humidity": 85.0}
    limits = {name: Limits(None, None) for name in CLIMATE}
    changes = told([dry] * 10 + [wet] * 100 + [between] * 100 + [dry] * 20, limits=limits)
    assert [(change.kind, change.began) for change in changes] == [(CONDENSATION, True), (CONDENSATION, False)]
    assert changes[0].since_s == 50.0
    assert told([wet] * 55 + [dry] * 20, limits=limits) == []


def test_a_switched_load_is_no_jump():
    """Power goes from nothing to ten kilowatts and back all day: that is what machines do."""
    assert (
        told(
            [{"active_power": 10e3 + step % 7 if step % 600 < 300 else 0.0} for step in range(6000)], ("active_power",)
        )
        == []
    )


def test_what_has_no_limits_costs_nothing():
    """A device with counters only is not looked at."""
    watch = Sanity(("energy_import", "power_factor"))
    assert watch.step({"energy_import": 1.0, "power_factor": 0.9}, 0.0, 0.0) == []
    assert not watch._watches


def daily(days, seed=0):
    """Temperature with a daily course, one reading each five minutes."""
    noise = random.Random(seed)
    return [
        {"temperature": 20 + (1.5 if 96 <= step % 288 < 216 else 0.0) + noise.gauss(0, 0.05)}
        for step in range(288 * days)
    ]


@pytest.mark.parametrize(("from_step", "shape"), [(288 * 17 + 30, "night"), (288 * 17, "creep")])
def test_after_two_weeks_what_is_unusual_is_told(from_step, shape):
    """Day's warmth at night, or a level that creeps away: told, though no limit is passed. Nothing before it."""
    readings = daily(20)
    for step in range(from_step, 288 * 20):
        if shape == "night" and step < from_step + 24:
            readings[step]["temperature"] += 1.5
        if shape == "creep":
            readings[step]["temperature"] += (step - from_step) * 0.002
    began = [change for change in told(readings, ("temperature",), every_s=300.0) if change.began]
    assert began
    assert began[0].kind in (UNUSUAL, DRIFT)
    assert began[0].since_s >= from_step * 300.0


def test_in_the_first_two_weeks_novelty_is_silent():
    """Who has seen one day cannot say what is usual."""
    readings = daily(6)
    for step in range(288 * 4 + 20, 288 * 4 + 40):
        readings[step]["temperature"] += 2.0
    assert told(readings, ("temperature",), every_s=300.0) == []


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.fixed_dictionaries({}, optional={name: st.floats(-50, 150) for name in CLIMATE}), max_size=80),
    st.sampled_from([0.1, 1.0, 10.0, 60.0, 900.0]),
)
def test_beginnings_and_ends_take_turns(readings, every_s):
    """Whatever comes, and whatever is absent: each kind begins and ends in turn, and what is open has begun."""
    watch, going = Sanity(CLIMATE), set()
    for step, values in enumerate(readings):
        for change in watch.step(values, step * every_s, step * every_s):
            key = (change.quantity, change.kind)
            assert (key in going) != change.began
            assert change.since_s <= step * every_s
            (going.add if change.began else going.remove)(key)
        assert set(watch.open) == going


@settings(max_examples=30, deadline=None)
@given(cut=st.integers(20, 150), wild=st.floats(-40, 120), seed=st.integers(0, 99))
def test_sanity_does_not_look_ahead(cut, wild, seed):
    """What is told up to a moment does not depend on what comes after it."""
    readings = climate(160, seed)
    other = readings[:cut] + [{"temperature": wild, "relative_humidity": 50.0}] * (160 - cut)
    limit = (cut - 1) * 5.0
    watches = [Sanity(CLIMATE), Sanity(CLIMATE)]
    both = [
        [change for step, values in enumerate(each[:cut]) for change in watch.step(values, step * 5.0, step * 5.0)]
        for watch, each in zip(watches, (readings, other), strict=True)
    ]
    assert both[0] == both[1]
    assert all(change.since_s <= limit for change in both[0])


# --- novelty ---------------------------------------------------------------------------------------------------------


def course(count, seed=0):
    noise = random.Random(seed)
    return [100 + (40 if 96 <= step % 288 < 216 else 0) + noise.gauss(0, 3) for step in range(count)]


def news(values, threshold=THRESHOLD, every_s=300.0):
    detector = Novelty(threshold)
    return [step for step, value in enumerate(values) if detector.step(value, step * every_s).news]


@pytest.mark.parametrize("what", ["spike", "wrong hour", "creep", "collapse"])
def test_news_of_all_kinds(what):
    """At twice what happens now and then: a spike, another hour's value, a creep, a collapse; calm days are none."""
    values = course(4000)
    at = 3000
    for step in range(at, 4000):
        if what == "spike" and step == at:
            values[step] += 120
        elif what == "wrong hour" and step < at + 12:
            values[step] = 140 if values[step] < 120 else 100
        elif what == "creep":
            values[step] += 0.2 * (step - at)
        elif what == "collapse":
            values[step] = 0
    found = [step for step in news(values, 2.0) if step >= 600]
    assert found
    assert all(step >= at for step in found)
    assert found[0] <= at + (600 if what == "creep" else 12)


def test_one_event_is_one_piece_of_news():
    """A burst of thirty high values is told once, and only a value twice as far off is told again."""
    values = course(4000)
    for step in range(3000, 3000 + 30):
        values[step] += 100
    assert len([step for step in news(values) if 3000 <= step < 3000 + HUSH]) <= 2


@settings(max_examples=20, deadline=None)
@given(scale=st.floats(1e-6, 1e6), offset=st.floats(-1e3, 1e3), seed=st.integers(0, 50))
def test_novelty_knows_no_unit(scale, offset, seed):
    """Another unit and another zero change no score but by rounding."""
    values = course(900, seed)
    values[700] += 90
    plain, other = Novelty(), Novelty()
    for step, value in enumerate(values):
        expected, found = plain.step(value, step * 300.0), other.step((value + offset) * scale, step * 300.0)
        assert found.score == pytest.approx(expected.score, rel=1e-3, abs=1e-3)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.floats(-1e9, 1e9), max_size=400))
def test_any_numbers_have_a_score(values):
    """Whatever finite numbers come, a score from 0 to 20 goes; a constant is never news."""
    detector = Novelty()
    for step, value in enumerate(values):
        assert 0.0 <= detector.step(value, step * 60.0).score <= 20.0
    assert news([7.0] * 500) == []


def test_limits_are_in_the_units_of_the_vocabulary():
    """Every quantity with limits is one that the product knows."""
    from edge_agent.vocabulary import QUANTITIES

    assert set(sanity.LIMITS) <= set(QUANTITIES)
