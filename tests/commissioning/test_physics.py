"""What physics says of a window of readings: laws obeyed, wires named, ratios proven, healthy ones left alone."""

from __future__ import annotations

from fractions import Fraction

import pytest

from edge_agent.commissioning import physics, ratio, wiring
from edge_agent.commissioning.finding import GOOD, NOT_JUDGED, UNSURE, WRONG, Snapshot
from edge_agent.commissioning.meter import Facts, examine
from tests.commissioning.far_ends import CYCLE, STEADY

SWAPPED = {"l1-l2": [1, 0, 2], "l2-l3": [0, 2, 1], "l1-l3": [2, 1, 0]}


def state(checks, name):
    return next(check.state for check in checks if name in check.name)


def test_a_healthy_meter_obeys_every_law(far):
    """Nothing is wrong, everything could be judged, and the clamp meter agrees."""
    window = far.window({"machine": STEADY})
    found = examine(window, Facts(clamps={"l1": window[3].values["current_l1"]}))
    assert [check for check in found.checks if check.state != GOOD] == []
    assert found.findings == ()
    assert found.is_proven


@pytest.mark.parametrize("pair", SWAPPED)
@pytest.mark.parametrize("where", ["carries", "volts"])
@pytest.mark.parametrize("drop", [(), ("reactive_power",)])
def test_exchanged_phases_are_named(far, pair, where, drop):
    """Which two, whichever wires were exchanged, whether the meter gives reactive power or not."""
    window = far.window({"machine": CYCLE}, {where: SWAPPED[pair]}, drop=drop)
    (finding,) = wiring.examine(window, least_a=0.3)
    assert (finding.code, finding.certain) == (f"ct-swapped-{pair}", True)
    assert pair[:2].upper() in finding.sentence
    assert "exchange the current transformers" in finding.remedy.lower()


@pytest.mark.parametrize("turned", [(0,), (1,), (2,), (0, 2)])
def test_reversed_transformers_are_named(far, turned):
    """One or two that look the other way; two wires to exchange."""
    signs = [-1 if index in turned else 1 for index in range(3)]
    window = far.window({"machine": CYCLE}, {"signs": signs})
    (finding,) = wiring.examine(window, least_a=0.3, consuming=True)
    assert finding.code == "ct-reversed-" + "-".join(f"l{index + 1}" for index in turned)
    assert finding.certain
    assert "S1 and S2" in finding.remedy


def test_all_reversed_is_asked_and_then_inverted(far):
    """A machine may feed back; only when a person denies it, the config is to invert."""
    window = far.window({"machine": CYCLE | {"vars": 500}}, {"signs": [-1, -1, -1]})
    (asked,) = wiring.examine(window, least_a=0.3)
    (said,) = wiring.examine(window, least_a=0.3, consuming=True)
    assert not asked.certain
    assert "--consuming" in asked.remedy
    assert said.code == "ct-reversed-l1-l2-l3"
    assert said.settings == {"invert": True}


@pytest.mark.parametrize(
    "load",
    [
        {"machine": CYCLE | {"kind": "regen"}},
        {"machine": STEADY | {"vars": -9000}},
        {"machine": STEADY, "single": [[9000, 100], [200, 2500], [0, 0]]},
        {"single": [[3000, 0], [0, 0], [0, 0]]},
        {"between": [[1500, 8000], [0, 0], [0, 0]]},
        {"machine": STEADY | {"watts": 900, "vars": 7000}},
        {"machine": CYCLE, "single": [[0, 0], [-9000, 0], [0, 0]]},
    ],
    ids=["braking", "capacitors", "unequal", "one-phase", "between-phases", "idle-motor", "solar-on-one-phase"],
)
def test_healthy_installations_are_never_blamed(far, load):
    """Whatever looks odd but is right may be asked about, never called wrong."""
    found = examine(far.window(load), Facts())
    assert [finding.code for finding in found.findings if finding.certain] == []
    assert [check.name for check in found.checks if check.state == WRONG] == []


def test_too_little_load_is_said(far):
    """A machine at rest proves nothing: put load on."""
    window = far.window({"machine": STEADY | {"watts": 20, "vars": 5}})
    found = examine(window, Facts())
    assert state(found.checks, "load on") == UNSURE
    assert found.is_good
    assert not found.is_proven


