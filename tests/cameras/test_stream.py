"""USB and RTSP cameras through the real OpenCV, with a device and a server that are ours."""

import subprocess
import sys
from pathlib import Path

import pytest

from drivers.cameras.stream import Rtsp, V4l2
from edge_agent.clock import SystemClock
from edge_agent.errors import CameraError
from tests.cameras.far_ends import RtspCamera

SHIM = Path(__file__).with_name("fake_v4l2.c")


@pytest.fixture(scope="session")
def fake_v4l2(tmp_path_factory):
    """The library that makes an ordinary file a camera for whoever is started with it."""
    library = tmp_path_factory.mktemp("v4l2") / "fake_v4l2.so"
    built = subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", library, SHIM, "-ldl"], check=False)
    assert built.returncode == 0, "a C compiler and the kernel's headers are needed (apt install gcc libc6-dev)"
    return library


USB = """
import os, sys
from drivers.cameras.stream import V4l2
from edge_agent.clock import SystemClock
from edge_agent.errors import CameraError
device, frame = os.environ["FAKE_V4L2"], os.environ["FAKE_V4L2_FRAME"]
settings = {"kind": "v4l2", "source": device, "size": "640x480", "fps": 50, "deadline": "1250ms", "exposure": "10ms"}
camera = V4l2("usb", V4l2.Settings.model_validate(settings), SystemClock(), 0)
camera.open()
sent = open(frame, "rb").read()
assert all(camera.grab().encoded == sent for _ in range(5)), "not the bytes that the camera sent"
assert camera.remarks() == (), camera.remarks()
camera._capture.set("EXPOSURE", 50)  # somebody else turned the knob
assert camera.remarks() == ("exposure is 5 ms, not 10 ms",), camera.remarks()
camera.close()
automatic = {name: value for name, value in settings.items() if name != "exposure"}
camera = V4l2("usb", V4l2.Settings.model_validate(automatic), SystemClock(), 0)
camera.open()
settled = camera.settled()
assert settled == {"exposure": 0.005, "gain": None, "white_balance": 4600}, settled
camera.close()
camera = V4l2("usb", V4l2.Settings.model_validate(settings).model_copy(update=settled), SystemClock(), 0)
camera.open()
assert camera.remarks() == (), camera.remarks()
camera._capture.set("WB_TEMPERATURE", 2800)
assert camera.remarks() == ("white balance is 2800 K, not 4600 K",), camera.remarks()
open(frame, "wb").close()
try:
    camera.grab(), camera.grab()
except CameraError as error:
    assert error.reason == "timeout", error
else:
    raise AssertionError("a camera that is silent")
open(frame, "wb").write(sent)
camera.close()
camera.open()
assert camera.grab().encoded == sent
os.unlink(device)
try:
    for _ in range(9): camera.grab()
except CameraError as error:
    assert error.reason == "unplugged", error
else:
    raise AssertionError("a camera that is gone")
camera.close()
print("done")
"""


def test_a_usb_camera_from_first_picture_to_unplugging(fake_v4l2, tmp_path, good_jpeg):
    """Motion JPEG arrives byte for byte, the exposure is locked and watched, silence and absence are told apart."""
    device, frame = tmp_path / "video0", tmp_path / "frame.jpg"
    device.touch()
    frame.write_bytes(good_jpeg)
    environment = {"LD_PRELOAD": str(fake_v4l2), "FAKE_V4L2": str(device), "FAKE_V4L2_FRAME": str(frame)}
    watched = subprocess.run(
        [sys.executable, "-c", USB],
        env={"PATH": "/usr/bin:/bin", **environment},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert watched.stdout == "done\n", watched.stderr


@pytest.mark.parametrize(
    ("make", "reason"), [(lambda path: None, "not-found"), (lambda path: path.write_bytes(b"no device"), "not-found")]
)
def test_a_usb_camera_that_is_none(tmp_path, make, reason):
    """A missing node, and a file that is no device, are faults with a hint."""
    path = tmp_path / "video9"
    make(path)
    camera = V4l2("usb", V4l2.Settings.model_validate({"kind": "v4l2", "source": str(path)}), SystemClock(), 0)
    with pytest.raises(CameraError) as failed:
        camera.open()
    assert failed.value.reason == reason
    assert failed.value.hint
    camera.close()


# --- RTSP


def rtsp(url: str, **settings) -> Rtsp:
    wanted = {"kind": "rtsp", "source": url, "deadline": "1s", **settings}
    return Rtsp("net", Rtsp.Settings.model_validate(wanted), SystemClock(), 0)


@pytest.fixture
def serve(good_jpeg):
    """A camera that sends 30 pictures and then nothing more."""
    servers = []

    def start(login=None):
        servers.append(RtspCamera(lambda: iter([good_jpeg] * 30 + [None]), login))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


def test_an_rtsp_camera_gives_pictures_then_stalls(serve, good_picture):
    """What the camera sees arrives; when nothing more comes the camera says so; opened again it works again."""
    camera = rtsp(serve().url)
    camera.open()
    first = camera.grab().image
    assert abs(first.astype(int) - good_picture).mean() < 4
    with pytest.raises(CameraError) as failed:
        list(iter(camera.grab, None))
    assert failed.value.reason == "timeout"
    camera.close()
    camera.open()
    assert camera.grab().image.shape == first.shape
    camera.close()


def test_a_login_is_used_and_never_told(serve, tmp_path):
    """The password comes from its file and is in no message."""
    (tmp_path / "password").write_text("geh/eim@\n")
    server = serve(login="line:geh/eim@")
    login = {"user": "line", "password_file": str(tmp_path / "password")}
    camera = rtsp(server.url, **login)
    camera.open()
    assert camera.grab() is not None
    camera.close()
    server.close()
    with pytest.raises(CameraError) as failed:
        camera.open()
    assert "geh" not in f"{failed.value!r} {failed.value}"
    assert "password_file" in failed.value.hint
