"""A thread that fails is started again, says so once, and its neighbours never notice."""

from __future__ import annotations

import threading

from edge_agent.clock import NS, ManualClock, SystemClock
from edge_agent.health import Health
from edge_agent.schedule import Backoff, Periodic, phase
from edge_agent.worker import Worker, stop_all
from tests.brokers import until


class QuickClock(SystemClock):
    """Waits a hundredth of what it is asked."""

    def wait(self, stop: threading.Event, seconds: float) -> bool:
        return stop.wait(seconds / 100)


def test_it_is_started_again_and_the_fault_ends_with_the_first_progress():
    """Two crashes, then work: the fault stands in between and is gone once something got done."""
    health = Health(QuickClock())
    lives: list[int] = []
    during: list[str] = []

    def body(stop, progress) -> None:
        lives.append(1)
        if len(lives) < 3:
            raise RuntimeError(f"life {len(lives)}")
        during.extend(fault.reason for fault in health.faults())
        progress()
        stop.wait()

    worker = Worker("w", body, health, QuickClock())
    worker.start()
    until(lambda: len(lives) == 3 and not health.faults())
    assert during == ["RuntimeError: life 2"]
    assert health.counters()["worker.w.restarts"] == 2
    worker.ask_to_stop()
    assert worker.join(5)
    assert health.stalled() == []


def test_silence_is_noticed_and_the_end_is_not_silence():
    """A worker without progress is stalled after its time; one that ended on purpose is not."""
    clock = ManualClock()
    health = Health(clock)
    beat = health.expect("w", 30)
    clock.advance(29)
    assert health.stalled() == []
    clock.advance(2)
    assert health.stalled() == ["w"]
    beat()
    assert health.stalled() == []
    clock.advance(60)
    health.forget("w")
    assert health.stalled() == []


def test_all_are_asked_before_any_is_waited_for():
    """Stopping takes as long as the slowest, and names those that hang."""
    clock, health = SystemClock(), Health(SystemClock())
    release = threading.Event()
    fine = Worker("fine", lambda stop, _: stop.wait() and None, health, clock)
    hangs = Worker("hangs", lambda _stop, _: release.wait() and None, health, clock)
    for worker in (hangs, fine):
        worker.start()
    assert stop_all([hangs, fine], clock, 0.2) == ["hangs"]
    release.set()
    assert hangs.join(5)


def test_a_body_that_waits_for_something_else_is_woken():
    """``wake`` reaches a body that does not watch ``stop``."""
    woken = threading.Event()
    worker = Worker("w", lambda _stop, _: woken.wait() and None, Health(SystemClock()), SystemClock(), wake=woken.set)
    worker.start()
    worker.ask_to_stop()
    assert worker.join(5)


def test_ticks_are_kept_in_step_and_never_caught_up():
    """After a pause the next tick is the next of the old grid; the missed ones are counted."""
    ticks = Periodic.every(1.0, 0)
    assert ticks.is_due(0)
    assert ticks.advance(0) == 0
    assert ticks.advance(int(5.5 * NS)) == 4
    assert ticks.due_ns == 6 * NS
    assert ticks.skipped == 4


def test_phases_are_steady_and_inside_the_period():
    """The same name has the same offset, different names spread."""
    offsets = [phase(f"meter-{n}", 10.0) for n in range(100)]
    assert offsets == [phase(f"meter-{n}", 10.0) for n in range(100)]
    assert all(0 <= offset < 10 for offset in offsets)
    assert len({int(offset) for offset in offsets}) > 5


def test_backoff_doubles_to_its_cap_and_never_overflows():
    """2, 4, … 300 seconds within the jitter, after ten thousand failures too."""
    backoff = Backoff(jitter=0)
    assert [backoff.fail() for _ in range(9)] == [2, 4, 8, 16, 32, 64, 128, 256, 300]
    for _ in range(10_000):
        assert backoff.fail() == 300
    backoff.reset()
    assert backoff.fail() == 2
