"""An eye and its parent, with real processes: what happens over there stays over there."""

import hashlib
import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from drivers import opencv
from edge_agent import catalogue
from edge_agent.child import Child
from edge_agent.clock import SystemClock
from edge_agent.health import Health
from edge_agent.stages.eye import Eye, glance
from tests.cameras.conftest import bad_jpeg, bad_picture, good_jpeg, good_picture  # noqa: F401 - fixtures
from tests.cameras.far_ends import HttpCamera, RtspCamera, part, stream_head
from tests.cameras.test_pictures import png_claiming
from tests.cameras.test_stream import fake_v4l2  # noqa: F401 - a fixture
from tests.patience import SLOWNESS, lasting

PATIENCE_S = 60 * SLOWNESS  # until a test fails; nothing waits that long when it works
QUICK = {"size": "320x240", "fps": 50, "every": "40ms", "deadline": lasting(0.8), "open_deadline": lasting(20)}
ROOT = Path(__file__).parents[2]


class Watch:
    """An eye that runs in a thread, and everything it said."""

    def __init__(self, folder: Path, kind: str, settings: dict, **more) -> None:
        self.clock = SystemClock()
        self.health = Health(self.clock)
        self.verdicts = []
        self.evidence = []
        self.pids = []
        self.folder = folder
        self._changed = threading.Condition()
        self._stop = threading.Event()
        section = catalogue.load(catalogue.CAMERAS, kind).Settings.model_validate({"kind": kind, **settings})
        self.eye = Eye(
            "cam",
            kind,
            section,
            folder / "evidence",
            self.clock,
            self.health,
            on_verdict=lambda verdict: self._note(self.verdicts, verdict),
            on_evidence=lambda evidence: self._note(self.evidence, evidence),
            relative_to=folder,
            **more,
        )
        self._thread = threading.Thread(target=self.eye.body, args=(self._stop, self._progress))
        self._thread.start()

    def _note(self, drawer, noun):
        with self._changed:
            drawer.append(noun)
            self._changed.notify_all()

    def _progress(self):
        with self._changed:
            self._changed.notify_all()

    def until(self, condition):
        """Wait until it holds; fails with what was said instead."""
        with self._changed:
            if not self._changed.wait_for(condition, PATIENCE_S):
                said = [(verdict.label, verdict.reason) for verdict in self.verdicts[-20:]]
                pytest.fail(f"{said} {self.health.counters()} {self.health.faults()}")

    def labels(self):
        return [verdict.label for verdict in self.verdicts]

    def reasons(self):
        return [verdict.reason for verdict in self.verdicts]

    def until_good(self):
        """Until a new good verdict comes."""
        already = len(self.verdicts)
        self.until(lambda: "good" in self.labels()[already:])

    def until_reason(self, reason):
        already = len(self.verdicts)
        self.until(lambda: reason in self.reasons()[already:])

    def count(self, name):
        return self.health.counters().get(f"camera.cam.{name}", 0)

    def child(self) -> int:
        """The process that is alive now."""
        for pid in Path(f"/proc/{os.getpid()}/task/{self._thread.native_id}/children").read_text().split():
            if "edge_agent.eye_process" in _command(int(pid)):
                self.pids.append(int(pid))
                return int(pid)
        pytest.fail("no eye process")

    def end(self):
        self._stop.set()
        self._thread.join(PATIENCE_S)
        assert not self._thread.is_alive()


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""


@pytest.fixture
def watch(tmp_path):
    """Start watching; ended and checked for leftovers afterwards."""
    watches = []

    def start(kind="simulated", _folder=tmp_path, _more=None, **settings):
        watches.append(Watch(_folder, kind, {**(QUICK if kind == "simulated" else {}), **settings}, **(_more or {})))
        return watches[-1]

    yield start
    for watched in watches:
        watched.end()
        assert not any(_command(pid) for pid in watched.pids), "a process was left behind"


# --- what it sees


