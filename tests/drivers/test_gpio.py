"""GPIO outputs: what the pins did, what a line engineer is told, and what stays when nobody drives them any more."""

from __future__ import annotations

import gc
import sys
from collections import defaultdict
from pathlib import Path
from types import ModuleType

import pytest
from gpiozero.pins.local import LocalPiFactory
from gpiozero.pins.mock import MockPin
from pydantic import ValidationError

from drivers import gpio_lines
from drivers.gpio import Relay, RelaySettings, SimulatedStackLight, StackLight, StackLightSettings
from drivers.gpio_lines import mock_header
from edge_agent import catalogue
from edge_agent.errors import OutputError
from edge_agent.panel import safe_state

LINES = {"red": 17, "amber": 27, "green": 22, "buzzer": 23, "acknowledge": 24}


def light(name: str = "light", **keys) -> SimulatedStackLight:
    return SimulatedStackLight(name, StackLightSettings.model_validate({"kind": "simulated", **LINES, **keys}))


class MockRelay(Relay):
    """A relay on mock pins."""

    def _make_factory(self):
        return self._factory or mock_header()


def relay(**keys) -> MockRelay:
    return MockRelay("relay", RelaySettings.model_validate({"kind": "relay", "line": 5, **keys}))


def pin(output, line: int) -> MockPin:
    return output._factory.pin(line)


def states(output, line: int) -> list[bool]:
    return [state.state for state in pin(output, line).states]


# --- the stack light


def test_every_kind_that_the_catalogue_names_is_there():
    """``gpio``, ``relay`` and ``simulated`` load and carry their settings."""
    for kind in catalogue.OUTPUTS:
        assert catalogue.load(catalogue.OUTPUTS, kind).Settings.model_fields["kind"]


def test_a_constructor_claims_nothing_and_open_twice_is_harmless():
    """Lines are claimed by ``open``, once, with every lamp dark."""
    output = light()
    assert output.lit == {}
    output.open()
    output.open()

    assert output.lit == {"red": False, "amber": False, "green": False, "buzzer": False}
    assert pin(output, 17).function == "output"


def test_a_lamp_follows_what_is_shown():
    """Each pin goes through exactly the states that were shown; names without a line are passed over."""
    output = light()
    output.open()
    for red in (True, False, True, True):
        output.show({"red": red, "critical": True, "blue": True})

    pin(output, 17).assert_states([False, True, False, True])
    assert len(states(output, 17)) == 4
    assert states(output, 22) == [False]


def test_active_low_turns_every_level_around():
    """For a board that wants 0 V for on, off is high, from the first instant after the claim."""
    output = light(active_low=True)
    output.open()
    assert pin(output, 17).state is True
    output.show({"red": True})

    assert (pin(output, 17).state, output.lit["red"]) == (False, True)


def test_the_button_acknowledges_once_per_press():
    """Pressing pulls the line to ground and calls; letting go does not."""
    output = light()
    pressed = []
    output.open()
    output.when_acknowledged(lambda: pressed.append(1))
    output.press()
    output.press()

    assert len(pressed) == 2
    assert (pin(output, 24).pull, pin(output, 24).bounce, pin(output, 24).edges) == ("up", 0.05, "both")


def test_the_button_is_dead_after_close():
    """Nobody is called for an output that was given up."""
    output = light()
    pressed = []
    output.open()
    output.when_acknowledged(lambda: pressed.append(1))
    button = pin(output, 24)
    output.close()
    button.drive_low()

    assert pressed == []


@pytest.mark.parametrize(
    ("on_exit", "left"),
    [("red", ["red"]), ("amber", ["amber"]), ("off", []), ("keep", ["green", "buzzer"])],
)
@pytest.mark.parametrize("end", ["safe", "close"])
def test_the_light_ends_in_its_safe_state(on_exit, left, end):
    """``safe`` and ``close`` leave what ``on_exit`` says, and the lines stay outputs even when the object is gone."""
    output = light(on_exit=on_exit)
    output.open()
    output.show({"red": False, "amber": False, "green": True, "buzzer": True})
    factory = output._factory
    getattr(output, end)()
    del output
    gc.collect()

    lit = {name for name, line in LINES.items() if name != "acknowledge" and factory.pin(line).state}
    assert lit == set(left)
    assert factory.pin(17).function == "output"


def test_an_output_that_is_not_open_can_be_made_safe_and_closed():
    """The way out never fails because the way in did."""
    output = light()
    output.safe()
    output.show({"red": True})
    output.close()

    assert output.lit == {}


def test_an_output_opens_again_after_close():
    """A config reload takes the same lines back."""
    output = light()
    output.open()
    output.close()
    output.open()
    output.show({"green": True, "red": False})

    assert output.lit == {"red": False, "amber": False, "green": True, "buzzer": False}


