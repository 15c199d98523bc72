"""What is odd about single quantities, told with the reading that shows it."""

from edge_agent.clock import ManualClock
from edge_agent.oddities import Oddities
from edge_agent.vocabulary import Reading


def readings(clock, values, every_s=10.0):
    oddities = Oddities(["temperature", "active_power", "energy_import"])
    for value in values:
        clock.advance(every_s)
        reading = Reading("cabinet", clock.stamp(), {"temperature": value})
        oddities.note(reading)
        yield reading


def test_a_jump_is_told_once_with_its_quantity():
    """When it began, and when it ended; every other reading has nothing to tell."""
    clock = ManualClock()
    told = list(readings(clock, [20.0 + number % 3 / 10 for number in range(20)] + [30.0] * 3 + [20.1, 20.2] * 5))
    events = [event for reading in told for event in reading.events]
    assert [(event["event"], event["quantity"], event["state"]) for event in events] == [
        ("jump", "temperature", "began"),
        ("jump", "temperature", "ended"),
    ]
    assert events[0]["since"] == events[1]["since"]
    assert events[0]["since"].startswith("2026-")


def test_what_is_absent_is_not_odd():
    """A device without its quantities tells nothing, and breaks nothing."""
    clock = ManualClock()
    oddities = Oddities(["temperature"])
    for _ in range(100):
        clock.advance(60)
        reading = Reading("cabinet", clock.stamp(), {}, {"temperature": "timeout"})
        oddities.note(reading)
        assert reading.events == ()
