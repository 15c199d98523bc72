"""When a picture is judged: by the clock, by a sensor that sees a part, by motion that ended."""

import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from drivers.gpio_input import PartSensor
from drivers.gpio_lines import mock_header
from drivers.simulated.part_sensor import SimulatedPartSensor
from edge_agent.camera_settings import TriggerSection
from edge_agent.clock import NS, ManualClock
from edge_agent.config import loads
from edge_agent.contracts import Frame
from edge_agent.errors import ConfigError, OutputError, PictureError
from edge_agent.inspection import eyes
from edge_agent.inspection.finding import Scene
from edge_agent.plan import KindPlan
from edge_agent.schedule import Backoff
from edge_agent.stages.eye import at_once
from edge_agent.triggers import ByPart, Motion, PartSlot


def trigger(**settings) -> TriggerSection:
    return TriggerSection.model_validate({"kind": "gpio", "line": 5, **settings})


# --- the config


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kind": "gpio"}, "needs the line"),
        ({"kind": "time", "line": 5}, "line: means nothing with kind: time"),
        ({"kind": "motion", "delay": "10ms", "line": 3}, "line, delay: means nothing with kind: motion"),
        ({"kind": "gpio", "line": 5, "moved": 0.1}, "moved: means nothing with kind: gpio"),
        ({"kind": "simulated", "edge": "rising"}, "edge: means nothing"),
        ({"kind": "gpio", "line": 99}, "53"),
        ({"kind": "gpio", "line": 5, "debounce": "1s"}, "0.3"),
        ({"kind": "gpio", "line": 5, "edge": "both"}, "falling"),
        ({"kind": "gpio", "line": 5, "dleay": "1s"}, "Extra"),
        ({"kind": "motion", "moved": 0}, "greater than 0"),
    ],
)
def test_what_means_nothing_is_refused(settings, message):
    """A delay without a sensor would be forgotten silently."""
    with pytest.raises(ValidationError, match=message):
        TriggerSection.model_validate(settings)


@pytest.mark.parametrize("kind", ["time", "motion", "simulated"])
def test_a_trigger_can_be_written_and_read_again(kind):
    """Every key stands in what the eye process is told, those of other kinds too."""
    section = TriggerSection(kind=kind)
    assert TriggerSection.model_validate(section.model_dump(mode="json")) == section


LINE = """
site: a
line: b
cameras:
  one: {{kind: simulated, trigger: {{kind: gpio, line: 17}}}}
  two: {{kind: simulated, trigger: {{kind: gpio, line: {line}}}}}
outputs:
  light: {{kind: gpio, red: 22, on_exit: red}}
"""


@pytest.mark.parametrize(("line", "message"), [(17, "line 17 is one's already"), (22, "line 22 is light's already")])
def test_a_line_has_one_owner(tmp_path, line, message):
    """Two sensors, or a sensor and a lamp, cannot share one."""
    with pytest.raises(ConfigError, match=message):
        loads(LINE.format(line=line), tmp_path / "config.yaml")
    assert loads(LINE.format(line=5), tmp_path / "config.yaml").cameras["two"].settings.trigger.line == 5


def test_a_wrong_key_names_the_right_one(tmp_path):
    """With its line of the file."""
    with pytest.raises(ConfigError, match="did you mean 'debounce'"):
        loads(LINE.format(line="5, debonce: 1ms"), tmp_path / "config.yaml")


def test_check_looks_without_waiting_for_a_part_and_claims_the_line(tmp_path):
    """Nobody puts a part in front of the camera for it; a machine without GPIO is told so."""
    config = loads(LINE.format(line=5), tmp_path / "config.yaml")
    scene = Scene(config, ManualClock())
    said = [step.doing for step in eyes.steps(scene)]
    assert "camera one: claiming the line of its sensor" in said
    assert at_once(config.cameras["one"].settings).trigger.kind == "time"
    chipless = config.cameras["one"].settings.model_copy(update={"trigger": trigger(chip=97)})
    (found,) = eyes.sense(scene, KindPlan("one", "simulated", object, chipless))
    assert (found.status, found.what) == ("fail", "trigger of one")
    assert "gpiochip97" in found.detail
    running = Scene(config, ManualClock(), {"cameras": {"one": {}}, "faults": []})
    assert [found.status for found in eyes.sense(running, config.cameras["one"])] == ["ok"]


# --- one picture per part


class Line:
    """A slot, and a clock that says when pictures and parts come."""

    def __init__(self, **settings) -> None:
        self.clock = ManualClock()
        self.slot = PartSlot(trigger(**settings), self.clock)
        self.number = 0

    def picture(self, after_s: float = 0.0) -> int:
        self.clock.advance(after_s)
        self.number += 1
        self.slot.put(Frame(self.clock.stamp(), image=self.number))
        return self.number

    def part(self, after_s: float = 0.0) -> None:
        self.clock.advance(after_s)
        self.slot.expect(self.clock.stamp())

    def next(self):
        """The number of the picture, why there is none, or None."""
        found = self.slot.occasion(0)
        if found is None:
            return None
        return found.shot.reason if isinstance(found.shot, PictureError) else found.shot.image


