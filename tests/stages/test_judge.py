"""The line's models and their parent, with real processes: what happens over there stays over there."""

import json
import os
import signal
import threading
from pathlib import Path

import pytest

from edge_agent.clock import SystemClock
from edge_agent.deciders import asked_of, settling
from edge_agent.health import Health
from edge_agent.settings import ModelSection
from edge_agent.stages.judge import Judge
from edge_agent.vocabulary import Reading
from models.library import Library
from tests.models.lines import calibrated, install
from tests.patience import SLOWNESS, lasting

FIRST_TRIED = 100  # a fault is made by version, and meets every line that runs
PATIENCE_S = 90 * SLOWNESS  # until a test fails; nothing waits that long when it works
LIMITS = {"main.active_power": 100.0, "main.voltage_l1": 5.0}


class Config:
    """What the deciders want to know of a config."""

    def __init__(self, state, models, devices=None):
        self.state_dir = state
        self.models = models
        self.devices = devices or {}


class Line:
    """A line that says 20 times a second what it measures, and a judge that listens."""

    def __init__(self, state, _devices=None, **settings):
        self.state = state
        self.clock = SystemClock()
        self.health = Health(self.clock)
        self.verdicts = []
        self.news = []
        self.values = {"active_power": 1000.0, "voltage_l1": 230.0}
        self.absent = {}
        self.offered = 0
        sections = {
            "normal": ModelSection.model_validate(
                {"bundle": "line-normal", "devices": ["main"], "deadline": lasting(0.4), "trial": 10, **settings}
            )
        }
        config = Config(state, sections, _devices)
        self._changed = threading.Condition()
        self.judge = Judge(
            self.clock,
            self.health,
            sections,
            models=asked_of(config, sections),
            settle=settling(config, self.clock, self.health),
            on_verdict=self._note,
            on_news=self.news.append,
        )
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self.judge.body, args=(self._stop, lambda: None)),
            threading.Thread(target=self._measure),
        ]
        for thread in self._threads:
            thread.start()

    def _measure(self):
        while not self._stop.wait(0.05):
            self.judge.offer(Reading("main", self.clock.stamp(), dict(self.values), dict(self.absent)))
            self.offered += 1

    def _note(self, verdict):
        with self._changed:
            self.verdicts.append(verdict)
            self._changed.notify_all()

    def until(self, holds):
        """Wait for a verdict; fails with what was said instead."""
        seen = len(self.verdicts)
        with self._changed:
            if not self._changed.wait_for(lambda: any(holds(each) for each in self.verdicts[seen:]), PATIENCE_S):
                said = [(each.label, each.decided_by, each.reason, each.details) for each in self.verdicts[-3:]]
                pytest.fail(f"{said} {self.health.counters()} {self.health.faults()}")
            return next(each for each in self.verdicts[seen:] if holds(each))

    def until_label(self, label, by=""):
        return self.until(lambda verdict: verdict.label == label and by in verdict.decided_by)

    def child(self):
        [thread] = [thread for thread in self._threads if thread.is_alive()][:1]
        children = Path(f"/proc/{os.getpid()}/task/{thread.native_id}/children").read_text().split()
        return int(children[0])

    def until_remembered(self, case_id):
        """Until the parent has been told of this case, for the process after this one."""
        self.until(lambda _: case_id[len("normal-") :] in self.judge._memories.get("normal", ""))

    def audit(self):
        lines = (self.state / "audit" / "models.jsonl").read_text().splitlines()
        return [json.loads(line) for line in lines]

    def end(self):
        self._stop.set()
        for thread in self._threads:
            thread.join(PATIENCE_S)
            assert not thread.is_alive()


@pytest.fixture
def line(tmp_path):
    """Start a line; ended afterwards."""
    lines = []

    def start(**settings):
        lines.append(Line(tmp_path, **settings))
        return lines[-1]

    yield start
    for each in lines:
        each.end()


@pytest.fixture(scope="module")
def running(tmp_path_factory, faults):
    """A line with two releases, for all who leave it as it was."""
    faults({})
    state = tmp_path_factory.mktemp("state")
    install(state, LIMITS)
    install(state, LIMITS, version=2)
    line = Line(state)
    yield line
    line.end()


@pytest.fixture
def press(running):
    """That line, calm."""
    running.values, running.absent = {"active_power": 1000.0, "voltage_l1": 230.0}, {}
    running.until_label("normal", by="line-normal@2")
    return running