def test_a_defect_is_seen_and_proven(watch):
    """A part with a spot is a defect; the pictures around it are complete, and their hashes are true."""
    eye = watch(part_every="400ms", defect_every=3, evidence={"pre": 2, "post": 1, "uncertain": {"margin": 0}})
    eye.until(lambda: {report.role for report in eye.evidence} == {"pre", "verdict", "overlay", "post"})
    verdict = next(verdict for verdict in eye.verdicts if verdict.label == "defect")
    assert verdict.decided_by == "rule/dark-spot@1"
    assert verdict.score >= verdict.threshold
    assert verdict.latency_ms >= 0
    assert verdict.evidence in {report.id for report in eye.evidence}
    assert "good" in eye.labels()
    for report in eye.evidence:
        path = Path(report.path)
        data = path.read_bytes()
        assert path.parent == eye.folder / "evidence" / "cam"
        assert (hashlib.sha256(data).hexdigest(), len(data)) == (report.sha256, report.size_bytes)
        assert opencv.decode(data, 10**6).shape == (240, 320, 3)


USELESS = {
    "black": "black",
    "over-exposed": "over-exposed",
    "frozen": "frozen",
    "truncated": "truncated",
    "torn": "damaged",
    "wrong-size": "wrong-size",
}


def test_a_picture_that_shows_nothing_is_never_good(watch, tmp_path):
    """From the first such picture on: not inspected, with the reason, and after a while a fault."""
    eyes = {
        fault: watch(_folder=tmp_path / fault, faults=[{"kind": fault}], picture={"frozen_after": 1}, deadline="1s")
        for fault in USELESS
    }
    for fault, eye in eyes.items():
        eye.until(eye.health.faults)
        first = 1 if fault == "frozen" else 0  # it takes two pictures to see that they are the same
        assert set(eye.labels()[first:]) == {"not-inspected"}
        assert set(eye.reasons()[first:]) == {USELESS[fault]}
        assert [(known.source, known.reason) for known in eye.health.faults()] == [("camera.cam", USELESS[fault])]


def test_only_the_newest_picture_is_judged_and_the_others_are_counted(watch):
    """A camera that is faster than the judge loses nothing but old pictures."""
    eye = watch(fps=100, every="200ms")
    eye.until(lambda: eye.count("dropped") > 20)
    assert eye.count("grabbed") > 20
    assert eye.count("judged") < eye.count("grabbed") / 3
    assert eye.eye.fps > 0