def test_after_a_kill_the_safe_state_is_set_without_closing():
    """What ``ExecStopPost`` runs: claim, safe state, and go."""
    dead = light(on_exit="red")

    assert safe_state([dead]) == []
    assert dead.lit == {"red": True, "amber": False, "green": False, "buzzer": False}


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ({"amber": 17}, "the same line is given twice"),
        ({"red": None}, "on_exit: red needs a line for red"),
        ({"red": None, "amber": None, "green": None, "buzzer": None}, "at least one of red, amber, green, buzzer"),
        ({"red": 54}, "less than or equal to 53"),
        ({"bounce": "2s"}, "less than or equal to 1"),
    ],
)
def test_a_light_that_cannot_be_wired_is_refused(keys, says):
    """Mistakes are found in the file, before any line is touched."""
    with pytest.raises(ValidationError, match=says):
        light(**keys)


# --- the relay


@pytest.mark.parametrize(
    ("keys", "calm", "alarm", "end"),
    [
        ({}, True, False, False),
        ({"energised_when": "alarm"}, False, True, True),
        ({"on_exit": "normal"}, True, False, True),
        ({"energised_when": "alarm", "on_exit": "normal"}, False, True, False),
        ({"active_low": True}, False, True, True),
    ],
)
def test_a_relay_is_energised_as_configured(keys, calm, alarm, end):
    """Fail-safe by default: energised while all is normal, dropped out in alarm and when the agent ends."""
    output = relay(**keys)
    output.open()
    dropped = keys.get("active_low", False)
    assert pin(output, 5).state is dropped  # it begins de-energised
    output.show({"critical": False, "high": False})
    assert pin(output, 5).state is calm
    output.show({"critical": False, "high": True})
    assert pin(output, 5).state is alarm
    output.close()

    assert output._factory.pin(5).state is end


def test_a_relay_minds_only_its_severities():
    """A low alarm does not stop the machine, lamps do not either."""
    output = relay(severities=["critical"])
    output.open()
    output.show({"critical": False, "high": True, "low": True, "red": True})

    assert pin(output, 5).state is True


def test_a_relay_keeps_its_position_when_told_to():
    """``on_exit: keep`` moves nothing."""
    output = relay(on_exit="keep")
    output.open()
    output.show({"critical": False})
    output.close()

    assert states(output, 5) == [False, True]


# --- the real library: gpiozero on a stand-in for lgpio, whose errors and return values are those of lgpio 0.2.2


class Chips(ModuleType):
    """lgpio as seen from Python, over chips that live in memory."""

    SET_PULL_NONE, SET_PULL_UP, SET_PULL_DOWN = 128, 32, 64
    RISING_EDGE, FALLING_EDGE, BOTH_EDGES = 1, 2, 3

    class error(Exception):
        def __str__(self):
            return repr(self.args[0])  # lgpio quotes its messages

    def __init__(self, folder: Path) -> None:
        super().__init__("lgpio")
        self.folder = folder
        self.labels: dict[int, str] = {}
        self.owners: dict[tuple[int, int], str] = {}
        self.modes: dict[tuple[int, int], str] = {}
        self.history: dict[tuple[int, int], list[int]] = defaultdict(list)

    def add(self, chip: int, label: str) -> None:
        self.labels[chip] = label
        (self.folder / f"gpiochip{chip}").touch()

    def gpiochip_open(self, chip):
        if chip not in self.labels:
            raise self.error("can not open gpiochip")
        return chip

    def gpiochip_close(self, handle):
        return 0

    def gpio_get_chip_info(self, handle):
        return [0, 54, f"gpiochip{handle}", self.labels[handle]]

    def gpio_get_line_info(self, handle, line):
        return [0, line, 0, f"GPIO{line}", self.owners.get((handle, line), "")]

    def gpio_claim_input(self, handle, line, flags=0):
        if self.owners.get((handle, line), "lg") != "lg":
            raise self.error("GPIO busy")
        self.owners[handle, line] = "lg"
        self.modes[handle, line] = "input"

    def gpio_claim_output(self, handle, line, level=0, flags=0):
        self.gpio_claim_input(handle, line)
        self.modes[handle, line] = "output"
        self.gpio_write(handle, line, level)

    def gpio_free(self, handle, line):
        self.owners.pop((handle, line), None)

    def gpio_get_mode(self, handle, line):
        return 2 if self.modes.get((handle, line)) == "output" else 0

    def gpio_write(self, handle, line, level):
        if self.labels[handle] == "gone":
            raise self.error("unknown handle")
        self.history[handle, line].append(int(level))

    def gpio_read(self, handle, line):
        return self.history[handle, line][-1] if self.history[handle, line] else 0


@pytest.fixture
def chips(tmp_path, monkeypatch):
    """A machine with GPIO chips, on which lgpio is installed."""
    module = Chips(tmp_path)
    monkeypatch.setitem(sys.modules, "lgpio", module)
    monkeypatch.delitem(sys.modules, "gpiozero.pins.lgpio", raising=False)
    monkeypatch.setattr("gpiozero.pins.local.get_pi_revision", lambda: 0xC03111)
    monkeypatch.setattr(gpio_lines, "DEV", tmp_path)
    gpio_lines._header.cache_clear()
    gpio_lines._lgpio.cache_clear()
    yield module
    LocalPiFactory._reservations.clear()  # gpiozero keeps them for the process
    gpio_lines._header.cache_clear()
    gpio_lines._lgpio.cache_clear()
    sys.modules.pop("gpiozero.pins.lgpio", None)