def test_an_anomaly_is_one_case_that_names_its_quantity(press):
    """Which quantity, in which direction, since when; put on record when it opens and when it closes."""
    normal = press.until_label("normal")
    assert normal.decided_by == "line-normal@2/int8-onnx"
    assert len(normal.model_sha256) == 64
    assert normal.latency_ms > 0
    told = len(press.news)
    press.values["active_power"] = 1400.0
    first = press.until_label("anomaly")
    assert first.details["off"][0].items() >= {"quantity": "main.active_power", "direction": "high"}.items()
    assert first.details["case_id"] == f"normal-{first.details['since']}"
    assert first.score >= first.threshold
    press.until(lambda verdict: verdict.label == "anomaly" and verdict is not first)
    press.values["active_power"] = 1000.0
    press.until_label("normal")
    assert [verdict.label for verdict in press.news[told:]] == ["anomaly", "normal"]


def test_what_is_absent_is_not_judged(press):
    """A device that gives nothing makes the line unknown, never normal."""
    press.absent, press.values = dict.fromkeys(press.values, "timeout"), {}
    unknown = press.until_label("unknown")
    assert sorted(unknown.details["absent"]) == sorted(LIMITS)


def test_a_model_that_takes_its_process_along_is_left_out(tmp_path, line, fault):
    """Twice in a row, then the model before decides, and its name stands in the verdict and in the fault."""
    install(tmp_path, LIMITS, version=11)
    install(tmp_path, LIMITS, version=12)
    fault({"12": "crash"})
    press = line()
    lost = press.until(lambda verdict: verdict.decided_by == "nobody")
    assert (lost.label, lost.reason) == ("unknown", "judge-failed")
    assert "SIGSEGV" in lost.details["why"]
    assert "while line-normal 12-" in lost.details["why"]
    before = press.offered
    fallback = press.until_label("normal", by="line-normal@11")
    assert "left out" in fallback.details["failed"][0]
    assert press.health.counters()["models.restarts"] == 2
    assert press.offered > before
    press.until(lambda _: any(fault.source == "model.normal.fallbacks" for fault in press.health.faults()))
    assert press.health.counters()["model.normal.fallbacks"] > 0


def test_a_model_that_hangs_is_ended(press, fault):
    """Its process is killed when it gives no sign of life, and the verdict says who was asked meanwhile."""
    killed = press.health.counters().get("models.killed", 0)
    fault({"2": "hang"})
    lost = press.until(lambda verdict: verdict.decided_by == "nobody")
    fault({})
    assert (lost.label, lost.reason) == ("unknown", "judge-failed")
    assert "no sign of life" in lost.details["why"]
    assert "while line-normal 2-" in lost.details["why"]
    assert press.health.counters()["models.killed"] == killed + 1
    press.until_label("normal", by="line-normal@2")


def test_a_score_that_is_no_number_is_left_to_the_next(press, fault):
    """NaN is no low score."""
    restarts = press.health.counters().get("models.restarts", 0)
    fault({"2": "nan"})
    verdict = press.until_label("normal", by="line-normal@1")
    assert "line-normal@2" in verdict.details["failed"][0]
    assert press.health.counters().get("models.restarts", 0) == restarts


def test_without_a_bundle_nothing_is_decided_and_that_is_a_fault(line):
    """The daemon runs all the same, and says what to do; when the bundle comes, it decides."""
    press = line()
    verdict = press.until_label("unknown", by="nobody")
    assert "no bundle 'line-normal' is installed" in verdict.details["failed"][0]
    press.until(lambda _: any(fault.source == "models.remarks" for fault in press.health.faults()))
    install(press.state, LIMITS)
    press.judge.roster.look_again()
    press.until_label("normal", by="line-normal@1")


def test_a_process_that_is_killed_comes_back_and_knows_what_it_knew(tmp_path, line):
    """As for want of memory: no baseline of a minute forms anew, and an open case is still the same."""
    now_s = SystemClock().stamp().wall_ms / 1000
    install(tmp_path, LIMITS, **calibrated(LIMITS, (1000.0, 230.0), now_s))
    press = line()
    press.until_label("normal")
    press.values["active_power"] = 1400.0
    case_id = press.until(lambda verdict: "case_id" in verdict.details).details["case_id"]
    press.until_remembered(case_id)
    before = len(press.verdicts)
    os.kill(press.child(), signal.SIGKILL)
    lost = press.until(lambda verdict: verdict.decided_by == "nobody")
    assert "SIGKILL" in lost.details["why"]
    press.until_label("anomaly")
    after = [verdict for verdict in press.verdicts[before:] if verdict.decided_by != "nobody"]
    assert {(each.label, each.decided_by) for each in after} == {("anomaly", "line-normal@1/int8-onnx")}
    assert {each.details["case_id"] for each in after} == {case_id}
    assert press.health.faults() == []


