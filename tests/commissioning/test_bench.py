"""The proof in small: planted faults are named, healthy installations left alone, unknown layouts found.

``python -m bench.commissioning`` is the same with a hundred of each and a seed of the day.
"""

from __future__ import annotations

import shutil
import subprocess

import pytest

from bench.commissioning import FAULTS, Far, FarClock, layout_of, run, run_layouts
from drivers.modbus import ModbusTcp
from edge_agent.commissioning.meter import Facts, examine
from edge_agent.commissioning.source import Wire, collect
from edge_agent.config import DevicePlan
from tests.commissioning.far_ends import CYCLE, MAINS, PEERS


def said(lines):
    return lines.append


def test_planted_faults_are_named():
    """Two of each kind, on meters of the catalogue over Modbus TCP."""
    missed = []
    assert run(20261120, 2 * len(FAULTS), 0, said(missed))["named"] >= 2 * len(FAULTS) - 1, missed


def test_healthy_installations_are_left_alone():
    """A dozen that look odd: braking, generating, capacitive, unequal, idle, single-phase, solar."""
    blamed = []
    assert run(20261120, 0, 12, said(blamed))["blamed"] == 0, blamed


def test_unknown_layouts_are_found():
    """Four random ones, at most three minutes of a 9600 baud line each."""
    missed = []
    good, took = run_layouts(20261120, 4, said(missed))
    assert good >= 3, missed
    assert max(took) < 200


@pytest.fixture(scope="module")
def libmodbus(tmp_path_factory):
    """The C server, compiled here and now."""
    if shutil.which("gcc") is None:
        pytest.fail("gcc is needed for this test: apt-get install gcc libmodbus-dev")
    program = tmp_path_factory.mktemp("peer") / "libmodbus_registers"
    command = ["gcc", "-O1", "-Wall", "-Wextra", "-Werror", "-o", program, PEERS / "libmodbus_registers.c"]
    built = subprocess.run([*command, "-lmodbus", "-pthread"], capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    return program


class Foreign(FarClock):
    """A clock that takes the physical model along and copies its registers into the libmodbus server."""

    def __init__(self, far, process):
        super().__init__(far)
        self._process = process

    def advance(self, seconds):
        self._mono_ns += int(seconds * 1e9)
        self.elapsed_s += seconds
        answer = self._far.ask({"at": self.elapsed_s})
        for fc, words in answer["registers"].items():
            for at, word in words.items():
                self._process.stdin.write(f"{fc} {at} {word}\n")
        self._process.stdin.write("go\n")
        self._process.stdin.flush()
        assert self._process.stdout.readline() == "ok\n"


def test_through_libmodbus_both_sides_are_not_ours(libmodbus):
    """A model, a server and frames of others: the reversed transformer of L2 is named from what our driver reads."""
    wiring = {"signs": [1, -1, 1]}
    with (
        Far() as far,
        subprocess.Popen([libmodbus], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process,
    ):
        try:
            port = int(process.stdout.readline().split()[1])
            layout = layout_of("eastron-sdm630")
            far.ask({"install": {"load": MAINS | {"machine": CYCLE}, "wiring": wiring, "layout": layout, "tell": True}})
            clock = Foreign(far, process)
            clock.advance(0.1)
            bus = ModbusTcp("b", ModbusTcp.Settings(kind="modbus-tcp", host="127.0.0.1", port=port), clock)
            settings = ModbusTcp.DeviceSettings(bus="b", profile="eastron-sdm630", unit=1)
            profile = ModbusTcp.profile(settings, PEERS)
            source = Wire(bus, DevicePlan("m", "b", settings, profile, {}, {}), clock, 1.0)
            bus.open()
            window = collect(source, 24)
            bus.close()
        finally:
            process.stdin.close()
    found = examine(window, Facts(), profile=profile)
    assert [(finding.code, finding.certain) for finding in found.findings] == [("ct-reversed-l2", True)]
