"""Line anomaly: what is learnt from normal running, and how a line is judged moment by moment."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_agent.errors import ModelError
from edge_agent.vocabulary import ANOMALY, NORMAL, UNKNOWN
from models.anomaly import LineDetector, Parameters
from models.case import CLOSED, OPENED, Case
from models.deviation import LARGEST, Deviations, Holding, rest, rows
from models.train.alignment import align
from models.train.line import fit_line
from models.train.tails import most_events, student_limit, student_tail
from models.train.wander import independent_looks

NAMES = ("main.active_power", "main.current", "cabinet.temperature")
MINUTES = 20


class Largest:
    """The line's network, in NumPy: what the ONNX graph computes, without a runtime."""

    def __init__(self, count):
        self._count = count

    def run(self, feeds):
        contributions = np.abs(feeds["rows"]).reshape(1, -1, self._count).max(axis=1)
        return {"contributions": contributions, "score": contributions.max(axis=1, keepdims=True)}


def normal(seconds, seed=0):
    """A line whose load changes at random: power and current go together, temperature is only noise around 30 °C."""
    random = np.random.default_rng(seed)
    load = np.repeat(random.uniform(0.8, 1.2, seconds // 20 + 1), 20)[:seconds]
    noise = random.normal(0, 1, (3, seconds))
    return np.stack([1000 * load + 3 * noise[0], 5 * load + 0.02 * noise[1], 30 + 0.1 * noise[2]], axis=1)


def fitted(values, names=NAMES, start=0.0, **how):
    times = start + np.arange(len(values), dtype=float)
    return fit_line(align({name: (times, values[:, index]) for index, name in enumerate(names)}, 1.0), **how)


@pytest.fixture(scope="module")
def fit():
    return fitted(normal(MINUTES * 60))


def detector_of(fit, **changes):
    return LineDetector(fit.quantities, {**fit.parameters, **changes}, 1.0, Largest(len(fit.quantities)))


def judged(detector, values, start=0.0, names=NAMES):
    """One judgement per row; NaN: this quantity had no reading."""
    said = []
    for step, row in enumerate(values):
        for name, value in zip(names, row, strict=True):
            if not np.isnan(value):
                detector.see(name, float(value), start + step)
        said.append(detector.judge(start + step))
    return said


# --- normal and not normal -------------------------------------------------------------------------------------------


def test_normal_running_is_normal(fit):
    """An hour of the same kind of running opens no case."""
    said = judged(detector_of(fit), normal(3600, seed=1))
    assert {each.label for each in said[80:]} == {NORMAL}


@pytest.mark.parametrize(("quantity", "shift"), [(0, 120.0), (1, -0.6), (2, 1.5)])
def test_what_is_off_is_named(fit, quantity, shift):
    """A shift of one quantity opens one case within half a minute, and that quantity is named first."""
    values = normal(600, seed=2)
    values[300:450, quantity] += shift
    said = judged(detector_of(fit), values)
    opened = [step for step, each in enumerate(said) if each.details.get("case") == OPENED]
    assert len(opened) == 1
    assert 300 < opened[0] < 330
    details = said[opened[0]].details
    assert details["off"][0]["quantity"] in (NAMES[:2] if quantity < 2 else NAMES[2:])
    assert 300 <= details["since_s"] <= opened[0]
    assert said[449].label == ANOMALY
    assert said[-1].label == NORMAL


def test_quantities_that_go_together_may_move_but_not_alone(fit):
    """A load as high as any is normal; the current of a low load at the power of a high one is not."""
    together, alone = normal(400, seed=3), normal(400, seed=3)
    together[200:, 0], together[200:, 1] = 1180.0, 5.9
    alone[200:, 0], alone[200:, 1] = 1180.0, 4.6
    assert {each.label for each in judged(detector_of(fit), together)[200:]} == {NORMAL}
    said = judged(detector_of(fit), alone)
    assert ANOMALY in {each.label for each in said[200:]}
    case = next(each for each in said if each.details.get("case") == OPENED)
    assert {case.details["off"][0]["quantity"], case.details["off"][1]["quantity"]} == set(NAMES[:2])


def test_a_few_readings_alone_are_no_case(fit):
    """Two readings in a row, however far off, are no case of the machine; twenty are one."""
    for lasting, opened in ((1, 0), (2, 0), (20, 1)):
        values = normal(400, seed=5)
        values[200 : 200 + lasting, 2] += 50.0
        said = judged(detector_of(fit), values)
        assert sum(each.details.get("case") == OPENED for each in said) == opened


@pytest.mark.parametrize("quantity", range(8))
def test_of_many_quantities_the_right_one_is_named(quantity):
    """Eight that have nothing to do with each other, one is off by three of its standard deviations: it is first."""
    names = tuple(f"rig.q{index}" for index in range(8))
    random = np.random.default_rng(quantity)
    size = 10.0 ** np.arange(-3, 5)
    fit = fitted(size * random.normal(10, 1, (900, 8)), names=names)
    values = size * random.normal(10, 1, (400, 8))
    values[200:, quantity] -= 3.0 * size[quantity]
    case = next(each for each in judged(detector_of(fit), values, names=names) if each.details.get("case") == OPENED)
    assert (case.details["off"][0]["quantity"], case.details["off"][0]["direction"]) == (names[quantity], "low")


def test_coming_back_to_where_it_was_for_long_is_not_off():
    """What crept away and was followed may return at once; what leaves for where it never was may not."""
    for after, off in ((0.0, False), (2.0, True)):
        state = Deviations(1, [6.0], [80.0])
        for step, value in enumerate([*[0.0] * 1000, *np.linspace(0, 1, 400), *[after] * 30]):
            own = state.advance(np.array([value]), float(step))
            row = rows(own, np.zeros((1, 1, 1)), np.array([[[0.5], [0.0]]]), away=state.away)
            state.learn(abs(row[0]) < 1)
        assert abs(own[0, 0]) > 0.5
        assert (abs(row[0]) >= 1) == off


def test_what_wanders_gets_wider_limits_than_its_noise_says():
    """Of two with the same noise the one that wanders too is given more room than its spread alone would ask for."""
    random = np.random.default_rng(3)
    still = random.normal(0, 1, 1200)
    wandering = still + np.convolve(random.normal(0, 1, 1260), np.ones(61) / 61**0.5, "valid")
    limits = np.array(fitted(np.column_stack([still, wandering]), names=("still", "wandering")).parameters["limits"])
    assert limits[0, 0, 1] > 3.0 * limits[0, 0, 0]


def test_direction_is_said(fit):
    """A quantity that fell is low, one that rose is high."""
    for shift, direction in ((2.0, "high"), (-2.0, "low")):
        values = normal(300, seed=4)
        values[150:, 2] += shift
        case = next(each for each in judged(detector_of(fit), values) if each.details.get("case") == OPENED)
        assert case.details["off"][0]["direction"] == direction


def test_drift_of_the_baseline_is_followed(fit):
    """A slow warming of 0.4 K in an hour, far beyond the limit in all, opens no case: what is not suspect is learnt."""
    values = normal(3600, seed=5)
    values[:, 2] += np.linspace(0, 0.4, 3600)
    assert np.array(fit.parameters["limits"])[0, 0, 2] < 0.2
    assert ANOMALY not in {each.label for each in judged(detector_of(fit), values)}


def test_a_long_calibration_sees_what_creeps():
    """Calibrated on 40 minutes there is a slower baseline too, and the same warming is found."""
    values = normal(3600, seed=5)
    values[1200:, 2] += np.linspace(0, 1, 2400)
    fit = fitted(normal(2400))
    assert fit.parameters["slow_s"] == [80.0, 160.0, 600.0]
    case = next(each for each in judged(detector_of(fit), values) if each.details.get("case") == OPENED)
    assert case.details["off"][0]["quantity"] == NAMES[2]


def test_a_fault_does_not_become_normal_by_lasting(fit):
    """A shift of two hours is one case of two hours: what is suspect is not learnt."""
    values = normal(7600, seed=6)
    values[300:7500, 2] += 2.0
    said = judged(detector_of(fit), values)
    assert all(each.label == ANOMALY for each in said[330:7500])
    assert sum(each.details.get("case") == OPENED for each in said) == 1


def test_the_new_normal_can_be_accepted(fit):
    """After ``accept`` the case is closed, and stays so at the new level."""
    values = normal(900, seed=7)
    values[300:, 2] += 2.0
    detector = detector_of(fit)
    assert judged(detector, values[:500])[-1].label == ANOMALY
    detector.accept()
    assert {each.label for each in judged(detector, values[500:], start=500.0)} == {NORMAL}


# --- what is not known -----------------------------------------------------------------------------------------------


def test_before_the_baselines_have_formed_nothing_is_decided(fit):
    """The first 80 seconds are unknown, with a score of 0; the first verdict comes right after."""
    said = judged(detector_of(fit), normal(100, seed=8))
    assert {each.label for each in said[:80]} == {UNKNOWN}
    assert {each.score for each in said[:80]} == {0.0}
    assert said[81].label == NORMAL


def test_right_after_the_calibration_it_goes_on_at_once():
    """``resume`` takes the state of the calibration's end when it is recent, and only then."""
    values = normal(900)
    fit = fitted(values[:600])
    near, far = detector_of(fit), detector_of(fit)
    assert near.resume(1.0, 600.0)
    assert not far.resume(4000.0, 5000.0)
    assert judged(near, values[600:], start=600.0)[0].label == NORMAL
    assert judged(far, values[600:], start=5000.0)[0].label == UNKNOWN


def test_an_absent_quantity_is_neutral(fit):
    """Without the current the rest is judged on: no case by its absence, and the fault of another is still found."""
    values = normal(600, seed=9)
    values[200:, 1] = np.nan
    said = judged(detector_of(fit), values)
    assert {each.label for each in said[80:]} == {NORMAL}
    assert said[-1].details["absent"] == ["main.current"]
    values[400:, 2] += 2.0
    case = next(each for each in judged(detector_of(fit), values) if each.details.get("case") == OPENED)
    assert case.details["off"][0]["quantity"] == NAMES[2]


def test_too_many_absent_quantities_are_unknown_and_an_open_case_stays(fit):
    """With two of three away nothing is decided; the case that was open before goes on when they are back."""
    values = normal(600, seed=10)
    values[200:, 2] += 2.0
    values[300:340, :2] = np.nan
    said = judged(detector_of(fit), values)
    assert {each.label for each in said[310:340]} == {UNKNOWN}
    assert said[299].label == ANOMALY
    assert said[355].label == ANOMALY
    assert said[355].details["since_s"] == said[299].details["since_s"]


def test_one_reading_in_seven_missing_does_not_blind(fit):
    """A line that loses every seventh reading is judged all the same, and its fault is found."""
    values = normal(600, seed=18)
    values[400:, 2] += 2.0
    detector = detector_of(fit)
    said = []
    for step, row in enumerate(values):
        for name, value in zip(NAMES, row, strict=True):
            detector.see(name, None if step % 7 == 0 else float(value), float(step))
        said.append(detector.judge(float(step)))
    known = [each.label for step, each in enumerate(said) if step >= 200 and step % 7]
    assert UNKNOWN not in known
    assert said[-2].details["off"][0]["quantity"] == NAMES[2]


def test_a_value_is_not_believed_for_longer_than_its_hold():
    """The last value stands until it is too old, and an explicit absence ends it at once."""
    holding = Holding([3.0, 30.0])
    holding.see(0, 1.0, 10.0)
    holding.see(1, 2.0, 10.0)
    assert np.array_equal(holding.at(13.0), [1.0, 2.0])
    assert np.array_equal(holding.at(13.1), [np.nan, 2.0], equal_nan=True)
    holding.see(1, float("nan"), 14.0)
    assert np.isnan(holding.at(14.0)).all()
    holding.see(1, 5.0, 12.0)  # overtaken on its way
    assert np.isnan(holding.at(14.0)).all()


# --- properties ------------------------------------------------------------------------------------------------------


@settings(max_examples=20, deadline=None)
@given(cut=st.integers(80, 250), wild=st.floats(-1e6, 1e6), seed=st.integers(0, 1000))
def test_nothing_looks_ahead(fit, cut, wild, seed):
    """The judgements up to a moment do not depend on anything that comes after it."""
    values, other = normal(260, seed=seed), normal(260, seed=seed)
    other[cut:] = wild
    assert judged(detector_of(fit), values)[:cut] == judged(detector_of(fit), other)[:cut]


@settings(max_examples=15, deadline=None)
@given(scale=st.floats(1e-3, 1e4), offset=st.floats(-1e4, 1e4), quantity=st.integers(0, 2))
def test_units_do_not_matter(scale, offset, quantity):
    """Another unit of one quantity, in calibration and after it, changes no label and no score but by rounding."""
    normal_values, values = normal(600), normal(300, seed=11)
    values[200:, 2] += 1.0
    expected = judged(detector_of(fitted(normal_values)), values)
    for array in (normal_values, values):
        array[:, quantity] = array[:, quantity] * scale + offset
    found = judged(detector_of(fitted(normal_values)), values)
    assert np.allclose([each.score for each in found], [each.score for each in expected], atol=2e-3)


@settings(max_examples=25, deadline=None)
@given(share=st.tuples(*[st.floats(0.02, 1.0)] * 3), run=st.sampled_from([1, 4, 10, 30]), seed=st.integers(0, 10_000))
def test_absences_of_any_kind_raise_no_alarm(fit, share, run, seed):
    """Readings that are missing here and there, alone or in runs, give no score that is more than a little high."""
    random = np.random.default_rng(seed)
    there = np.repeat(random.uniform(size=(240 // run, 3)) < share, run, axis=0)
    values = np.where(there, normal(len(there), seed=12), np.nan)
    for each in judged(detector_of(fit), values):
        assert 0.0 <= each.score < 1.3


@settings(max_examples=8, deadline=None)
@given(period=st.sampled_from([1, 2, 5, 10]), phase=st.integers(0, 9), shuffle=st.booleans())
def test_rates_need_not_agree(period, phase, shuffle):
    """One quantity comes less often and out of step with the others: fit and judgement work, a fault of it is found."""
    values = normal(1200, seed=13)
    values[:, 2] += 0.0
    times = np.arange(1200.0)
    slow = slice(phase, None, period)
    series = {NAMES[index]: (times, values[:, index]) for index in (0, 1)}
    series[NAMES[2]] = (times[slow] + 0.3, values[slow, 2])
    if shuffle:
        series = dict(reversed(series.items()))
    fit = fit_line(align(series))
    assert NAMES[2] not in fit.parameters["left_out"]
    later = normal(600, seed=14)
    later[300:, 2] += 3.0
    later[[step for step in range(600) if (step - phase) % period], 2] = np.nan
    said = judged(detector_of(fit), later)
    assert ANOMALY not in {each.label for each in said[:300]}
    assert ANOMALY in {each.label for each in said[300:]}


@settings(max_examples=50, deadline=None)
@given(
    taken=st.lists(st.tuples(st.integers(0, 60), st.floats(-5, 5)), min_size=3, max_size=40),
)
def test_calibration_holds_values_as_the_detector_does(taken):
    """The grid of a calibration has the values that the detector would have held at the same moments."""
    taken = sorted(dict(taken).items())
    if len(taken) < 2:
        return
    times, values = zip(*taken, strict=True)
    data = align({"a": (times, values), "b": ((0, 60), (1.0, 1.0))}, 1.0)
    holding, waiting = Holding(data.hold_s), list(taken)
    for now_s, row in zip(data.times_s, data.values, strict=True):
        while waiting and waiting[0][0] <= now_s:
            holding.see(0, waiting[0][1], waiting.pop(0)[0])
        assert np.array_equal(holding.at(now_s)[:1], row[:1], equal_nan=True)


def test_a_row_is_neutral_where_nothing_is_known_and_cut_where_it_is_huge():
    """NaN and left-out rows are 0, ten thousand limits are the largest number, the sign stays."""
    own = np.array([[np.nan, -1e4, 0.5]])
    limits = np.array([[[1.0, 1.0, 2.0], [0.0, 0.0, 0.0]]])
    assert np.allclose(rows(own, np.zeros((1, 3, 3)), limits), [0, -LARGEST, 0.25, 0, 0, 0])


def test_what_needs_an_absent_quantity_is_not_said():
    """A remainder is unknown when a quantity that explains it is."""
    explained = np.zeros((1, 3, 3))
    explained[0, 0, 1] = 2.0
    assert np.array_equal(rest(np.array([[5.0, np.nan, 1.0]]), explained), [[np.nan, np.nan, 1.0]], equal_nan=True)
    assert rest(np.array([[5.0, 2.0, 1.0]]), explained)[0, 0] == 1.0


def test_a_long_gap_starts_the_baseline_anew():
    """After a silence longer than the baseline reaches, the old level means nothing any more."""
    state = Deviations(1, [4.5], [70.0])
    for step in range(100):
        state.advance(np.array([1.0]), float(step))
        state.learn()
    assert np.isnan(state.advance(np.array([9.0]), 1000.0)).all()
    assert state.slow[0, 0] == 9.0


# --- what calibration says -------------------------------------------------------------------------------------------


def test_constants_and_the_mostly_absent_are_left_out():
    """A quantity that never changed or hardly ever came is named with its reason, and the rest is learnt."""
    values = np.column_stack([normal(600), np.full(600, 7.0), np.where(np.arange(600) % 40 == 0, 1.0, np.nan)])
    fit = fitted(values, names=(*NAMES, "stuck", "rare"))
    assert fit.parameters["left_out"] == {"stuck": "constant", "rare": "absent for more than half of the time"}
    assert "stuck is left out: constant" in fit.warnings
    Parameters.model_validate(fit.parameters)


def test_too_short_is_refused_and_short_is_warned_about():
    """A minute teaches nothing; ten minutes teach, with a warning; half an hour is fine."""
    with pytest.raises(ModelError, match="too short"):
        fitted(normal(60))
    assert any("minutes are short" in warning for warning in fitted(normal(600)).warnings)
    assert not fitted(normal(2400)).warnings


def test_nothing_to_judge_is_refused():
    """Constants alone cannot be calibrated on."""
    with pytest.raises(ModelError, match="nothing here can be judged"):
        fitted(np.ones((600, 3)))


def test_an_outlier_in_the_calibration_does_not_widen_the_limits(fit):
    """One far episode is reported and left out; limits stay within a quarter of those without it."""
    values = normal(MINUTES * 60)
    values[500:520, 2] += 50.0
    spoilt = fitted(values)
    assert any(warning.startswith("cabinet.temperature: far off at 5") for warning in spoilt.warnings)
    clean, dirty = np.array(fit.parameters["limits"]), np.array(spoilt.parameters["limits"])
    assert dirty[0, 0, 2] == pytest.approx(clean[0, 0, 2], rel=0.25)


def test_what_recurs_is_normal_running():
    """A burst every two minutes belongs to the machine, however far it goes."""
    values = normal(1800)
    for begin in range(100, 1800, 120):
        values[begin : begin + 10, 2] += 5.0
    fit = fitted(values)
    assert not any("far off" in warning for warning in fit.warnings)
    later = normal(600, seed=15)
    later[300:310, 2] += 5.0
    assert ANOMALY not in {each.label for each in judged(detector_of(fit), later)}


def test_two_that_wander_slowly_do_not_explain_each_other():
    """Slow drifts always look related; with few independent looks neither is judged by the other, nor narrowly."""
    values = normal(600)
    values[:, 2] = 30 + np.linspace(0, 3, 600) + np.sin(np.arange(600) / 120)
    values = np.column_stack([values, 20 - np.linspace(0, 2, 600) + np.cos(np.arange(600) / 110)])
    fit = fitted(values, names=(*NAMES, "wall"))
    assert not np.array(fit.parameters["explained"])[:, 2:].any()
    wide = np.array(fit.parameters["limits"])[0, 0, 3]
    assert wide == 0 or wide > 2.0  # all that it did in these ten minutes


def test_fewer_false_alarms_mean_wider_limits():
    """Limits rise as the stated rate falls."""
    values = normal(900)
    strict, loose = (np.array(fitted(values, false_alarms_per_day=rate).parameters["limits"]) for rate in (0.1, 100.0))
    judged_rows = strict > 0
    assert (strict[judged_rows] > loose[judged_rows]).all()


def test_the_report_says_how_little_a_short_calibration_proves():
    """Twenty calm minutes at one false alarm per day confirm no more than some hundreds per day at 95 %."""
    report = fitted(normal(1200)).report
    assert report["false_alarms_per_day"] == 1.0
    assert report["confirmed_at_most_per_day_95"] >= 3 * 86400 / 1200 * 0.99


def test_independent_looks():
    """White noise counts in full, a moving mean of 20 in about its share, a constant not at all."""
    noise = np.random.default_rng(0).normal(size=5000)
    assert independent_looks(noise) > 4000
    smooth = np.convolve(noise, np.ones(20) / 20, "valid")
    assert 200 < independent_looks(smooth) < 600
    assert independent_looks(np.ones(100)) == 0.0


@pytest.mark.parametrize(
    ("tail", "degrees", "limit"), [(0.025, 10, 2.228139), (0.005, 30, 2.749996), (0.025, 1e6, 1.959966)]
)
def test_students_limits_are_those_of_the_tables(tail, degrees, limit):
    """Critical values of Student's t as in any statistics textbook, and the tail is their inverse."""
    assert student_limit(tail, degrees) == pytest.approx(limit, abs=1e-5)
    assert student_tail(limit, degrees) == pytest.approx(tail, rel=1e-4)


def test_the_rule_of_three():
    """No event seen: at 95 % not more than three were to be expected."""
    assert most_events(0) == pytest.approx(2.9957, abs=1e-4)
    assert most_events(1) == pytest.approx(4.7439, abs=1e-4)


# --- one case, not a storm -------------------------------------------------------------------------------------------


def test_a_case_opens_late_and_closes_late():
    """It opens after three seconds over and tells the first of them; it closes after a quiet half minute."""
    case = Case(3.0, 30.0)
    assert [case.step(True, at_s) for at_s in (10.0, 11.0, 12.0, 13.0, 14.0)] == [None, None, None, OPENED, None]
    assert case.since_s == 10.0
    assert [case.step(False, at_s) for at_s in (15.0, 30.0, 44.9)] == [None, None, None]
    assert case.step(True, 44.95) is None  # not calm for half a minute yet: the same case
    assert case.step(False, 45.0) is None
    assert case.step(False, 75.0) == CLOSED
    assert not case.open


@given(st.lists(st.booleans(), max_size=300))
def test_openings_and_closings_take_turns(overs):
    """However the score jumps, a case opens and closes in turn, and never opens on a calm moment."""
    case, said = Case(3.0, 5.0), []
    for at_s, over in enumerate(overs):
        brought = case.step(over, float(at_s))
        if brought:
            said.append(brought)
            assert (brought == OPENED) == over == case.open
    assert said == [OPENED, CLOSED] * (len(said) // 2) + [OPENED] * (len(said) % 2)


def test_what_comes_back_again_and_again_is_no_storm():
    """Half a minute over in every 200 s for two hours: a handful of cases, each calm for longer before it closes."""
    case = Case(3.0, 30.0)
    brought = [case.step(at % 200 < 30, float(at)) for at in range(7200)]
    assert 1 <= brought.count(OPENED) <= 5
    assert [case.step(False, 7200.0 + at) for at in range(2000)].count(CLOSED) == 1


def test_a_flickering_score_is_one_case():
    """Over and under every ten seconds for ten minutes opens one case."""
    case = Case(3.0, 30.0)
    brought = [case.step((at_s // 10) % 2 == 0, float(at_s)) for at_s in range(600)]
    assert brought.count(OPENED) == 1


# --- parameters ------------------------------------------------------------------------------------------------------


def test_parameters_that_do_not_fit_are_refused(fit):
    """Wrong shapes, negative limits and a card that judges nothing do not load."""
    good = fit.parameters
    for wrong in (
        {"slow_s": [70.0]} if len(good["slow_s"]) > 1 else {"slow_s": [70.0, 600.0]},
        {"limits": [[[1.0], [1.0]]]},
        {"limits": (np.array(good["limits"]) * 0).tolist()},
        {"limits": (-np.array(good["limits"])).tolist()},
        {"hold_s": [1.0]},
        {"strange": 1},
    ):
        with pytest.raises(ValueError):
            Parameters.model_validate({**good, **wrong})
    with pytest.raises(ValueError):
        LineDetector(NAMES[:2], good, 1.0, Largest(2))


# --- networks --------------------------------------------------------------------------------------------------------


def test_int8_and_fp32_decide_alike():
    """Over three thousand rows on both sides of the limit the two networks of a line decide alike, each time."""
    pytest.importorskip("onnx", reason="building networks needs the extra `calibrate`")
    from models.onnx_session import OnnxSession
    from models.train.graphs import STEP, line_graph

    sessions = [OnnxSession(line_graph(3, 2, precision)) for precision in ("fp32", "int8")]
    random = np.random.default_rng(1)
    decided, apart = [], 0.0
    for _ in range(3000):
        row = np.clip(random.normal(0, 0.45, (1, 12)), -LARGEST, LARGEST).astype(np.float32)
        exact, eight = (session.run({"rows": row}) for session in sessions)
        decided.append((exact["score"] >= 1) == (eight["score"] >= 1))
        apart = max(apart, float(np.abs(exact["contributions"] - eight["contributions"]).max()))
        assert eight["score"] == eight["contributions"].max()
    assert np.mean(decided) == 1.0
    assert apart <= STEP / 2 + 1e-6


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_onnx_and_tflite_say_the_same(precision):
    """The network written for the one runtime and for the other gives the same numbers, and passes the guard."""
    pytest.importorskip("onnx", reason="building networks needs the extra `calibrate`")
    from models import tflite_guard
    from models.onnx_session import OnnxSession
    from models.tflite_session import TfliteSession
    from models.train.graphs import line_graph
    from models.train.line_tflite import line_tflite

    data = line_tflite(3, 2, precision)
    tflite_guard.check(data)
    sessions = OnnxSession(line_graph(3, 2, precision)), TfliteSession(data)
    random = np.random.default_rng(2)
    for _ in range(500):
        row = np.clip(random.normal(0, 0.45, (1, 12)), -LARGEST, LARGEST).astype(np.float32)
        one, other = (session.run({"rows": row}) for session in sessions)
        for name in ("score", "contributions"):
            assert one[name] == pytest.approx(other[name], abs=1e-6)


def test_zero_is_exactly_zero_in_eight_bits():
    """A quantity of which nothing is known contributes nothing, not a rounding."""
    pytest.importorskip("onnx", reason="building networks needs the extra `calibrate`")
    from models.onnx_session import OnnxSession
    from models.train.graphs import line_graph

    outputs = OnnxSession(line_graph(2, 1, "int8")).run({"rows": np.array([[0, 0.5, 0, 0]], np.float32)})
    assert outputs["contributions"][0, 0] == 0.0


@pytest.mark.parametrize("kind", ["isolation-forest", "lof"])
def test_baselines_go_through_the_same_door(fit, kind, monkeypatch):
    """Isolation forest and LOF have the same input and score, so the same detector runs them, without contributions."""
    pytest.importorskip("skl2onnx", reason="the baselines need the extra `calibrate`")
    from models.onnx_session import OnnxSession
    from models.train.graphs import baseline

    monkeypatch.setattr("models.train.graphs._TREES", 10)  # converting a hundred takes half a minute
    network, threshold = baseline(kind, fit.rows[::6])
    session = OnnxSession(network)
    detector = LineDetector(fit.quantities, fit.parameters, threshold, session)
    values = normal(110, seed=16)
    values[100:] += [400.0, 3.0, 5.0]
    said = judged(detector, values)
    assert set(session.run({"rows": fit.rows[:1]})) == {"score"}
    assert max(each.score for each in said[100:]) > max(each.score for each in said[82:100])
