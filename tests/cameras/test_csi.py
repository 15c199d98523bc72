"""The camera module of a Raspberry Pi, against a stand-in for picamera2."""

import sys
from concurrent.futures import Future
from types import ModuleType
from typing import ClassVar

import numpy as np
import pytest

from drivers.cameras.csi import Csi
from edge_agent.clock import SystemClock
from edge_agent.errors import CameraError


class StandIn:
    """As much of picamera2 as is used; ``there`` cameras, the last picture never comes."""

    there = 1
    pictures = 3
    is_busy = False
    calls: ClassVar[list] = []

    def __init__(self, number):
        if self.is_busy:
            raise RuntimeError("Camera __init__ sequence did not complete.")
        if number >= self.there:
            raise IndexError("list index out of range")
        self.left = self.pictures
        self.calls.append("made")

    def create_video_configuration(self, main, controls):
        return {"main": main, "controls": controls}

    def configure(self, configuration):
        self.calls.append(configuration)

    def start(self):
        self.calls.append("start")

    def capture_array(self, name, wait):
        assert (name, wait) == ("main", False)
        job = Future()
        if self.left:
            self.left -= 1
            job.set_result(np.full((480, 640, 3), self.left, np.uint8))
        job.get_result = job.result
        return job

    def capture_metadata(self, wait):
        assert wait is False
        said = Future()
        said.set_result({"ExposureTime": 8000, "AnalogueGain": 2.0, "ColourGains": (1.9, 1.6)})
        said.get_result = said.result
        return said

    def stop(self):
        self.calls.append("stop")

    def close(self):
        self.calls.append("close")


@pytest.fixture
def picamera2(monkeypatch):
    """The stand-in where the real one would be."""
    stand_in = type("Picamera2", (StandIn,), {"calls": []})
    module = ModuleType("picamera2")
    module.Picamera2 = stand_in
    monkeypatch.setitem(sys.modules, "picamera2", module)
    return stand_in


def csi(**settings) -> Csi:
    wanted = {"kind": "csi", "size": "640x480", "deadline": "100ms", **settings}
    return Csi("pi", Csi.Settings.model_validate(wanted), SystemClock(), 0)


def test_pictures_come_as_they_are_configured(picamera2):
    """Size, byte order, frame rate and locked exposure are asked for; the arrays are passed on."""
    camera = csi(fps=20, exposure="8ms", gain=2.0)
    camera.open()
    asked = picamera2.calls[1]
    assert asked["main"] == {"size": (640, 480), "format": "RGB888"}
    controls = {"AeEnable": False, "ExposureTime": 8000, "AnalogueGain": 2.0, "FrameDurationLimits": (50_000, 50_000)}
    assert asked["controls"] == controls
    assert [int(camera.grab().image[0, 0, 0]) for _ in range(3)] == [2, 1, 0]
    camera.close()
    assert picamera2.calls[-2:] == ["stop", "close"]


def test_what_the_automatic_settled_on_can_be_locked(picamera2):
    """The values of the module's own report become its settings, and nothing is automatic then."""
    picamera2.pictures = 40
    camera = csi()
    camera.open()
    settled = camera.settled()
    camera.close()
    locked = Csi("pi", camera.Settings.model_validate({"kind": "csi", **settled, "exposure": "8ms"}), SystemClock(), 0)
    locked.open()
    assert settled["exposure"] == 0.008
    assert picamera2.calls[-2]["controls"] == {
        "AeEnable": False,
        "ExposureTime": 8000,
        "AnalogueGain": 2.0,
        "AwbEnable": False,
        "ColourGains": (1.9, 1.6),
    }


def test_a_module_that_sends_nothing_is_a_timeout(picamera2):
    """The camera gives up before its process would be killed."""
    picamera2.pictures = 0
    camera = csi()
    camera.open()
    with pytest.raises(CameraError) as failed:
        camera.grab()
    assert failed.value.reason == "timeout"


@pytest.mark.parametrize(("attribute", "value", "reason"), [("there", 0, "not-found"), ("is_busy", True, "busy")])
def test_a_module_that_is_not_there_or_taken(picamera2, attribute, value, reason):
    """The reason differs, and both say what to do."""
    setattr(picamera2, attribute, value)
    with pytest.raises(CameraError) as failed:
        csi().open()
    assert failed.value.reason == reason
    assert failed.value.hint


def test_without_picamera2_the_error_says_how_to_get_it(monkeypatch):
    """It comes from the distribution and nowhere else."""
    monkeypatch.setitem(sys.modules, "picamera2", None)
    with pytest.raises(CameraError) as failed:
        csi().open()
    assert "apt install python3-picamera2" in failed.value.hint