def test_the_first_picture_after_edge_and_delay_is_the_parts():
    """Pictures before it show the belt."""
    line = Line(delay="100ms")
    line.picture()
    line.part()
    line.picture(0.05)
    assert line.next() is None
    third = line.picture(0.05)
    line.picture(0.05)
    assert line.next() == third
    assert line.next() is None
    assert (line.slot.grabbed, line.slot.dropped) == (4, 3)


def test_parts_that_come_while_the_judge_is_busy_each_have_their_own_picture():
    """The newest picture would show another part, or none."""
    line = Line()
    taken = []
    for _ in range(3):
        line.part()
        taken.append(line.picture(0.03))
        line.picture(0.03)
    assert [line.next() for _ in range(4)] == [*taken, None]


def test_a_part_without_a_picture_is_not_inspected():
    """After `within`, with the camera's own trouble where it has one; the next part is another matter."""
    line = Line(within="500ms")
    line.part()
    assert line.next() is None
    line.clock.advance(0.6)
    assert line.next() == "no-picture"
    line.part()
    line.slot.clear("unplugged")
    line.clock.advance(0.6)
    assert line.next() == "unplugged"
    line.part()
    number = line.picture(0.1)
    line.slot.clear("unplugged")
    assert line.next() == number, "it came before the camera went"


def test_a_picture_that_comes_when_the_part_is_gone_is_not_the_parts():
    """Also while the judge is busy with another."""
    line = Line(within="500ms")
    line.part()
    line.picture(0.6)
    line.part()
    second = line.picture(0.1)
    assert [line.next(), line.next(), line.next()] == ["no-picture", second, None]


def test_a_broken_picture_is_the_parts_too():
    """It is not inspected with the reason; a later picture would not show it any more."""
    line = Line()
    line.part()
    line.slot.put(PictureError("truncated", "cut"))
    line.picture(0.03)
    assert line.next() == "truncated"
    assert line.next() is None


def test_a_judge_that_is_too_slow_does_not_fill_the_memory():
    """A few pictures wait; the parts of the others are not inspected, each of them."""
    line = Line()
    for _ in range(20):
        line.part()
        line.picture(0.01)
    said = [line.next() for _ in range(21)]
    assert said == ["no-picture"] * 16 + [17, 18, 19, 20, None]


def test_more_parts_than_anybody_can_look_at_are_said_one_by_one():
    """A sensor that flutters at 10 kHz costs verdicts, not memory."""
    line = Line()
    for _ in range(100):
        line.part()
    assert [line.next() for _ in range(36)] == ["no-picture"] * 36
    assert line.next() is None


@given(st.lists(st.sampled_from(["part", "picture", "gone", "broken", "take", "wait"]), max_size=120))
def test_every_part_gets_exactly_one_answer_in_its_order(steps):
    """Whatever happens to the camera."""
    line = Line(within="1s", delay="20ms")
    seen, parts, said = set(), [], []

    def take():
        found = line.slot.occasion(0)
        if found is not None:
            said.append(found.part)
            if not isinstance(found.shot, PictureError):
                assert 0.02 * NS <= found.shot.at.mono_ns - found.part.mono_ns <= 1.02 * NS
                assert found.shot.image not in seen
                seen.add(found.shot.image)
        return found

    for step in steps:
        line.clock.advance(0.01)
        match step:
            case "part":
                parts.append(line.clock.stamp())
                line.slot.expect(parts[-1])
            case "picture":
                line.picture()
            case "gone":
                line.slot.clear("unplugged")
            case "broken":
                line.slot.put(PictureError("damaged"))
            case "take":
                take()
            case "wait":
                line.clock.advance(0.5)
    line.clock.advance(5)
    while take() is not None:
        pass
    assert said == parts


def test_a_camera_that_is_asked_for_pictures_is_asked_when_the_part_is_there():
    """Not before: the picture would show the belt."""
    line = Line(delay="1s")
    assert line.slot.occasion(0) is None
    line.part()
    assert line.slot.occasion(0) is None
    assert not line.slot.wait_until_wanted(0)
    line.clock.advance(1)
    assert line.slot.occasion(0) is None
    assert line.slot.wait_until_wanted(0)
    line.picture()
    assert line.next() == 1
    assert not line.slot.wait_until_wanted(0)


# --- sensors


class Broken:
    def open(self):
        raise OutputError("GPIO 5 is in use by 'someone'", hint="stop that")