def test_every_file_of_a_folder_is_judged_once(watch, tmp_path, good_jpeg, bad_jpeg):  # noqa: F811
    """Bombs, texts, empty and damaged files are not inspected, each with its reason; the good ones are judged."""
    files = {
        "a-good.jpg": (good_jpeg, "good", None),
        "b-bomb.png": (png_claiming(20_000, 20_000), "not-inspected", "too-large"),
        "c-empty.jpg": (b"", "not-inspected", "truncated"),
        "d-text.jpg": (b"I am a text", "not-inspected", "not-a-picture"),
        "e-cut.jpg": (good_jpeg[: len(good_jpeg) // 2], "not-inspected", "truncated"),
        "f-torn.jpg": (good_jpeg[: len(good_jpeg) // 2] + b"\xff\xd9", "not-inspected", "damaged"),
        "g-bad.jpg": (bad_jpeg, "defect", None),
        "h-good.jpg": (good_jpeg, "good", None),
    }
    (tmp_path / "pictures").mkdir()
    for name, (data, _, _) in files.items():
        (tmp_path / "pictures" / name).write_bytes(data)
    eye = watch("folder", source="pictures", every="10ms")
    eye.until(lambda: len(eye.verdicts) == len(files))
    seen = {verdict.details["file"]: (verdict.label, verdict.reason) for verdict in eye.verdicts}
    assert seen == {name: (label, reason) for name, (_, label, reason) in files.items()}
    (tmp_path / "pictures" / ".i.jpg").write_bytes(good_jpeg)
    (tmp_path / "pictures" / ".i.jpg").rename(tmp_path / "pictures" / "i.jpg")
    eye.until(lambda: len(eye.verdicts) == len(files) + 1)
    assert eye.count("restarts") == 0
    assert eye.health.faults() == []


# --- what goes wrong over there


def test_a_process_that_dies_is_replaced(watch, tmp_path):
    """Killed (as for want of memory) or crashed: not inspected at once, judged again soon."""
    numbers = (signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT)
    eyes = {number: watch(_folder=tmp_path / number.name) for number in numbers}
    for number, eye in eyes.items():
        eye.until_good()
        os.kill(eye.child(), number)
        eye.until_reason("camera-crashed")
        assert number.name in eye.health.faults()[0].hint
    for eye in eyes.values():
        eye.until_good()
        assert eye.health.faults() == []
        assert eye.count("restarts") == 1


def test_a_process_that_hangs_is_killed_and_replaced(watch):
    """No sign of life within the deadline is enough, also when it cannot be asked to end."""
    eye = watch()
    eye.until_good()
    hung = eye.child()
    os.kill(hung, signal.SIGSTOP)
    eye.until_reason("camera-hung")
    eye.until_good()
    assert not _command(hung)
    assert eye.count("killed") == 1


def test_a_camera_that_hangs_crashes_or_is_unplugged(watch, tmp_path):
    """Not inspected with the reason, and it comes back; its script goes on over all lives of its process."""
    reasons = {"hang": "camera-hung", "crash": "camera-crashed", "unplug": "unplugged"}
    eyes = {
        fault: watch(
            _folder=tmp_path / fault,
            faults=[{"kind": fault, "for": "4s"}],
            open_deadline="2s" if fault == "hang" else "20s",  # a busy machine starts a process slowly
        )
        for fault in reasons
    }
    for fault, eye in eyes.items():
        eye.until(lambda eye=eye: "good" in eye.labels())
        assert eye.reasons()[0] == reasons[fault]
        eye.until(lambda eye=eye: eye.health.faults() == [])


def test_a_camera_that_stays_away_is_put_on_record_again_and_again(watch):
    """Once per period, so that the record shows it, and not more."""
    eye = watch(faults=[{"kind": "unplug", "at": "0s"}], report_every="500ms")
    eye.until(lambda: len(eye.verdicts) >= 4)
    assert set(eye.reasons()) == {"unplugged"}
    stamps = [verdict.at.mono_ns for verdict in eye.verdicts]
    assert all(later - earlier >= 500_000_000 for earlier, later in itertools.pairwise(stamps))
    assert eye.count("restarts") == 0


def test_a_camera_that_becomes_slow_is_said_and_goes_on(watch):
    """A tenth of the pictures that were asked for: a fault with both numbers, while what comes is judged."""
    eye = watch(faults=[{"kind": "slow", "at": "0s", "for": "6s"}])
    eye.until(lambda: [fault.source for fault in eye.health.faults()] == ["camera.cam.pace"])
    assert "of 50" in eye.health.faults()[0].hint
    eye.until_good()
    eye.until(lambda: eye.health.faults() == [])


def test_a_process_that_grows_too_large_is_recycled(watch):
    """It is started anew, which is no fault and no gap worth a verdict."""
    eye = watch(recycle_above="1MiB")
    eye.until(lambda: eye.count("recycled") >= 1)
    eye.until_good()
    assert "not-inspected" not in eye.labels()
    assert eye.health.faults() == []


NONSENSE = """
import socket, sys
link = socket.socket(fileno=int(sys.argv[1]))
link.recv(100000)
link.send({packet!r})
link.recv(1)
"""


@pytest.mark.parametrize(
    "packet",
    [
        b"garbage",
        json.dumps({"say": "dance"}).encode(),
        json.dumps({"say": "verdict", "verdict": {"subject": "cam", "label": "good"}}).encode(),
        json.dumps({"say": "evidence", "evidence": {"camera": "cam", "id": "x", "path": "/etc/shadow"}}).encode(),
        json.dumps({"say": "alive", "alive": {"counts": {"grabbed": "many"}}}).encode(),
        b'{"say": "alive", "alive": {"counts": {}, "fps": Infinity, "rss_bytes": 1, "remarks": []}}',
        b"[" * 60_000,
    ],
)
def test_a_process_that_talks_nonsense_is_ended(watch, tmp_path, monkeypatch, packet):
    """It handled hostile pictures and may have been taken over; the agent believes nothing and starts another."""
    (tmp_path / "taken_over.py").write_text(NONSENSE.format(packet=packet))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    start = Child.start
    monkeypatch.setattr(Child, "start", lambda _module, order, clock: start("taken_over", order, clock))
    eye = watch()
    eye.until(lambda: eye.count("nonsense") >= 1)
    assert eye.reasons() == ["camera-crashed"]
    assert eye.evidence == []


# --- life and death


def test_at_the_end_nothing_is_left(watch):
    """Stop ends the process too, gently: what it was writing is complete, and reported."""
    eye = watch(defect_every=1, evidence={"pre": 0, "post": 0, "overlay": False, "uncertain": {"margin": 0}})
    eye.until(lambda: "defect" in eye.labels())
    pid = eye.child()
    eye.end()
    assert not _command(pid)
    kept = {verdict.evidence for verdict in eye.verdicts if verdict.evidence}
    assert kept == {report.id for report in eye.evidence}
    assert {path.stem for path in (eye.folder / "evidence" / "cam").glob("*.jpg")} == kept


def test_a_process_that_does_not_end_is_killed(watch):
    """A stop does not wait for a camera that hangs."""
    eye = watch(deadline="60s")
    eye.until_good()
    pid = eye.child()
    os.kill(pid, signal.SIGSTOP)
    eye.end()
    assert not _command(pid)


AGENT = """
import sys, threading
from pathlib import Path
from edge_agent import catalogue
from edge_agent.clock import SystemClock
from edge_agent.health import Health
from edge_agent.stages.eye import Eye
kind = catalogue.load(catalogue.CAMERAS, "simulated")
settings = kind.Settings.model_validate({"kind": "simulated", "every": "50ms"})
clock = SystemClock()
note = lambda verdict: print(verdict.label, sorted({"cv2", "numpy"} & set(sys.modules)), flush=True)
eye = Eye("cam", "simulated", settings, Path(sys.argv[1]), clock, Health(clock), on_verdict=note, on_evidence=print)
eye.body(threading.Event(), lambda: None)
"""


def test_the_process_dies_with_the_agent_and_leaves_its_memory_small(tmp_path):
    """SIGKILL of the agent ends the eye as well, even one that hangs; the agent itself never loaded OpenCV or NumPy."""
    with subprocess.Popen(
        [sys.executable, "-c", AGENT, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as agent:
        assert agent.stdout.readline() == "good []\n"
        pids = Path(f"/proc/{agent.pid}/task/{agent.pid}/children").read_text().split()
        assert len(pids) == 1
        eye = int(pids[0])
        assert Path(f"/proc/{eye}/oom_score_adj").read_text() == "500\n"
        os.kill(eye, signal.SIGSTOP)
        agent.kill()
    give_up = time.monotonic() + PATIENCE_S
    while _command(eye):
        assert time.monotonic() < give_up, "the eye lives on"
        time.sleep(0.02)


def test_signals_for_the_agent_do_not_reach_the_eye(watch):
    """Ctrl-C and a TERM to the whole group are the agent's business: it ends the eye in its own order."""
    eye = watch()
    eye.until_good()
    pid = eye.child()
    assert os.getpgid(pid) != os.getpgid(0)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        os.kill(pid, number)
    eye.until_good()
    assert eye.child() == pid


# --- real far ends


def test_a_usb_camera_is_unplugged_and_comes_back(watch, tmp_path, monkeypatch, fake_v4l2, good_jpeg):  # noqa: F811
    """The verdict says so, and the same camera is used again when it is plugged in."""
    device, frame = tmp_path / "video0", tmp_path / "frame.jpg"
    device.touch()
    frame.write_bytes(good_jpeg)
    for name, value in {"LD_PRELOAD": fake_v4l2, "FAKE_V4L2": device, "FAKE_V4L2_FRAME": frame}.items():
        monkeypatch.setenv(name, str(value))
    wanted = {"size": "640x480", "every": "50ms", "deadline": "1s", "picture": {"frozen_after": 0}}
    eye = watch("v4l2", source=str(device), **wanted)
    eye.until_good()
    device.unlink()
    eye.until(lambda: {"unplugged", "not-found"} & set(eye.reasons()))
    device.touch()
    eye.until_good()


def test_a_network_camera_stalls_breaks_and_comes_back(watch, good_jpeg, bad_jpeg):  # noqa: F811
    """A stall is a timeout, a broken connection is told, a truncated part is not inspected; then it goes on."""
    answers = iter(
        [
            [stream_head(), part(good_jpeg), part(good_jpeg)[:5000], None],
            [b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"],
            [stream_head(), part(good_jpeg[:5000]), b"--frame\r\n", part(good_jpeg), None],
            [stream_head(), part(bad_jpeg), part(bad_jpeg), None],
        ]
    )

    def answer():
        for piece in next(answers, [None]):
            if piece is None:
                server.stop.wait(PATIENCE_S)
                return
            yield piece
            server.stop.wait(0.2)

    server = HttpCamera(answer)
    eye = watch("http", source=server.url, every="20ms", deadline="800ms")
    eye.until(lambda: "defect" in eye.labels())
    server.close()
    story = [verdict.reason or verdict.label for verdict in eye.verdicts]
    expected = ["good", "timeout", "not-found", "truncated", "good", "timeout", "defect"]
    assert [word for n, word in enumerate(story) if story[n - 1 : n] != [word]][:7] == expected
    assert eye.count("restarts") == 0


def test_an_rtsp_camera_that_stalls_is_opened_again(watch, good_jpeg):  # noqa: F811
    """The deadline of the camera is shorter than that of its process, so that nothing needs to be killed."""
    server = RtspCamera(lambda: iter([good_jpeg] * 40 + [None]))  # FFmpeg looks at 20 before it says that it is open
    eye = watch("rtsp", source=server.url, every="50ms", deadline="1s", picture={"frozen_after": 0})
    eye.until_good()
    eye.until_reason("timeout")
    eye.until_good()
    server.close()
    assert eye.count("killed") == 0


STAND_IN = """
import numpy as np
from concurrent.futures import Future
class Picamera2:
    def __init__(self, number): self.rng = np.random.default_rng(number)
    def create_video_configuration(self, **wanted): return wanted
    def configure(self, wanted): self.size = wanted["main"]["size"]
    def start(self): pass
    def stop(self): pass
    def close(self): pass
    def capture_array(self, name, wait):
        job = Future()
        job.set_result(self.rng.normal(120, 5, (self.size[1], self.size[0], 3)).astype(np.uint8))
        job.get_result = job.result
        return job
"""


def test_a_camera_module_works_where_the_system_has_picamera2(watch, tmp_path, monkeypatch):
    """Here a stand-in is on the path of the eye process."""
    (tmp_path / "picamera2.py").write_text(STAND_IN)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    eye = watch("csi", size="320x240", every="50ms")
    eye.until_good()


# --- a glance


def look(tmp_path, kind, within_s=PATIENCE_S, **settings):
    section = catalogue.load(catalogue.CAMERAS, kind).Settings.model_validate({"kind": kind, **settings})
    return glance("cam", kind, section, SystemClock(), within_s, relative_to=tmp_path)


def test_a_glance_says_what_the_camera_sees_and_keeps_nothing(tmp_path):
    """One verdict, no files, no process."""
    verdict = look(tmp_path, "simulated", defect_every=1, part_every="1h")
    assert verdict.label in {"good", "defect"}
    assert list(tmp_path.iterdir()) == []


def test_a_glance_at_a_camera_that_is_not_there(tmp_path):
    """The reason is that of the camera."""
    assert look(tmp_path, "folder", source="nowhere").reason == "not-found"


def test_a_glance_at_a_camera_that_hangs_ends_by_itself(tmp_path):
    """Nobody waits for ever."""
    hang = {"faults": [{"kind": "hang"}], "deadline": "60s"}
    assert look(tmp_path, "simulated", within_s=1.0, **hang).reason == "timeout"
