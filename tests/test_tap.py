"""Every reading, for whoever asks often enough."""

from edge_agent.clock import ManualClock
from edge_agent.tap import Tap
from edge_agent.vocabulary import Reading


def test_a_listener_misses_nothing_between_two_questions():
    """From its first question on; several listeners do not take from each other."""
    clock = ManualClock()
    tap = Tap(clock)
    tap.offer(Reading("meter", clock.stamp(), {"power": 0.0}))
    assert tap.take("a") == tap.take("b") == []
    for number in range(3):
        tap.offer(Reading("meter", clock.stamp(), {"power": float(number)}))
    assert [reading.values["power"] for reading in tap.take("a")] == [0.0, 1.0, 2.0]
    assert tap.take("a") == []
    assert len(tap.take("b")) == 3


def test_who_has_gone_is_forgotten():
    """A listener that was cut off costs nothing for long, and never more than a bounded number of readings."""
    clock = ManualClock()
    tap = Tap(clock)
    tap.take("a")
    for _ in range(6000):
        tap.offer(Reading("meter", clock.stamp(), {}))
    assert len(tap.take("a")) == 5000
    clock.advance(31)
    tap.offer(Reading("meter", clock.stamp(), {}))
    assert tap.take("a") == []
