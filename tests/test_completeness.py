"""Is everything there? Counted by somebody who knows nothing but the messages."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.broker import Broker, Credentials
from edge_agent.clock import SystemClock
from edge_agent.completeness import Completeness, Ranges
from edge_agent.listener import Listener
from edge_agent.mqtt import Message
from edge_agent.outbox import Stored
from edge_agent.receipts import Receipts


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(-2, 8))))
def test_ranges_are_a_set_of_numbers(parts):
    """Sorted, disjoint, never touching, and exactly the numbers that were put in."""
    ranges, model = Ranges(), set()
    for low, length in parts:
        ranges.add(low, low + length)
        model |= set(range(low, low + length + 1))
    runs = list(ranges)
    assert {n for low, high in runs for n in range(low, high + 1)} == model
    assert all(b[0] - a[1] > 1 for a, b in pairwise(runs))
    assert ranges.count() == len(model)
    assert all((n in ranges) == (n in model) for n in range(-1, 80))
    assert ranges.bounds() == ((min(model), max(model)) if model else None)


def test_holes_repeats_lateness_and_disorder_are_told_apart():
    """Each kind of irregularity is counted as what it is, once."""
    seen = Completeness()
    for seq, late in [(1, False), (2, False), (5, False), (4, True), (4, True), (8, False), (7, False)]:
        seen.take("a", seq, late=late, reading=True)
    assert seen.totals() == {
        "messages": 7,
        "readings": 6,
        "missing": 2,
        "duplicates": 1,
        "reordered": 1,
        "late": 1,
    }


def test_a_gap_that_was_said_is_not_missing():
    """Numbers that a gap message names are excused, within what was seen."""
    seen = Completeness()
    for seq in (10, 20):
        seen.take("a", seq, late=False, reading=True)
    seen.excuse("a", 1, 14)
    assert seen.totals()["missing"] == 5
    assert seen.by_stream()["a"]["holes"] == [(11, 19)]


@given(st.permutations(range(1, 30)), st.sets(st.integers(1, 29)))
def test_in_whatever_order_missing_is_what_did_not_come(order, left_out):
    """Any arrival order, any hole: the number of missing is exact between the first and the last."""
    seen = Completeness()
    come = [seq for seq in order if seq not in left_out]
    for seq in come:
        seen.take("a", seq, late=True, reading=False)
    expected = (max(come) - min(come) + 1 - len(come)) if come else 0
    assert seen.totals()["missing"] == expected


# --- the listener understands messages


@pytest.fixture
def listener():
    return Listener(Broker.parse("mqtt://nowhere"), Credentials(), "edge/#", SystemClock())


def message(topic: str, payload: bytes, *, retain: bool = False, user=None) -> Message:
    return Message(f"edge/ulsan/press-3/{topic}", payload, retain, False, user or {}, None)


def test_gap_pictures_and_the_past_are_understood(listener):
    """Gaps excuse, pictures count by their properties or their topic, retained messages are the past."""
    telemetry = '{{"stream":"s","seq":{},"late":false,"values":{{}}}}'
    listener.take(message("telemetry/main", telemetry.format(1).encode()))
    listener.take(message("gap", b'{"stream":"s","seq":2,"late":false,"of":"s","from":3,"to":4,"count":2}'))
    listener.take(message("evidence/eye", b"\xff\xd8jpeg", user={"stream": "s", "seq": "5"}))
    listener.take(message("evidence/eye/s/6/e1", b"\xff\xd8jpeg"))
    listener.take(message("alarm/hot", telemetry.format(99).encode(), retain=True))
    listener.take(message("telemetry/main", telemetry.format(7).encode()))
    totals = listener.completeness.totals()
    assert (totals["messages"], totals["readings"], totals["missing"]) == (5, 2, 0)


SCALARS = st.none() | st.integers() | st.text()
FIELDS = st.dictionaries(st.sampled_from(["stream", "seq", "late", "of", "from", "to"]), SCALARS)


@given(
    payload=st.binary() | (st.recursive(SCALARS, st.lists) | FIELDS).map(lambda value: json.dumps(value).encode()),
    topic=st.sampled_from(["gap", "telemetry/main", "evidence/eye/a/b/c", "agent", "x"]),
)
def test_no_message_ends_the_listening(payload, topic):
    """Whatever somebody publishes below the root, the listener goes on."""
    Listener(Broker.parse("mqtt://nowhere"), Credentials(), "edge/#", SystemClock()).take(message(topic, payload))


# --- receipts


def row(row_id: int, stream: str, seq: int) -> Stored:
    return Stored(row_id, stream, seq, 0, "t", False, 1, 0, 0, True, "")


def test_receipts_release_up_to_and_no_further():
    """Rows of that stream up to the number leave; others wait, in runs however they were sent."""
    waiting = Receipts()
    for row_id, stream, seq in [(10, "a", 1), (11, "a", 2), (15, "a", 6), (16, "a", 7), (30, "b", 1), (13, "a", 4)]:
        waiting.wait_for(row(row_id, stream, seq))
    assert sorted(waiting.take("a", 6)) == [10, 11, 13, 15]
    assert waiting.take("a", 6) == []
    assert waiting.take("c", 99) == []
    assert waiting.take("a", 99) == [16]
    assert waiting.take("b", 99) == [30]


def test_waiting_for_a_collector_that_is_away_stays_small():
    """A hundred thousand rows in order are one run."""
    waiting = Receipts()
    for n in range(100_000):
        waiting.wait_for(row(n + 5, "a", n))
    assert sum(len(runs) for runs in waiting._runs.values()) == 1
