"""The parts of an eye process: the slot, the grab thread, and who decides."""

import threading

import numpy as np
import pytest

from edge_agent.camera_settings import CameraSection
from edge_agent.clock import ManualClock
from edge_agent.contracts import Frame
from edge_agent.deciding import Deciding, Numbered
from edge_agent.errors import CameraError, PictureError
from edge_agent.evidence import Keeper, Pencil
from edge_agent.evidence_folder import EvidenceFolder
from edge_agent.grabber import Grabber, Slot
from edge_agent.looking import Eye, doubt
from edge_agent.mark import Mark
from edge_agent.triggers import Occasion
from edge_agent.vocabulary import Judgement, Verdict

AT = ManualClock().stamp()


def frame(number: int = 0) -> Frame:
    return Frame(AT, image=number)


def test_the_newest_picture_wins_and_the_others_are_counted():
    """A judge that is slower than the camera sees the present."""
    slot = Slot()
    for number in range(5):
        slot.put(frame(number))
    assert slot.take(0).image == 4
    assert slot.take(0) is None
    assert (slot.grabbed, slot.dropped) == (5, 4)


def test_a_picture_that_comes_while_waiting_is_taken_at_once():
    """Nobody polls."""
    slot = Slot()
    threading.Timer(0.05, slot.put, [frame(1)]).start()
    assert slot.take(30).image == 1


class Script:
    """A camera that does one step per call: a frame, None, or an exception."""

    def __init__(self, steps, opens=(), *, streams=True):
        self.steps = list(steps)
        self.opens = list(opens)
        self.streams = streams
        self.calls = []

    def open(self):
        self.calls.append("open")
        if self.opens and (failure := self.opens.pop(0)):
            raise failure

    def grab(self):
        self.calls.append("grab")
        step = self.steps.pop(0) if self.steps else None
        if isinstance(step, Exception):
            raise step
        return step

    def remarks(self):
        return ("look here",)

    def close(self):
        self.calls.append("close")


class Told:
    """Messages of a grabber; stops it after so many."""

    def __init__(self, stop, most):
        self.stop = stop
        self.most = most
        self.said = []

    def __call__(self, say, **what):
        self.said.append((say, what.get("reason")))
        if len(self.said) >= self.most:
            self.stop.set()


def run(camera, most):
    stop = threading.Event()
    told = Told(stop, most)
    grabber = Grabber(camera, 1.0, ManualClock(), stop, told)
    grabber.run()
    return grabber, told.said


def test_a_camera_that_fails_is_closed_and_opened_again():
    """Each failure is told once, with its reason."""
    camera = Script([frame(), CameraError("unplugged", "gone"), frame(), CameraError("timeout", "silent")])
    _, said = run(camera, 6)
    assert said == [
        ("opening", None),
        ("open", None),
        ("fault", "unplugged"),
        ("opening", None),
        ("open", None),
        ("fault", "timeout"),
    ]
    assert camera.calls == ["open", "grab", "grab", "close"] * 2


def test_the_last_picture_of_a_camera_that_is_gone_is_not_judged():
    """Or it would say that all is well after the fault."""
    grabber, _ = run(Script([frame(), CameraError("unplugged", "gone")]), 3)
    assert grabber.slot.take(0) is None


def test_a_picture_that_is_lost_does_not_close_the_camera():
    """It takes the place of a picture: not inspected, with its reason."""
    camera = Script([PictureError("truncated", "cut"), CameraError("timeout", "end")])
    grabber, _ = run(camera, 3)
    assert camera.calls == ["open", "grab", "grab", "close"]
    assert grabber.slot.grabbed == 1


def test_waiting_between_attempts_grows_and_counts_as_life():
    """A camera that cannot be opened is tried less and less often, and nobody thinks that the process hangs."""
    clock, stop = ManualClock(), threading.Event()
    tries_ns = []

    def tell(say, **_what):
        if say == "opening":
            tries_ns.append(clock.mono_ns())
            if len(tries_ns) == 8:
                stop.set()

    camera = Script([], [CameraError("not-found", "none")] * 20)
    grabber = Grabber(camera, 1.0, clock, stop, tell)
    grabber.run()
    waits_s = np.diff(tries_ns) / 1e9
    assert list(waits_s) == sorted(waits_s)
    assert waits_s[0] < 0.7
    assert waits_s[-1] > 15
    assert grabber.progress >= sum(waits_s)


def test_a_recording_gives_a_picture_only_when_one_is_wanted():
    """None is skipped, however slow the judge."""
    camera = Script([frame(n) for n in range(3)], streams=False)
    stop = threading.Event()
    grabber = Grabber(camera, 0.01, ManualClock(), stop, lambda *_, **__: None)
    thread = threading.Thread(target=grabber.run)
    thread.start()
    seen = [grabber.slot.take(30).image for _ in range(3)]
    assert seen == [0, 1, 2]
    assert grabber.slot.dropped == 0
    assert camera.calls.count("grab") == 3
    stop.set()
    thread.join(30)
    assert not thread.is_alive()


def test_a_frozen_camera_is_opened_again():
    """Who judges may ask for it."""
    stop = threading.Event()
    told = Told(stop, 3)
    camera = Script([frame()] * 5)
    grabber = Grabber(camera, 1.0, ManualClock(), stop, told)
    grabber.open_again()
    grabber.run()
    assert told.said[-1] == ("fault", "frozen")


