"""Pictures from a folder and from a recording."""

import cv2
import pytest

from drivers import opencv
from drivers.cameras.folder import Folder
from drivers.cameras.stream import VideoFile
from edge_agent.errors import CameraError, PictureError


def folder(path, clock, **settings) -> Folder:
    camera = Folder(
        "files", Folder.Settings.model_validate({"kind": "folder", "source": str(path), **settings}), clock, 0
    )
    camera.open()
    return camera


def names(camera: Folder, most: int = 20) -> list[str]:
    found = []
    while len(found) < most and (frame := camera.grab()) is not None:
        found.append(frame.name)
    return found


def test_every_file_once_in_the_order_of_names(tmp_path, clock):
    """Each picture comes once, then nothing, until another one appears."""
    for name in ("b.jpg", "a.jpg", "c.png"):
        (tmp_path / name).write_bytes(b"x")
    camera = folder(tmp_path, clock)
    assert names(camera) == ["a.jpg", "b.jpg", "c.png"]
    assert camera.grab() is None
    (tmp_path / "a0.jpg").write_bytes(b"new")
    frame = camera.grab()
    assert (frame.name, frame.encoded) == ("a0.jpg", b"new")
    assert names(camera) == []


def test_opening_again_does_not_begin_again(tmp_path, clock):
    """What was judged is not judged twice because something else failed."""
    (tmp_path / "a.jpg").write_bytes(b"x")
    camera = folder(tmp_path, clock)
    assert names(camera) == ["a.jpg"]
    camera.close()
    camera.open()
    assert names(camera) == []


def test_a_loop_begins_again(tmp_path, clock):
    """With `loop` the pictures come for ever; an empty folder still gives none."""
    camera = folder(tmp_path, clock, loop=True)
    assert camera.grab() is None
    for name in ("a.jpg", "b.jpg"):
        (tmp_path / name).write_bytes(b"x")
    assert names(camera, 5) == ["a.jpg", "b.jpg", "a.jpg", "b.jpg", "a.jpg"]


def test_unfinished_files_and_folders_are_left_alone(tmp_path, clock):
    """A hidden file is still being written."""
    (tmp_path / ".a.jpg.part").write_bytes(b"x")
    (tmp_path / "older").mkdir()
    assert names(folder(tmp_path, clock)) == []


def test_a_file_that_disappears_costs_only_itself(tmp_path, clock):
    """Somebody tidies up meanwhile."""
    for name in ("a.jpg", "b.jpg", "c.jpg"):
        (tmp_path / name).write_bytes(b"x")
    camera = folder(tmp_path, clock)
    assert camera.grab().name == "a.jpg"
    (tmp_path / "b.jpg").unlink()
    with pytest.raises(PictureError):
        camera.grab()
    assert camera.grab().name == "c.jpg"


def test_memory_follows_the_folder(tmp_path, clock):
    """Names that are gone are forgotten."""
    camera = folder(tmp_path, clock)
    for number in range(50):
        picture = tmp_path / f"{number:03}.jpg"
        picture.write_bytes(b"x")
        assert camera.grab().name == picture.name
        picture.unlink()
    assert camera.grab() is None
    assert not camera._seen


def test_a_missing_folder_is_a_fault_of_the_camera(tmp_path, clock):
    """The reason and the path are told."""
    with pytest.raises(CameraError, match="nowhere") as failed:
        folder(tmp_path / "nowhere", clock)
    assert failed.value.reason == "not-found"


# --- recordings


@pytest.fixture
def recording(tmp_path):
    """Five pictures of growing brightness."""
    path = tmp_path / "line.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10, (64, 48))
    assert writer.isOpened()
    import numpy as np

    for level in range(50, 100, 10):
        writer.write(np.full((48, 64, 3), level, np.uint8))
    writer.release()
    return path


def video(path, clock, **settings) -> VideoFile:
    camera = VideoFile(
        "film", VideoFile.Settings.model_validate({"kind": "video-file", "source": str(path), **settings}), clock, 0
    )
    camera.open()
    return camera


def test_a_recording_is_seen_to_its_end(recording, clock):
    """Every picture once, in order, then no more; that is no fault."""
    camera = video(recording, clock)
    levels = []
    while (frame := camera.grab()) is not None:
        levels.append(round(float(frame.image.mean()), -1))
    assert levels == [50, 60, 70, 80, 90]
    camera.close()
    camera.open()
    assert camera.grab() is None


def test_a_recording_may_begin_again(recording, clock):
    """With `loop` it never ends."""
    camera = video(recording, clock, loop=True)
    levels = [round(float(camera.grab().image.mean()), -1) for _ in range(7)]
    assert levels == [50, 60, 70, 80, 90, 50, 60]
    camera.close()


@pytest.mark.parametrize("content", [None, b"", b"not a film at all"])
def test_what_is_no_recording_is_a_fault(tmp_path, clock, content):
    """A missing, empty or foreign file is named."""
    path = tmp_path / "film.avi"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(CameraError) as failed:
        video(path, clock)
    assert failed.value.reason == "not-found"


def test_a_playlist_opens_nothing_else(tmp_path, clock, recording):
    """A text that pretends to be a recording cannot make us connect anywhere."""
    path = tmp_path / "list.m3u8"
    path.write_text("#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1:9/film.ts\n")
    with pytest.raises(CameraError):
        video(path, clock)


def test_opencv_is_there():
    """The build can do what the drivers ask of it."""
    assert opencv.load()
    assert opencv.has_v4l2()
