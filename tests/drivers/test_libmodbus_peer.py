"""Independent far ends: servers that share no code with ours are read through our buses, over TCP and serial lines."""

from __future__ import annotations

import asyncio
import math
import re
import shutil
import subprocess
import threading
from contextlib import contextmanager
from pathlib import Path

import pytest

from drivers.modbus import ModbusRtu, ModbusRtuOverTcp, ModbusTcp
from drivers.registers import load_profile
from edge_agent.clock import SystemClock
from edge_agent.errors import DeviceError
from edge_agent.vocabulary import NOT_A_NUMBER, TIMEOUT

SOURCE = Path(__file__).parent.parent / "peers" / "libmodbus_server.c"
# What the C program holds, in base units (it is written there by hand, in the meter's own).
HELD = {
    "voltage_l1": 230.2,
    "voltage_l2": 231.4,
    "voltage_l3": 229.9,
    "current_l1": 12.75,
    "active_power_l1": -1012.5,
    "active_power": -3172.4,
    "power_factor": -0.93,
    "frequency": 49.98,
    "energy_import": 83_214_370.0,
    "energy_export": 120_500.0,
    "reactive_energy_import": 41_000_250.0,
    "voltage_l1_l2": 398.7,
    "thd_voltage": 2.1,
    "energy_total": 83_334_870.0,
    "energy_import_l1": 27_738_100.0,
    "reactive_energy_total_l3": 13_666_750.0,
}


def _tool(name, package):
    path = shutil.which(name)
    if path is None:
        pytest.fail(f"{name} is needed for this test: apt-get install {package}")
    return path


@pytest.fixture(scope="module")
def libmodbus(tmp_path_factory):
    """The C server, compiled here and now."""
    program = tmp_path_factory.mktemp("peer") / "libmodbus_server"
    command = [_tool("gcc", "gcc"), "-O1", "-Wall", "-Wextra", "-Werror", "-o", program, SOURCE, "-lmodbus", "-pthread"]
    built = subprocess.run(command, capture_output=True, text=True, check=False)
    if built.returncode:
        pytest.fail(f"the C peer needs libmodbus: apt-get install gcc libmodbus-dev\n{built.stderr}")
    return program


@contextmanager
def _running(*command, **options):
    """A process that ends with the block; it sees the end of its standard input."""
    with subprocess.Popen([*map(str, command)], stdin=subprocess.PIPE, text=True, **options) as process:
        try:
            yield process
        finally:
            process.stdin.close()
            process.terminate()


@contextmanager
def _serving(program, *arguments):
    """The C server; yields what it says when it is ready."""
    with _running(program, *arguments, stdout=subprocess.PIPE) as process:
        word, _, where = process.stdout.readline().strip().partition(" ")
        assert word == "ready"
        yield where


@contextmanager
def _socat(*ends):
    """A cable made by socat; yields its diagnostics once both ends are there."""
    with _running(_tool("socat", "socat"), "-d", "-d", *ends, stderr=subprocess.PIPE) as process:
        yield process.stderr


def _link(path):
    """Wait until socat has made the link."""
    for _ in range(500):
        if path.exists():
            return path
        threading.Event().wait(0.01)
    pytest.fail(f"socat made no {path}")


@contextmanager
def _opened(kind, **settings):
    """One of our buses with an SDM630 as unit 1."""
    bus = kind("wire", kind.Settings.model_validate({"kind": "any", **settings}), SystemClock())
    section = kind.DeviceSettings.model_validate({"bus": "wire", "profile": "eastron-sdm630", "unit": 1})
    device = bus.device("meter", section, kind.profile(section, Path()))
    bus.open()
    try:
        yield bus, device
    finally:
        bus.close()


def _check(device, expected):
    for _ in range(3):  # connections and buffers in use again must give the same
        sample = device.read(frozenset(device.groups))
        for quantity, value in expected.items():
            assert sample.values[quantity] == pytest.approx(value, rel=1e-6), quantity
        assert sample.absent == {"current_n": NOT_A_NUMBER}
    device.probe()