# --- who decides


class Scripted:
    """A judge that says or raises what it is told."""

    model_sha256 = "ab" * 32

    def __init__(self, name, answer):
        self.decided_by = name
        self.answer = answer

    def judge(self, image):
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def look(tmp_path, *judges, image=None, **settings):
    section = CameraSection.model_validate({"kind": "simulated", **settings})
    folder = EvidenceFolder(tmp_path, section.evidence)
    pencil = Pencil(print, lambda *_: b"", print, print)
    keeper = Keeper("cam", section.evidence, folder, pencil, ManualClock(), lambda _: None, lambda _: None)
    if image is None:
        image = np.random.default_rng(0).normal(120, 5, (48, 64, 3)).clip(0, 255).astype(np.uint8)
    shot = image if isinstance(image, PictureError) else Frame(AT, image=image, name="part.png")
    mark, clock = Mark.fresh(), ManualClock()
    deciders = [Numbered(judge, who, mark) for who, judge in enumerate(judges, 1)]
    models = [Deciding("pitting", "cam", deciders, mark, clock, 5.0)]
    verdict, _ = Eye("cam", section, models, keeper, clock, lambda *_, **__: None).look(Occasion(shot))
    return verdict


GOOD = Judgement("good", 0.1, 0.5, {"at_px": [1, 2]})


def said(label, score=0.9, threshold=0.5):
    return Verdict("cam", AT, label, "m@1", score, threshold)


@pytest.mark.parametrize(
    ("verdicts", "why"),
    [
        ([said("good", 0.44)], None),
        ([said("good", 0.46)], "near-threshold"),
        ([said("defect", 0.54)], "near-threshold"),
        ([said("defect", 0.56)], None),
        ([said("good", -3.9, -4.0)], "near-threshold"),
        ([said("good", 0.1), said("defect", 0.9)], "models-disagree"),
        ([said("good", 0.1), said("anomaly", 0.9)], "models-disagree"),
        ([said("defect", 0.9), said("anomaly", 0.9)], None),
        ([said("good", 0.1), said("unknown", None, None)], None),
        ([said("not-inspected", 0.5, 0.5)], None),
        ([], None),
    ],
)
def test_what_a_person_should_look_at(verdicts, why):
    """A score near its threshold, or models of which one has something against it and another has not."""
    assert doubt(verdicts, 0.1) == why
    assert doubt(verdicts, 0) is None


def test_a_verdict_says_everything_that_is_known(tmp_path):
    """Who, with which model, how sure, from which file."""
    verdict = look(tmp_path, Scripted("pitting@3", GOOD))
    assert (verdict.subject, verdict.label, verdict.decided_by, verdict.score) == ("cam", "good", "pitting@3", 0.1)
    assert (verdict.threshold, verdict.model_sha256) == (0.5, "ab" * 32)
    assert verdict.details == {"file": "part.png", "at_px": [1, 2]}
    assert verdict.evidence is None


@pytest.mark.parametrize(
    "failure",
    [
        RuntimeError("no memory"),
        Judgement("good", float("nan"), 0.5, {}),
        Judgement("good", float("-inf"), 0.5, {}),
        Judgement("perfect", 0.1, 0.5, {}),
        Judgement("good", 0.1, float("nan"), {}),
        Judgement("good", 0.1, 0.5, {"at_px": np.int64(3)}),
    ],
)
def test_when_the_model_cannot_the_rule_decides(tmp_path, failure):
    """A judge that raises, or says what is no number, is passed over, and the verdict names who decided instead."""
    verdict = look(tmp_path, Scripted("pitting@3", failure), Scripted("rule/dark-spot@1", GOOD))
    assert (verdict.label, verdict.decided_by) == ("good", "rule/dark-spot@1")
    assert "pitting@3" in verdict.details["failed"][0]


def test_when_nobody_can_nothing_is_good(tmp_path):
    """Unknown, with what went wrong."""
    verdict = look(tmp_path, Scripted("a", RuntimeError("x")), Scripted("b", ValueError("y")))
    assert (verdict.label, verdict.decided_by, verdict.reason, verdict.score) == (
        "unknown",
        "nobody",
        "judge-failed",
        None,
    )
    assert "RuntimeError: x" in verdict.details["failed"][0]


def test_the_gate_stands_before_the_judge(tmp_path):
    """A black picture is never shown to anybody who could call it good."""
    verdict = look(tmp_path, Scripted("a", GOOD), image=np.zeros((48, 64, 3), np.uint8))
    assert (verdict.label, verdict.reason, verdict.decided_by) == ("not-inspected", "black", "gate")


def test_a_lost_picture_is_not_inspected(tmp_path):
    """Its reason is the reason of the verdict."""
    verdict = look(tmp_path, Scripted("a", GOOD), image=PictureError("truncated", "cut"))
    assert (verdict.label, verdict.reason) == ("not-inspected", "truncated")


def test_a_defect_names_its_evidence(tmp_path):
    """The id that the picture will have."""
    verdict = look(tmp_path, Scripted("a", Judgement("defect", 0.9, 0.5, {})))
    assert verdict.evidence.startswith("cam-2026")