def test_a_sensor_that_cannot_be_asked_is_told_and_tried_again():
    """Its line may be given up by whoever has it; meanwhile nobody thinks that all is well."""
    clock, told = ManualClock(), []
    sensors = [Broken(), Broken(), SimulatedPartSensor(1.0, clock, clock.mono_ns(), stopped())]
    slot = PartSlot(trigger(), clock)
    tell = lambda say, **what: told.append((say, what["works"]))  # noqa: E731
    parts = ByPart(slot, lambda: sensors.pop(0), clock, tell, Backoff(0.5, 30, jitter=0))
    slot.occasion = lambda _timeout_s: None
    for _ in range(6):
        parts.next(threading.Event())
        clock.advance(0.5)
    assert told == [("sensor", False), ("sensor", False), ("sensor", True)]


def stopped() -> threading.Event:
    event = threading.Event()
    event.set()
    return event


class MockSensor(PartSensor):
    """A part sensor on mock pins."""

    def _make_factory(self):
        return self._factory or mock_header()


def seen_at(moves, **settings) -> int:
    """How often a sensor that moves its line so says that a part is there."""
    sensor, parts = MockSensor("sensor", trigger(debounce="0s", **settings)), []
    sensor.open()
    sensor.when_part(lambda: parts.append(1))
    pin = sensor._factory.pin(5)
    for level in moves:
        pin.drive_high() if level else pin.drive_low()
    sensor.close()
    pin.drive_high() if not moves[-1] else pin.drive_low()
    return len(parts)


def test_the_configured_edge_counts_and_no_other():
    """A falling edge per part for an open collector, a rising one for a sensor that drives; none after the end."""
    assert seen_at([0, 1, 0, 1, 0]) == 3
    assert seen_at([1, 0, 1, 0], edge="rising", pull="down") == 2


def test_the_chips_own_resistor_is_as_configured():
    """A sensor that drives both levels wants none."""
    for pull, set_to in (("up", "up"), ("down", "down"), ("none", "floating")):
        sensor = MockSensor("sensor", trigger(pull=pull))
        sensor.open()
        assert sensor._factory.pin(5).pull == set_to
        assert sensor._factory.pin(5).function == "input"
        sensor.close()


def test_the_simulated_sensor_sees_each_part_in_the_middle():
    """In step with the simulated conveyor, whenever the process was started."""
    clock = ManualClock()
    since_ns = clock.mono_ns()
    stop, seen = threading.Event(), []
    clock.advance(7.3)

    def act():
        seen.append((clock.mono_ns() - since_ns) / NS)
        if len(seen) == 3:
            stop.set()

    sensor = SimulatedPartSensor(2.0, clock, since_ns, stop)
    sensor.open()
    sensor._run(act)
    assert seen == pytest.approx([9.0, 11.0, 13.0])


# --- motion


def scene(at: int | None, seed: int, *, level: int = 0) -> np.ndarray:
    """Grey levels with a sensor's noise, and a bright part at a column."""
    grey = np.random.default_rng(seed).normal(90 + level, 4, (120, 200))
    if at is not None:
        grey[30:90, at : at + 60] += 80
    return grey.clip(0, 255).astype(np.uint8)


def judged(scenes, **settings) -> list[int]:
    """At which of the pictures, 100 ms apart, it is time to judge."""
    motion = Motion(TriggerSection.model_validate({"kind": "motion", **settings}))
    return [n for n, grey in enumerate(scenes) if motion.step(grey, n * NS // 10)]


def test_a_part_is_judged_once_when_it_has_come_to_rest():
    """Not while it moves, not again while it lies there, and again when the next one rests."""
    places = [None] * 6 + [0, 40, 80, 100] + [100] * 8 + [120, 160, None, 0, 50, 100] + [100] * 8
    found = judged([scene(at, n) for n, at in enumerate(places)], still="300ms")
    assert found == [3, 12, 26], "what lies there at the start, then each part 300 ms after it moved last"


def test_noise_and_slow_light_are_no_motion():
    """A lamp that warms up over minutes is no part."""
    assert judged([scene(None, n, level=n // 10) for n in range(300)]) == [3]


def test_the_least_motion_that_counts_is_configured():
    """A small part in a large region needs a smaller share."""
    small = [scene(None, 0)] * 10 + [scene(None, 0).copy() for _ in range(10)]
    for grey in small[10:]:
        grey[0:24, 0:24] = 255
    assert judged(small, moved=0.03) == [3]
    assert judged(small, moved=0.02) == [3, 13]


def test_a_region_of_a_few_pixels_has_motion_too():
    """Smaller than a cell is one cell."""
    assert judged([np.full((3, 5), level, np.uint8) for level in (0, 0, 0, 0, 200, 200, 200, 200)]) == [3, 7]