def test_a_clamp_meter_gives_the_ratio(far):
    """The reading names the ratio that transformers are made with, and the nameplate wins where both are near."""
    window = far.window({"machine": STEADY}, {"ratio": [40.0, 40.0, 40.0]})
    true = window[0].values["current_l2"] * 40
    check, (finding,) = ratio.transformers(window, {"l2": true * 1.02}, 1.0, None)
    assert (check.state, finding.settings) == (WRONG, {"ct_ratio": 40.0})
    _, (named,) = ratio.transformers(window, {"l2": true}, 1.0, Fraction(40))
    assert "nameplate" in named.remedy


def test_one_other_transformer_is_found_with_two_clamp_readings(far):
    """Where only one phase is off, that transformer is named."""
    window = far.window({"machine": STEADY}, {"ratio": [1.0, 2.0, 1.0]})
    amps = {phase: window[0].values[f"current_{phase}"] for phase in ("l1", "l2", "l3")}
    _, (finding,) = ratio.transformers(window, {"l1": amps["l1"], "l2": 2 * amps["l2"], "l3": amps["l3"]}, 1.0, None)
    assert finding.code == "ct-ratio-l2"


def test_a_clamp_reading_under_a_moving_load_proves_nothing(far):
    """It asks for a steady load instead of inventing a ratio."""
    _, (finding,) = ratio.transformers(far.window({"machine": CYCLE}), {"l1": 80.0}, 1.0, None)
    assert not finding.certain
    assert "steady" in finding.remedy


@pytest.mark.parametrize(("text", "value"), [("200/5", 40), ("1000 A / 1 A", 1000), ("75:5", 15), ("150/5A", 30)])
def test_nameplates_are_read(text, value):
    """As people write them."""
    assert ratio.nameplate(text) == value


@pytest.mark.parametrize("text", ["40", "200/0", "a/b", ""])
def test_other_nameplates_are_refused(text):
    """With an example of a right one."""
    with pytest.raises(ValueError, match="200/5"):
        ratio.nameplate(text)


@pytest.mark.parametrize(
    ("text", "value"), [("l1=41.2A", ("l1", 41.2)), ("L3=900mA", ("l3", 0.9)), ("l2=1,5 kA", ("l2", 1500))]
)
def test_clamp_readings_are_read(text, value):
    """With unit, in both decimal marks."""
    assert ratio.clamp_reading(text) == value


def test_decimal_points_are_found(far):
    """Ten times too many volts, a thousandth of the power."""
    window = [
        Snapshot(snap.at_s, {
            name: value * (10 if name.startswith("voltage") else 1) for name, value in snap.values.items()
        })
        for snap in far.window({"machine": STEADY}, count=4)
    ]  # fmt: skip
    assert ratio.decades(window)[0].code == "scale-voltage"
    window = [
        Snapshot(snap.at_s, {
            name: value / (1000 if name.startswith("active") else 1) for name, value in snap.values.items()
        })
        for snap in far.window({"machine": STEADY}, count=4)
    ]  # fmt: skip
    (finding,) = ratio.decades(window)
    assert finding.code == "scale-active_power"
    assert "1000" in finding.remedy


def test_voltage_wires_on_one_phase_are_seen(far):
    """Two wires on the same phase: nothing between them."""
    window = far.window({"machine": STEADY}, {"volts": [0, 0, 2]})
    check = physics.line_to_line(window)
    assert check.state == WRONG
    assert "instead of" in check.evidence


def test_energy_is_compared_where_it_moves(far):
    """The counter against the integral of the power; a counter that stands still is not judged."""
    window = far.window({"machine": STEADY}, count=60)
    assert physics.energy(window).state == GOOD
    thousandth = [Snapshot(s.at_s, {**s.values, "energy_import": s.values["energy_import"] / 1000}) for s in window]
    assert physics.energy(thousandth).state == UNSURE
    assert physics.energy(window[:2]).state == NOT_JUDGED


def test_a_coarse_meter_is_not_called_wrong():
    """Steps of 2 kW beside 16 kW explain a sum that does not fit."""
    values = {"voltage": 230.0, "current": 24.0}
    snap = Snapshot(0.0, {
        **{f"{kind}_{phase}": value for kind, value in values.items() for phase in ("l1", "l2", "l3")},
        **{f"active_power_{phase}": 6000.0 for phase in ("l1", "l2", "l3")}, "active_power": 16000.0,
    })  # fmt: skip
    coarse = {name: 2000.0 for name in snap.values if name.startswith("active_power")}
    assert state(physics.checks([snap] * 5), "P1 + P2 + P3") == WRONG
    assert state(physics.checks([snap] * 5, resolution=coarse), "P1 + P2 + P3") == GOOD
