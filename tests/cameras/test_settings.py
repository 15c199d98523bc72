"""What a camera's section of the config may say."""

import pytest
from pydantic import ValidationError

from edge_agent import catalogue
from edge_agent.camera_settings import CameraSection

KINDS = {
    "v4l2": {"source": "/dev/video0", "exposure": "8ms"},
    "rtsp": {"source": "rtsp://10.0.0.9/stream", "user": "line", "password_file": "/etc/edge-agent/camera"},
    "http": {"source": "https://10.0.0.9/snapshot.jpg"},
    "video-file": {"source": "line.mp4", "loop": True},
    "folder": {"source": "pictures"},
    "csi": {"source": 1, "gain": 2.5},
    "simulated": {"faults": [{"kind": "black", "at": "2s", "for": "1s"}], "defect_every": 3},
}


def section(**settings) -> CameraSection:
    return CameraSection.model_validate({"kind": "v4l2", **settings})


@pytest.mark.parametrize("kind", sorted(catalogue.CAMERAS))
def test_every_kind_can_be_written_and_read_again(kind):
    """Settings reach the eye process as JSON, with their units, and mean the same there."""
    settings = catalogue.load(catalogue.CAMERAS, kind).Settings
    common = {
        "size": "1280x720",
        "roi": "640x480+10+20",
        "every": "200ms",
        "recycle_above": "300MiB",
        "model": "pitting",
    }
    read = settings.model_validate({"kind": kind, **common, **KINDS[kind]})
    assert settings.model_validate(read.model_dump(mode="json", by_alias=True)) == read
    assert read.roi == (640, 480, 10, 20)


@pytest.mark.parametrize("roi", ["640x480", "0x10+0+0", "640x480+700+0", "1281x1+0+0", "640x480-1+0", 7])
def test_a_region_must_lie_in_the_picture(roi):
    """A part that is not there cannot be judged."""
    with pytest.raises(ValidationError):
        section(size="1280x720", roi=roi)


@pytest.mark.parametrize("size", ["1280", "1280*720", "axb", [1280, 720]])
def test_a_size_is_width_x_height(size):
    """As people write it."""
    with pytest.raises(ValidationError, match="1280x720"):
        section(size=size)


def test_what_has_no_noise_is_frozen_sooner_or_later():
    """At once on a sensor, later behind a video encoder, never in a recording."""
    found = {
        kind: catalogue.load(catalogue.CAMERAS, kind).Settings.model_validate({"kind": kind, **KINDS[kind]})
        for kind in catalogue.CAMERAS
    }
    assert {kind: settings.picture.frozen_after for kind, settings in found.items()} == {
        "v4l2": 2,
        "csi": 2,
        "http": 2,
        "simulated": 2,
        "rtsp": 10,
        "folder": 0,
        "video-file": 0,
    }