def real(name: str = "light", **keys) -> StackLight:
    return StackLight(name, StackLightSettings.model_validate({"kind": "gpio", **LINES, "acknowledge": None, **keys}))


def test_the_header_is_found_by_its_label_not_by_its_number(chips):
    """On a Pi 5 the header was gpiochip4 and became gpiochip0: the label tells."""
    chips.add(0, "brcmvirt-gpio")
    chips.add(10, "gpio-brcmstb@107d508500")
    chips.add(4, "pinctrl-rp1")
    output = real()
    output.open()
    output.show({"red": True})

    assert chips.history[4, 17] == [0, 0, 1]


def test_closing_leaves_the_lines_as_outputs(chips):
    """The safe state would be undone if the pins were made inputs, as gpiozero does when it closes them."""
    chips.add(0, "pinctrl-bcm2711")
    output = real()
    output.open()
    output.show({"green": True, "red": False})
    output.close()
    del output
    gc.collect()

    assert (chips.modes[0, 17], chips.history[0, 17][-1], chips.history[0, 22][-1]) == ("output", 1, 0)


def test_a_busy_line_names_its_owner(chips):
    """Who holds the line is said, and what to do; the lines that were free are given up again."""
    chips.add(0, "pinctrl-bcm2711")
    chips.owners[0, 22] = "spi0 CS1"
    output = real()
    with pytest.raises(OutputError, match="GPIO 22 is in use by 'spi0 CS1'") as caught:
        output.open()

    assert "gpioinfo" in caught.value.hint
    real("other", green=None).open()


def test_two_outputs_cannot_share_a_line(chips):
    """The second one is told which output has it."""
    chips.add(0, "pinctrl-bcm2711")
    first, second = real("light"), real("other")
    first.open()

    with pytest.raises(OutputError, match="GPIO17 is already in use by output 'light'"):
        second.open()
    first.close()
    second.open()


def test_a_line_that_can_no_longer_be_driven_is_an_output_error(chips):
    """Whatever the library raises arrives as ours."""
    chips.add(0, "pinctrl-bcm2711")
    output = real()
    output.open()
    chips.labels[0] = "gone"

    with pytest.raises(OutputError, match="GPIO 17: unknown handle"):
        output.show({"red": True})


def test_hardware_that_is_not_there_is_an_error_and_never_a_mock(chips):
    """``kind: gpio`` without GPIO says so, and names the kind that needs none."""
    with pytest.raises(OutputError, match="no GPIO") as caught:
        real().open()

    assert "kind: simulated" in caught.value.hint


@pytest.mark.parametrize("chip", [None, 0])
def test_a_missing_permission_names_the_group(chips, chip, monkeypatch):
    """The user of the service must be in the group gpio."""
    chips.add(0, "pinctrl-bcm2711")
    monkeypatch.setattr(gpio_lines.os, "access", lambda path, mode: False)

    with pytest.raises(OutputError, match="no permission") as caught:
        real(chip=chip).open()
    assert "group gpio" in caught.value.hint


def test_a_machine_without_a_header_lists_what_it_has(chips):
    """A chip with another label can be named by hand."""
    chips.add(3, "gpio-sim")
    with pytest.raises(OutputError, match="'gpiochip3': 'gpio-sim'") as caught:
        real().open()
    real(chip=3).open()

    assert "chip" in caught.value.hint
    assert chips.modes[3, 17] == "output"


def test_a_chip_that_is_not_there_is_named(chips):
    """A wrong ``chip`` is said by its path."""
    with pytest.raises(OutputError, match=r"there is no .*gpiochip7"):
        real(chip=7).open()


def test_a_missing_library_says_where_to_get_it(chips, monkeypatch):
    """On Python 3.13 the index has no lgpio; the distribution has."""
    chips.add(0, "pinctrl-bcm2711")
    monkeypatch.setitem(sys.modules, "lgpio", None)

    with pytest.raises(OutputError, match="lgpio is missing") as caught:
        real().open()
    assert "python3-lgpio" in caught.value.hint


def test_importing_the_library_leaves_the_working_directory_alone(chips, monkeypatch, tmp_path):
    """lgpio changes to ``LG_WD`` as it is imported; relative paths of the agent must not move with it."""
    seen = []

    def imported(name):
        folder = Path(gpio_lines.os.environ["LG_WD"])
        gpio_lines.os.chdir(folder)
        seen.append(folder)
        return chips

    monkeypatch.setattr(gpio_lines, "import_module", imported)
    monkeypatch.chdir(tmp_path)
    chips.add(0, "pinctrl-bcm2711")
    real().open()

    assert Path.cwd() == tmp_path
    assert seen
    assert not seen[0].exists()
    assert "LG_WD" not in gpio_lines.os.environ
