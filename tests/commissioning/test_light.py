"""What a camera's automatic chose is locked for the pictures that good parts are learned from."""

import pytest

from drivers.cameras.folder import Folder
from drivers.cameras.stream import V4l2
from edge_agent.clock import ManualClock
from edge_agent.commissioning.light import lock
from edge_agent.errors import CameraError
from edge_agent.plan import KindPlan


class StandIn(V4l2):
    """A USB camera that found 12.5 ms and 4600 K, and has no gain."""

    opened = closed = 0
    found = {"exposure": 0.0125, "gain": None, "white_balance": 4600}  # noqa: RUF012 - read only

    def open(self):
        StandIn.opened += 1

    def settled(self):
        return self.found

    def close(self):
        StandIn.closed += 1


def usb(kind=StandIn, **settings):
    wanted = {"kind": "v4l2", "source": "/dev/video0", **settings}
    return KindPlan("eye", "v4l2", kind, kind.Settings.model_validate(wanted))


def test_what_it_allows_is_locked_and_the_rest_is_told():
    """The values stand as the config would say them, and the camera's own settings hold them."""
    camera, light = lock(usb(), ManualClock())
    assert light.locked == {"exposure": "0.0125s", "white_balance": 4600}
    assert light.automatic == ("gain",)
    assert (camera.settings.exposure, camera.settings.white_balance) == (0.0125, 4600)
    assert StandIn.opened == StandIn.closed
    assert StandIn.Settings.model_validate({"kind": "v4l2", "source": "/dev/video0", **light.locked}) == camera.settings


def test_what_the_config_locks_stays():
    """A person chose it."""
    camera, light = lock(usb(exposure="8ms", gain=3), ManualClock())
    assert (camera.settings.exposure, camera.settings.gain) == (0.008, 3)
    assert light.locked == {"exposure": "8ms", "gain": 3.0, "white_balance": 4600}


def test_a_camera_without_knobs_is_told():
    """A folder of pictures has no exposure."""
    plan = KindPlan("eye", "folder", Folder, Folder.Settings.model_validate({"kind": "folder", "source": "good"}))
    camera, light = lock(plan, ManualClock())
    assert camera is plan
    assert light.locked == {}
    assert light.automatic == ("exposure", "gain", "white_balance")


def test_a_camera_that_fails_is_closed():
    """The error comes through, and the device is free again."""

    class Fails(StandIn):
        def settled(self):
            raise CameraError("timeout", "no picture")

    before = StandIn.closed
    with pytest.raises(CameraError):
        lock(usb(Fails), ManualClock())
    assert StandIn.closed == before + 1
