"""What goes over MQTT: valid JSON whatever happened, with the time that is true."""

from __future__ import annotations

import json
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from edge_agent.clock import Stamp, iso
from edge_agent.outbox import ALARM, EVIDENCE, GAP, Loss, Row, Stored, losses, ranges, retell
from edge_agent.payload import (
    TelemetryWriter,
    alarm_row,
    envelope,
    evidence_row,
    fast_iso,
    number_format,
    properties,
    restamp,
    verdict_row,
)
from edge_agent.vocabulary import QUANTITIES, AlarmChange, Evidence, Quantity, Reading, Verdict

AT = Stamp(5_000_000_000, 1_795_153_862_317, synced=True)


def telemetry_row(reading: Reading, formats: dict[str, str]) -> Row:
    return TelemetryWriter({reading.device: formats}).row(reading)


def stored(row: Row, **changes) -> Stored:
    made = Stored(9, "abc", 7, row.kind, row.topic, row.retain, 1, AT.mono_ns, AT.wall_ms, AT.synced, row.body)
    return made._replace(**changes)


def whole(row: Row, *, late: bool = False) -> dict:
    return json.loads(envelope(stored(row), AT.wall_ms, synced=True, late=late))


def test_a_telemetry_message_as_the_design_shows_it():
    """Envelope first, then values and absences, compact."""
    row = telemetry_row(
        Reading("main", AT, {"active_power": 1234.5678}, {"current_l3": "timeout"}), {"active_power": "%.1f"}
    )
    assert row.topic == "telemetry/main"
    assert envelope(stored(row), AT.wall_ms, synced=True, late=False) == (
        b'{"stream":"abc","seq":7,"at":"2026-11-20T05:51:02.317Z","clock":"synced","late":false,'
        b'"values":{"active_power":1234.6},"absent":{"current_l3":"timeout"}}'
    )


@given(
    values=st.dictionaries(st.text(max_size=5), st.floats(), max_size=5),
    absent=st.dictionaries(st.text(max_size=5), st.text(max_size=5), max_size=3),
)
def test_whatever_a_reading_holds_the_message_is_json_without_nan(values, absent):
    """NaN and infinity become absent, odd text survives, and a character is a byte."""
    row = telemetry_row(Reading("main", AT, values, absent), dict.fromkeys(values, "%.3f"))
    fields = json.loads(f"{{{row.body}}}", parse_constant=lambda word: 1 / 0)
    assert set(fields["values"]) | set(fields.get("absent", {})) == set(values) | set(absent)
    assert row.body.isascii()


@given(cause=st.text(), detail=st.floats())
def test_an_alarm_may_say_anything(cause, detail):
    """Any text of a cause, lone surrogates of a broken file name included, can be stored and sent."""
    row = alarm_row(AlarmChange("hot", AT, "normal", "high", AT, cause, {"value": detail}))
    fields = whole(row)
    assert (row.kind, row.retain, row.topic) == (ALARM, True, "alarm/hot")
    assert fields["cause"] == cause
    assert fields["since"] == iso(AT.wall_ms)
    row.body.encode()


def test_a_verdict_leaves_out_what_is_not_known():
    """No score means no score, not null and not zero; NaN is not known either."""
    fields = whole(verdict_row(Verdict("eye", AT, "not-inspected", "rule", float("nan"), reason="black")))
    assert "score" not in fields
    assert (fields["label"], fields["reason"], fields["decided_by"]) == ("not-inspected", "black", "rule")


def test_a_picture_travels_as_itself():
    """The row names the file; stream, seq, time and id go as user properties."""
    row = evidence_row(Evidence("eye", AT, "e1", "/var/e1.jpg", "ff", 10))
    assert (row.kind, row.topic) == (EVIDENCE, "evidence/eye")
    assert properties(stored(row), AT.wall_ms, "e1") == [
        ("stream", "abc"),
        ("seq", "7"),
        ("at", iso(AT.wall_ms)),
        ("id", "e1"),
    ]


@given(st.integers(0, 4_102_444_800_000))
def test_the_quick_time_is_the_slow_time(wall_ms):
    """fast_iso equals iso for every millisecond of this century."""
    assert fast_iso(wall_ms) == iso(wall_ms)


def test_only_rows_of_an_unsynced_clock_are_restamped():
    """With the boot's offset known an unsynced row gets monotonic + offset; a synced one keeps its own."""
    row = stored(telemetry_row(Reading("main", AT, {}), {}), synced=False, wall_ms=0)
    assert restamp(row, None) == (0, False)
    assert restamp(row, 1_000_000) == (1_005_000, True)
    assert restamp(row._replace(synced=True, wall_ms=42), 1_000_000) == (42, True)


def test_a_number_is_written_as_its_quantity_has_it():
    """Known units to their decimals, float32 to nine digits, anything else without loss."""
    assert number_format(QUANTITIES["power_factor"]) == "%.5f"
    assert number_format(QUANTITIES["active_power"]) == "%.3f"
    assert number_format(Quantity("flow", "L/min", digits=9)) == "%.9g"
    assert number_format(Quantity("pieces", "")) == "%r"


def test_a_loss_is_a_gap_row():
    """Stream, first, last, count and reason, as the integrator reads them."""
    row = Loss("abc", 3, 9, 7, "quota").row(AT)
    assert (row.kind, row.topic) == (GAP, "gap")
    assert json.loads(f"{{{row.body}}}") == {"of": "abc", "from": 3, "to": 9, "count": 7, "reason": "quota"}


@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(1, 30)), unique=True))
def test_losses_cover_exactly_what_was_lost(lost):
    """Runs, taken apart again, are the same numbers; merged, they cover them and count them."""
    lost.sort()
    apart = [(loss.stream, seq) for loss in losses(lost, "x") for seq in range(loss.first, loss.last + 1)]
    assert apart == lost
    merged = losses(lost, "x", merge=True)
    assert sum(loss.rows for loss in merged) == len(lost)
    assert len(merged) == len({stream for stream, _ in lost})
    assert set(lost) <= {(loss.stream, seq) for loss in merged for seq in range(loss.first, loss.last + 1)}


@given(st.sets(st.integers(-50, 50)))
def test_ranges_are_the_set(numbers):
    """Contiguous runs in order, taken apart again, are the same set."""
    runs = ranges(numbers)
    assert [n for low, high in runs for n in range(low, high + 1)] == sorted(numbers)
    assert all(b[0] - a[1] > 1 for a, b in pairwise(runs))


def test_gaps_told_again_cover_what_they_said_and_themselves():
    """Two gaps about one stream become one, and their own numbers are in it."""
    first, second = Loss("abc", 3, 9, 7, "quota").row(AT), Loss("old", 1, 2, 2, "damaged").row(AT)
    told = retell([("abc", 10, first.body), ("abc", 11, second.body)])
    assert told == [Loss("abc", 3, 11, 9, "several"), Loss("old", 1, 2, 2, "several")]
