"""An eye that judges parts, with real processes: each part that was seen gets one verdict, whatever happens."""

import os
import signal

from drivers import opencv
from drivers.cameras.conveyor import Conveyor
from tests.stages.test_eye import watch  # noqa: F401 - a fixture

SEEN = {"kind": "simulated", "within": "300ms"}


def about_parts(eye):
    return [verdict for verdict in eye.verdicts if "part" in verdict.details]


def test_each_part_has_one_verdict_about_its_own_picture(watch):  # noqa: F811
    """Every third has a spot; the picture is the first that was taken when the part was in the middle."""
    eye = watch(part_every="300ms", defect_every=3, trigger=SEEN)
    eye.until(lambda: len(about_parts(eye)) >= 7)
    judged = [verdict for verdict in eye.verdicts if verdict.label != "not-inspected"]
    assert judged
    assert all("part" in verdict.details for verdict in judged)
    assert len({verdict.details["part"] for verdict in about_parts(eye)}) == len(about_parts(eye))
    assert {"good", "defect"} >= {verdict.label for verdict in judged}
    assert eye.eye.summary()["trigger"] == "simulated"
    assert eye.eye.summary()["last_part"] >= about_parts(eye)[-1].details["part"]


def test_a_trigger_that_never_comes_is_no_fault_but_is_seen(watch):  # noqa: F811
    """Pictures come, nothing is judged, and the status says that no part was seen yet."""
    eye = watch(part_every="1h", trigger=SEEN)
    eye.until(lambda: eye.count("grabbed") > 20)
    assert (eye.verdicts, eye.health.faults()) == ([], [])
    assert eye.eye.summary()["last_part"] is None


def test_parts_that_nobody_took_a_picture_of_are_not_inspected(watch):  # noqa: F811
    """The camera is unplugged while parts pass: one verdict each, and all is well when it is back."""
    fault = {"kind": "unplug", "at": "0s", "for": "6s"}
    eye = watch(part_every="300ms", trigger=SEEN, faults=[fault])
    eye.until(lambda: len([verdict for verdict in about_parts(eye) if verdict.reason == "unplugged"]) >= 2)
    assert eye.health.faults()[0].source == "camera.cam"
    eye.until_good()
    eye.until(lambda: not eye.health.faults())


def test_a_frame_that_comes_too_late_is_not_the_parts(watch):  # noqa: F811
    """A camera with a picture every second, a part that is in sight for a tenth: not inspected, never guessed."""
    eye = watch(fps=1, part_every="700ms", trigger={"kind": "simulated", "within": "50ms"}, deadline="5s")
    eye.until(lambda: "no-picture" in eye.reasons())
    eye.until_good()


def test_a_process_that_ends_between_part_and_verdict(watch):  # noqa: F811
    """Whoever was seen and not judged is put on record as not inspected, by the agent."""
    eye = watch(part_every="200ms", fps=1, trigger={"kind": "simulated", "within": "60s"}, deadline="20s")
    eye.until(lambda: len(eye.eye._parts) >= 2)
    os.kill(eye.child(), signal.SIGSTOP)  # nothing more is judged, only seen before
    waiting = len(eye.eye._parts)
    os.kill(eye.child(), signal.SIGKILL)
    eye.until(lambda: len([verdict for verdict in about_parts(eye) if verdict.decided_by == "eye"]) >= min(waiting, 2))
    assert {verdict.reason for verdict in about_parts(eye) if verdict.decided_by == "eye"} == {"camera-crashed"}
    eye.until_good()


def test_parts_that_wait_when_the_process_is_exchanged_are_not_forgotten(watch):  # noqa: F811
    """It is recycled, or the agent ends: what was seen and not judged is said once, and no later part pays for it."""
    eye = watch(part_every="200ms", fps=1, trigger={"kind": "simulated", "within": "60s"}, recycle_above="1MiB")
    eye.until(lambda: eye.count("recycled") >= 2 and "no-picture" in eye.reasons())
    eye.end()
    assert not eye.eye._parts
    parts = [verdict.details["part"] for verdict in about_parts(eye)]
    assert len(set(parts)) == len(parts)
    assert eye.eye.summary()["last_part"] in parts


def test_without_its_sensor_nothing_is_inspected_and_that_is_said(watch, tmp_path):  # noqa: F811
    """Not a word of good: a fault that names the line, put on record again and again; metering never notices."""
    eye = watch(trigger={"kind": "gpio", "line": 5, "chip": 97}, report_every="500ms")
    eye.until(lambda: eye.reasons().count("no-trigger") >= 2)
    assert set(eye.labels()) == {"not-inspected"}
    (fault,) = eye.health.faults()
    assert (fault.source, fault.reason) == ("camera.cam.trigger", "no-trigger")
    assert "gpiochip97" in fault.hint
    assert eye.count("restarts") == 0


def test_what_moved_is_judged_when_it_is_still(watch, tmp_path):  # noqa: F811
    """Pictures of a folder: the belt, a part that comes, rests and goes; the rest is judged once."""
    (tmp_path / "pictures").mkdir()
    line = Conveyor((320, 240), 1.0, 0, 1)
    places = [0.02] * 4 + [0.2, 0.3, 0.4] + [0.5] * 6
    for number, place in enumerate(places):
        (tmp_path / "pictures" / f"{number:02}.jpg").write_bytes(opencv.encode_jpeg(line.draw(place)))
    eye = watch("folder", source="pictures", every="50ms", trigger={"kind": "motion", "still": "80ms"})
    eye.until(lambda: eye.count("grabbed") >= len(places) and eye.verdicts)
    eye.until(lambda: eye.verdicts[-1].details["file"] > "06.jpg")
    files = [verdict.details["file"] for verdict in eye.verdicts]
    assert len(files) <= 2, "the rest is judged once, and what lay there at the start perhaps"
    assert not {"04.jpg", "05.jpg", "06.jpg"} & set(files)
    assert eye.eye.summary()["last_part"] == eye.verdicts[-1].details["part"]


def test_who_waits_for_motion_in_the_dark_says_so(watch):  # noqa: F811
    """Nothing moves in a black picture: that is no empty belt, and it is a fault after a while."""
    eye = watch(trigger={"kind": "motion"}, faults=[{"kind": "black"}], deadline="500ms")
    eye.until(lambda: [(fault.source, fault.reason) for fault in eye.health.faults()] == [("camera.cam", "black")])
    assert set(eye.reasons()) == {"black"}
    assert eye.count("grabbed") > 3 * len(eye.verdicts)
