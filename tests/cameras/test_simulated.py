"""The twin of a camera does what its script says."""

import subprocess
import sys

import pytest

from drivers.cameras.simulated import Simulated
from edge_agent.clock import ManualClock
from edge_agent.errors import CameraError


def twin(clock, **settings) -> Simulated:
    wanted = {"kind": "simulated", "size": "320x240", **settings}
    camera = Simulated("twin", Simulated.Settings.model_validate(wanted), clock, clock.mono_ns())
    camera.open()
    return camera


def test_it_sends_as_many_pictures_as_it_should():
    """Ten pictures a second take a second."""
    clock = ManualClock()
    camera = twin(clock, fps=10)
    began_ns = clock.mono_ns()
    stamps = [camera.grab().at.mono_ns - began_ns for _ in range(10)]
    assert stamps == [n * 100_000_000 for n in range(1, 11)]


def test_the_same_seed_and_time_give_the_same_picture():
    """A twin has no chance in it."""
    pictures = [twin(ManualClock(), seed=seed).grab().image.tobytes() for seed in (5, 5, 6)]
    assert pictures[0] == pictures[1] != pictures[2]


def test_faults_come_and_go_by_the_clock():
    """Black from the second second to the third, and unplugged from the fifth on."""
    clock = ManualClock()
    faults = [{"kind": "black", "at": "2s", "for": "1s"}, {"kind": "unplug", "at": "5s"}]
    camera = twin(clock, fps=2, faults=faults)
    means = [camera.grab().image.mean() for _ in range(8)]
    assert [mean < 10 for mean in means] == [False] * 3 + [True] * 2 + [False] * 3
    clock.advance(1)
    with pytest.raises(CameraError, match="unplugged"):
        camera.grab()
    with pytest.raises(CameraError, match="unplugged"):
        camera.open()


def test_a_frozen_twin_repeats_itself():
    """The time goes on, the picture does not."""
    camera = twin(ManualClock(), fps=2, faults=[{"kind": "frozen", "at": "1200ms", "for": "1s"}])
    pictures = [camera.grab().image.tobytes() for _ in range(6)]
    assert pictures[1] == pictures[2] == pictures[3]
    assert len(set(pictures)) == 4


def test_importing_a_camera_costs_no_numpy_and_no_opencv():
    """The config knows every kind; only an eye process pays for pictures."""
    code = (
        "import sys\n"
        "from edge_agent import catalogue\n"
        "import edge_agent.stages.eye\n"
        "kinds = [catalogue.load(catalogue.CAMERAS, kind) for kind in catalogue.CAMERAS]\n"
        "judges = [catalogue.load(catalogue.JUDGES, kind) for kind in catalogue.JUDGES]\n"
        "assert all(issubclass(kind.Settings, edge_agent.camera_settings.CameraSection) for kind in kinds)\n"
        "print(sorted({'numpy', 'cv2', 'picamera2', 'onnxruntime'} & set(sys.modules)))\n"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert said.stdout == "[]\n"
