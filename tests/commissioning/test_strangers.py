"""Meters that nobody has a table of: what a search proposes reads the truth later, or it says that it found nothing."""

from __future__ import annotations

import random

import pytest

from bench import strangers
from edge_agent.commissioning.unknown import hot_places, search


def first(**wanted):
    """The first seeded stranger in round places that is as wanted."""
    for seed in range(400):
        found = strangers.Stranger(random.Random(f"like/{seed}"))
        kind = wanted.get("kind", found.load.kind)
        if found.phases == wanted.get("phases", 3) and found.load.kind == kind and found.rows[0].at % 0x100 == 0:
            names = {row.quantity for row in found.rows}
            if "power_factor_l1" in names and "apparent_power_l1" in names and not found.strict:
                found.around = wanted.get("around", "holes-zero")
                found.functions = wanted.get("functions", "one")
                return found
    pytest.fail("no such stranger")


def examine(stranger):
    """(what is wrong with the proposal, the proposal)."""
    stranger.fill()
    most = max(range(stranger.phases), key=lambda phase: stranger.load.amps[phase])
    clamp = {f"l{most + 1}": stranger.truth[f"current_l{most + 1}"]}
    layout, _ = search(stranger.read, stranger.clock, clamp, limit_s=180.0, hot=hot_places())
    return strangers.problems(stranger, layout, clamped=True), layout


@pytest.mark.parametrize("kind", ["machine", "motor", "solar", "one-solar", "idle-phase"])
def test_under_any_load_its_values_are_found(kind):
    """Machines, idle motors, energy that flows back on all phases or on one, a phase without load."""
    wrong, layout = examine(first(kind=kind))
    assert not wrong
    assert layout.is_enough


def test_a_single_phase_meter_is_one():
    """Its quantities have no phase in their names, as in the tables that ship."""
    wrong, layout = examine(first(phases=1, kind="machine"))
    assert not wrong
    assert {"voltage", "current", "active_power"} <= layout.rows.keys()


@pytest.mark.parametrize(("around", "functions"), [("zeros", "mirror"), ("holes-zero", "both")])
def test_a_meter_that_serves_every_address_is_searched(around, functions):
    """Registers that say nothing cost little, and what is among them is found."""
    wrong, _ = examine(first(around=around, functions=functions))
    assert not wrong


def test_most_strangers_are_found():
    """Six of a random kind each; nobody is found after more than three minutes of a 9600 baud line."""
    missed = []
    good, took = strangers.run(20261120, 6, missed.append)
    assert good >= 5, missed
    assert max(took) < 200


def test_numbers_that_mean_nothing_are_no_meter():
    """Random words that never move are never proposed."""
    words = random.Random(5)
    memory = {(fc, at): words.randrange(65536) for fc in (3, 4) for at in range(60)}
    stranger = first()

    def read(fc, at, count):
        stranger.spend(0.05)
        if at + count > 60:
            raise strangers.RefusedError(1, 2)
        return b"".join(memory[fc, place].to_bytes(2, "big") for place in range(at, at + count))

    layout, scan = search(read, stranger.clock, {}, limit_s=20.0, hot=[(4, 0)])
    assert layout is None or not layout.is_enough
    assert scan.regions