# --- a new release beside the one in use


@pytest.fixture(scope="module")
def trying(tmp_path_factory, faults):
    """A line on which one candidate after the other is tried."""
    faults({})
    state = tmp_path_factory.mktemp("trials")
    install(state, LIMITS, version=FIRST_TRIED)
    line = Line(state)
    line.version = FIRST_TRIED
    yield line
    line.end()


def offer(press):
    """A new version beside the one in use; its number."""
    press.version += 1
    install(press.state, LIMITS, offer=True, version=press.version, clock=press.clock)
    press.judge.roster.look_again()
    return press.version


def test_a_good_candidate_takes_over_without_a_gap(trying):
    """After as many judgements as the config says; the old one stays behind it, and one line says why."""
    old = trying.until_label("normal").decided_by
    before, restarts = len(trying.verdicts), trying.health.counters().get("models.restarts", 0)
    version = offer(trying)
    trying.until_label("normal", by=f"line-normal@{version}")
    assert {verdict.decided_by for verdict in trying.verdicts[before:]} == {old, f"line-normal@{version}/int8-onnx"}
    trying.until(lambda _: trying.audit()[-1]["what"] == "promote")
    now = Library(trying.state, trying.clock).in_use("line-normal")
    assert (now.current.split("-")[0], now.previous.split("-")[0]) == (
        str(version),
        old[len("line-normal@") :].split("/")[0],
    )
    assert now.candidate is None
    last = trying.audit()[-1]
    assert (last["judgements"], last["same"]) == (10, 10)
    assert "100.0% of 10 judgements" in last["why"]
    assert trying.health.counters().get("models.restarts", 0) == restarts


def test_a_candidate_that_loads_slowly_is_not_taken_for_one_that_hangs(trying, fault):
    """Longer than judging may take: a small computer needs seconds to start a runtime."""
    trying.until_label("normal")
    restarts = trying.health.counters().get("models.restarts", 0)
    fault({str(trying.version + 1): "slow-to-load"})
    version = offer(trying)
    trying.until_label("normal", by=f"line-normal@{version}")
    assert trying.health.counters().get("models.restarts", 0) == restarts


@pytest.mark.parametrize(
    ("kind", "why"), [("disagree", "agrees in 0.0%"), ("nan", "failed"), ("crash", "SIGSEGV"), ("hang", "no sign of")]
)
def test_a_bad_candidate_goes_and_the_old_one_stays(trying, fault, kind, why):
    """Disagreement, nonsense, a crash or a hang: rolled back by itself, at once, and on record."""
    old = trying.until_label("normal").decided_by
    before = Library(trying.state, trying.clock).in_use("line-normal").current
    lines = len(trying.audit())
    fault({str(trying.version + 1): kind})
    offer(trying)
    trying.until(lambda _: trying.audit()[-1]["what"] == "reject")
    trying.until_label("normal", by=old)
    assert Library(trying.state, trying.clock).in_use("line-normal").current == before
    assert [each["what"] for each in trying.audit()[lines:]] == ["offer", "reject"]
    assert why in trying.audit()[-1]["why"]


def test_a_release_that_is_taken_back_stops_deciding(tmp_path, line):
    """Rollback works on the running daemon."""
    install(tmp_path, LIMITS)
    install(tmp_path, LIMITS, version=2)
    press = line()
    press.until_label("normal", by="line-normal@2")
    Library(tmp_path, press.clock).rollback("line-normal", who="operator", why="false alarms")
    press.judge.roster.look_again()
    press.until_label("normal", by="line-normal@1")


class Plan:
    """A device of a config."""

    def __init__(self, name, quantities):
        self.name = name
        self.quantities = quantities


def test_without_a_model_the_rule_decides_and_is_named(line):
    """Each quantity by itself: better than nobody, and nobody takes it for the model."""
    press = line(_devices={"main": Plan("main", {"active_power": None, "voltage_l1": None})})
    verdict = press.until_label("normal", by="rule/sanity@1")
    assert "no bundle 'line-normal' is installed" in verdict.details["failed"][0]
    assert "model_sha256" not in verdict.details
