"""A sensor beside a reference: when it is at rest, what the line through the points is, and what is kept on disk."""

from __future__ import annotations

import json
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.calibration import KEPT, Calibration, CalibrationError, Correction, history, load, path_of, store
from edge_agent.commissioning.settling import LEAST_READINGS, Rest, line, objections, rest
from edge_agent.vocabulary import Sample


def calibration(profile="sht31", at_ms=1000, **corrections):
    return Calibration(profile, at_ms, at_ms + 1000, "kim", corrections, {})


def readings(slope_per_min=0.0, noise=0.01, seconds=180, mean=24.0):
    rng = random.Random(4)
    return [(float(s), mean + slope_per_min * s / 60 + rng.gauss(0, noise)) for s in range(seconds)]


def test_a_quiet_sensor_is_at_rest():
    """Its mean, its scatter, and a standard uncertainty that is smaller than the scatter."""
    found = rest(readings(), "temperature", 120)
    assert found.mean == pytest.approx(24.0, abs=0.01)
    assert found.type_a < found.scatter < 0.02
    assert found.count == 121


@pytest.mark.parametrize("slope", [0.06, -0.2, 1.0])
def test_a_sensor_that_warms_up_is_not(slope):
    """A drift above the limit is no rest, however quiet it is."""
    assert rest(readings(slope), "temperature", 120) is None


def test_noise_cannot_pass_for_rest():
    """When the slope cannot be told, it is not settled yet."""
    assert rest(readings(noise=0.5, seconds=130), "temperature", 120) is None


def test_few_readings_prove_nothing():
    """Neither a short time nor a handful of readings."""
    assert rest(readings(seconds=60), "temperature", 120) is None
    assert rest([(s * 30.0, 24.0) for s in range(LEAST_READINGS - 1)], "temperature", 120) is None


@given(st.floats(-3, 3), st.floats(0.9, 1.1), st.floats(-20, 20), st.floats(25, 60))
def test_two_points_give_back_gain_and_offset(offset, gain, low, high):
    """Whatever straight line the sensor has, the correction undoes it."""
    points = [(Rest((true - offset) / gain, 0.01, 0.0, 20, 0.002), true) for true in (low, high)]
    found = line(points, 0.2)
    for at_rest, true in points:
        assert at_rest.mean * found.gain + found.offset == pytest.approx(true, abs=1e-9)
    assert found.uncertainty == pytest.approx(0.2, abs=0.001)


def test_one_point_gives_an_offset_and_its_uncertainty():
    """Expanded: twice the root of the squares."""
    found = line([(Rest(24.7, 0.02, 0, 30, 0.03), 24.3)], 0.08)
    assert (found.gain, found.offset) == (1.0, pytest.approx(-0.4))
    assert found.uncertainty == pytest.approx(0.1)


def test_what_is_no_calibration_is_refused():
    """A sensor far off, points too near each other, a sensor that hardly moves."""
    here = Rest(24.0, 0.01, 0.0, 20, 0.01)
    there = Rest(24.5, 0.01, 0.0, 20, 0.01)
    assert "too far apart" in objections("temperature", [(here, 40.0)])[0]
    assert "at least 5" in objections("temperature", [(here, 24.0), (there, 26.0)])[0]
    assert any("sound" in words for words in objections("temperature", [(here, 24.0), (there, 33.0)]))
    assert objections("temperature", [(here, 24.3)]) == []


def test_corrected_values_and_what_is_derived_from_them():
    """Dew point and absolute humidity follow; what is absent stays absent; humidity ends at 100 %."""
    one = calibration(temperature=Correction(1.0, 1.0, 0.2), relative_humidity=Correction(1.0, 2.0, 1.0))
    said = one.apply(Sample({"temperature": 23.0, "relative_humidity": 48.0, "dew_point": 0.0}, {}))
    assert said.values["temperature"] == 24.0
    assert said.values["dew_point"] == pytest.approx(12.94, abs=0.02)
    assert one.apply(Sample({}, {"temperature": "timeout"})) == Sample({}, {"temperature": "timeout"})
    assert one.apply(Sample({"relative_humidity": 99.0}, {})).values == {"relative_humidity": 100.0}


def test_files_are_kept_and_the_oldest_go(tmp_path):
    """The last few, the newest in use."""
    (tmp_path / "calibration").mkdir()
    kept = [calibration(at_ms=index, temperature=Correction(1.0, index / 10, 0.1)) for index in range(KEPT + 3)]
    store(tmp_path, "cabinet", kept)
    found = history(tmp_path, "cabinet")
    assert [each.at_ms for each in found] == list(range(3, KEPT + 3))
    assert load(tmp_path, "cabinet", "sht31") == kept[-1]
    assert [path.name for path in (tmp_path / "calibration").iterdir()] == ["cabinet.json"]


def test_another_sensor_is_not_corrected_with_it(tmp_path):
    """A calibration belongs to the part that it was made with."""
    (tmp_path / "calibration").mkdir()
    store(tmp_path, "cabinet", [calibration(temperature=Correction(1.0, 1.0, 0.1))])
    with pytest.raises(CalibrationError, match="was made with a sht31, and it is a bme280 now"):
        load(tmp_path, "cabinet", "bme280")


TOO_FAR = {"temperature": {"gain": 9, "offset": 0, "uncertainty": 0}}
ENTRY = {"profile": "s", "at_ms": 1, "expires_ms": 2, "who": "k", "details": {}, "corrections": TOO_FAR}


@pytest.mark.parametrize(
    "text", ["", "[]", "{", '{"calibrations": [{}]}', '{"calibrations": [7]}', json.dumps({"calibrations": [ENTRY]})]
)
def test_a_damaged_file_is_named(tmp_path, text):
    """Never half a correction."""
    path = path_of(tmp_path, "cabinet")
    path.parent.mkdir()
    path.write_text(text)
    with pytest.raises(CalibrationError, match="cabinet"):
        load(tmp_path, "cabinet", "sht31")


def test_without_a_file_nothing_is_corrected(tmp_path):
    """That is the usual case."""
    assert load(tmp_path, "cabinet", "sht31") is None
