"""A minute in five numbers per quantity."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent import history
from edge_agent.clock import Stamp
from edge_agent.counters import Mark
from edge_agent.history import MINUTE_MS, MinuteAggregates, merged
from edge_agent.vocabulary import Origin, Reading


def reading(wall_ms: int, device: str = "main", **values: float) -> Reading:
    return Reading(device, Stamp(0, wall_ms, synced=True), values)


def bodies(rows) -> list[tuple[str, int, dict]]:
    return [(device, minute, json.loads(body)) for device, minute, body in rows]


def test_min_mean_max_last_and_count():
    """The five numbers of a minute, once it is over."""
    minutes = MinuteAggregates()
    for second, value in enumerate((3.0, 1.0, 5.0, 2.0)):
        minutes.add(reading(10 * MINUTE_MS + second * 1000, p=value))
    assert minutes.take(10 * MINUTE_MS + 59_999) == []
    assert bodies(minutes.take(11 * MINUTE_MS)) == [("main", 10, {"p": [1.0, 2.75, 5.0, 2.0, 4]})]
    assert minutes.take(12 * MINUTE_MS) == []


def test_what_was_absent_is_not_counted():
    """A quantity that was absent all the minute is not in its row; a device without values has none."""
    minutes = MinuteAggregates()
    minutes.add(reading(0, p=1.0))
    minutes.add(reading(1000))
    minutes.add(reading(0, device="dead"))
    assert bodies(minutes.close_all()) == [("main", 0, {"p": [1.0, 1.0, 1.0, 1.0, 1]})]


def test_a_new_minute_closes_the_old_one():
    """Also when the clock is set back, each reading counts in the minute of its own stamp."""
    minutes = MinuteAggregates()
    minutes.add(reading(5 * MINUTE_MS, p=1.0))
    minutes.add(reading(6 * MINUTE_MS, p=2.0))
    minutes.add(reading(5 * MINUTE_MS + 1, p=3.0))
    assert [(minute, body["p"][3]) for _, minute, body in bodies(minutes.close_all())] == [(5, 1.0), (6, 2.0), (5, 3.0)]


def test_what_could_not_be_written_waits_within_bounds(monkeypatch):
    """Rows given back come again with the next, oldest first; beyond the bound the oldest go."""
    monkeypatch.setattr(history, "_CLOSED_MAX", 3)
    minutes = MinuteAggregates()
    for minute in range(10):
        minutes.add(reading(minute * MINUTE_MS, p=1.0))
    rows = minutes.take(20 * MINUTE_MS)
    assert [row[1] for row in rows] == [7, 8, 9]
    minutes.give_back(rows)
    minutes.add(reading(10 * MINUTE_MS, p=1.0))
    assert [row[1] for row in minutes.take(20 * MINUTE_MS)] == [8, 9, 10]


@given(st.lists(st.integers(-1000, 1000), min_size=2, max_size=20), st.integers(1, 19))
def test_two_parts_of_a_minute_are_the_whole(values, cut):
    """Cut anywhere, the merged parts are the minute that was never cut."""
    cut = min(cut, len(values) - 1)

    def body(part) -> str:
        minutes = MinuteAggregates()
        for value in part:
            minutes.add(reading(0, p=float(value)))
        return minutes.close_all()[0][2]

    whole, both = json.loads(body(values))["p"], json.loads(merged(body(values[:cut]), body(values[cut:])))["p"]
    assert both == pytest.approx(whole, abs=1e-5)


def test_with_a_minute_go_the_marks_of_its_counters():
    """They stand where the closed minutes end, not where the open one is: no energy falls between."""
    minutes = MinuteAggregates({"main": ["e"]})
    minutes.add(Reading("main", Stamp(0, 1000, synced=True), {"e": 7.0, "p": 1.0}, origin=Origin("table", "A")))
    minutes.add(Reading("main", Stamp(0, 2000, synced=False), {"p": 1.0}))
    assert minutes.marks() == []
    minutes.add(reading(MINUTE_MS, e=9.0))
    assert len(minutes.take(MINUTE_MS)) == 1
    assert minutes.marks() == [("main", "e", Mark(7.0, 1000, True, Origin("table", "A")))]