def test_libmodbus_over_tcp(libmodbus):
    """A libmodbus server over TCP: every value, the sign, the big counter, and the one that is no number."""
    with _serving(libmodbus, "tcp") as port, _opened(ModbusTcp, host="127.0.0.1", port=int(port)) as (bus, device):
        _check(device, HELD)
        assert bus.unit(1).stats["requests"] == 3 * 3 + 1


def test_libmodbus_refuses_what_it_does_not_have(libmodbus):
    """An address beyond its registers is its exception 02, and the next read is right again."""
    with _serving(libmodbus, "tcp") as port, _opened(ModbusTcp, host="127.0.0.1", port=int(port)) as (bus, device):
        with pytest.raises(DeviceError) as caught:
            bus.request(1, 4, 0x4000, 2)
        assert caught.value.reason == "exception-02"
        _check(device, HELD)


def test_libmodbus_on_a_serial_line(libmodbus, tmp_path):
    """A libmodbus server at the other end of a serial cable: the same values, with checksums and silences."""
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    with _socat(f"pty,raw,echo=0,link={ours}", f"pty,raw,echo=0,link={theirs}"):
        _link(ours)
        with _serving(libmodbus, "rtu", _link(theirs)), _opened(ModbusRtu, port=str(ours)) as (bus, device):
            _check(device, HELD)
            with pytest.raises(DeviceError) as caught:
                bus.request(2, 4, 0, 2, timeout_s=0.05)
            assert caught.value.reason == TIMEOUT


def test_libmodbus_behind_a_raw_gateway(libmodbus, tmp_path):
    """The same serial server behind a gateway that passes bytes through: RTU frames over TCP."""
    theirs = tmp_path / "theirs"
    with _socat("tcp-listen:0,bind=127.0.0.1", f"pty,raw,echo=0,link={theirs}") as diagnostics:
        line = next(line for line in diagnostics if "listening on" in line)
        port = int(line.rsplit(":", 1)[1])
        # socat makes the terminal once somebody is connected
        gateway = _opened(ModbusRtuOverTcp, host="127.0.0.1", port=port)
        with gateway as (_, device), _serving(libmodbus, "rtu", _link(theirs)):
            _check(device, HELD)


# --- pymodbus as a server


@contextmanager
def _pymodbus(registers):
    """A pymodbus TCP server in a thread of its own; yields its port. ``registers``: address → float of unit 1."""
    from pymodbus.server import ModbusTcpServer
    from pymodbus.simulator import DataType, SimData, SimDevice

    device = SimDevice(
        id=1,
        simdata=[SimData(at, values=value, datatype=DataType.FLOAT32) for at, value in sorted(registers.items())],
    )
    loop, ready, found = asyncio.new_event_loop(), threading.Event(), []

    async def start():
        server = ModbusTcpServer(device, address=("127.0.0.1", 0))
        await server.serve_forever(background=True)
        found.extend((server, server.transport.sockets[0].getsockname()[1]))
        ready.set()

    def run():
        loop.run_until_complete(start())
        loop.run_forever()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        assert ready.wait(10)
        yield found[1]
    finally:
        asyncio.run_coroutine_threadsafe(found[0].shutdown(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()


def test_pymodbus_as_a_server():
    """A pymodbus server with the SDM630's registers gives the same values as its table says."""
    rows = load_profile("eastron-sdm630", Path()).registers
    registers = dict.fromkeys(range(0, 0x180, 2), 0.0)
    registers |= {row.at: HELD.get(row.name, 0.0) / float(row.gain) for row in rows}
    registers[next(row.at for row in rows if row.name == "current_n")] = math.nan
    with _pymodbus(registers) as port, _opened(ModbusTcp, host="127.0.0.1", port=port) as (_, device):
        _check(device, HELD)


def test_the_c_program_and_the_table_agree_on_addresses():
    """The addresses in the C source are those of the table, so that a slip there is a slip here."""
    written = re.findall(r"\{0x([0-9A-F]{4}), (-?[0-9.]+)f\}", SOURCE.read_text())
    held = {int(at, 16): float(value) for at, value in written}
    assert len(held) >= len(HELD)
    rows = {row.at: row for row in load_profile("eastron-sdm630", Path()).registers}
    assert set(held) <= set(rows)
    for at, value in held.items():
        if (name := rows[at].name) in HELD:
            assert value * float(rows[at].gain) == pytest.approx(HELD[name], rel=1e-6)
