"""The service: hardened, understood by systemd, and still able to do the product's work; its installer."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from edge_agent.demo import scenario

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "systemd"
UNIT = FOLDER / "edge-agent.service"
INSTALL = FOLDER / "install.sh"
SANDBOX = Path(__file__).with_name("sandbox.py")

_spec = importlib.util.spec_from_file_location("sandbox", SANDBOX)
assert _spec is not None
assert _spec.loader is not None
sandbox = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(sandbox)

needs_systemd = pytest.mark.skipif(
    not shutil.which("systemd-analyze") and not os.environ.get("CI"), reason="systemd is not installed here"
)


def run(*command: object, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(word) for word in command], capture_output=True, text=True, check=False, env=os.environ | environment
    )


# --- the unit


@needs_systemd
def test_exposure_is_at_most_one_and_a_half():
    """By systemd's own measure the service exposes at most 1.5 of 10, with every class of device allowed."""
    done = run("systemd-analyze", "security", "--offline=true", "--no-pager", "--threshold=15", UNIT)
    said = re.search(r"exposure level for edge-agent.service: ([\d.]+)", done.stdout)
    assert said is not None, done.stdout + done.stderr
    assert float(said[1]) <= 1.5
    assert done.returncode == 0


@needs_systemd
def test_the_measure_bites(tmp_path):
    """The same service without its system call filter does not pass."""
    naked = tmp_path / UNIT.name
    naked.write_text(re.sub(r"^SystemCallFilter=.*\n", "", UNIT.read_text(), flags=re.MULTILINE))
    assert run("systemd-analyze", "security", "--offline=true", "--threshold=15", "--no-pager", naked).returncode != 0


@needs_systemd
@pytest.mark.parametrize(
    "drop_in", [None, *sorted((FOLDER / "drop-ins").iterdir())], ids=lambda path: path and path.stem
)
def test_systemd_understands_every_line(tmp_path, drop_in):
    """The unit alone and with each example drop-in has no unknown setting and no wrong value."""
    unit = tmp_path / UNIT.name
    unit.write_text(re.sub(r"^(Exec\w+=-?)/opt\S+", r"\1/bin/true", UNIT.read_text(), flags=re.MULTILINE))
    if drop_in:
        (tmp_path / f"{UNIT.name}.d").mkdir()
        shutil.copy(drop_in, tmp_path / f"{UNIT.name}.d")
    done = run("systemd-analyze", "verify", "--no-pager", "--man=no", unit)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_service_comes_back_always_and_is_watched():
    """It says when it is ready, is restarted without limit, and is watched."""
    unit = sandbox.settings(UNIT)
    assert (unit["Type"], unit["NotifyAccess"], unit["Restart"]) == (["notify"], ["main"], ["always"])
    assert (unit["StartLimitIntervalSec"], unit["WatchdogSec"]) == (["0"], ["30s"])


@needs_systemd
def test_every_group_of_the_service_is_created(tmp_path):
    """A group that the machine does not have would keep the service from starting, so sysusers.d makes them all."""
    shutil.copytree(FOLDER / "sysusers.d", tmp_path / "etc" / "sysusers.d")
    done = run("systemd-sysusers", f"--root={tmp_path}", "edge-agent.conf")
    if os.geteuid() != 0 and done.returncode:
        pytest.skip("systemd-sysusers works for root only")
    groups = {line.split(":")[0]: line for line in (tmp_path / "etc" / "group").read_text().splitlines()}
    (user,) = (tmp_path / "etc" / "passwd").read_text().splitlines()
    assert user.startswith("edge-agent:")
    assert user.endswith("/usr/sbin/nologin")
    for group in sandbox.settings(UNIT)["SupplementaryGroups"][0].split():
        assert groups[group].endswith(":edge-agent"), "and its user is a member, for commands run by hand"


# --- inside the sandbox

_AS_IN_SERVICE = {
    "what the daemon is made of loads and works": """
        import sqlite3, ssl, socket, subprocess, sys, threading, structlog, pydantic, pymodbus.client, paho.mqtt.client
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
        Ed25519PrivateKey.generate().sign(b"x")
        db = sqlite3.connect("spool.db")
        assert db.execute("pragma journal_mode=wal").fetchone() == ("wal",)
        db.execute("pragma synchronous=full"), db.execute("create table t (a)"), db.commit()
        thread = threading.Thread(target=lambda: db)
        thread.start(), thread.join()
        assert socket.getaddrinfo("127.0.0.1", 80, flags=socket.AI_ADDRCONFIG)
        with socket.socket(socket.AF_UNIX) as control:
            control.bind("control.sock")
        subprocess.run([sys.executable, "-c", ""], check=True)
    """,
    "a camera process can look and judge": """
        import numpy as np, cv2
        ok, jpeg = cv2.imencode(".jpg", np.zeros((480, 640, 3), np.uint8))
        assert ok and cv2.imdecode(jpeg, cv2.IMREAD_COLOR).shape == (480, 640, 3)
        assert (np.ones((300, 300)) @ np.ones((300, 300)))[0, 0] == 300
        import onnxruntime, ai_edge_litert.interpreter
        import multiprocessing
        child = multiprocessing.get_context("spawn").Process(target=print)
        child.start(), child.join(60)
        assert child.exitcode == 0
    """,
    "this boot can be told from the next": """
        from edge_agent.clock import SystemClock
        assert len(SystemClock().boot_id) == 36
    """,
    "the time can be known but not set": """
        import pathlib, time
        from edge_agent import clock
        clock._TIMESYNCD_MARK = pathlib.Path("synchronized")
        assert not clock.kernel_clock_is_synced()
        clock._TIMESYNCD_MARK.touch()
        assert clock.kernel_clock_is_synced()
        try:
            time.clock_settime(time.CLOCK_REALTIME, 0)
        except PermissionError:
            pass
        else:
            raise AssertionError("the clock could be set")
    """,
    "exotic sockets and writable code are refused": """
        import mmap, socket
        for refused in (
            lambda: socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM),
            lambda: mmap.mmap(-1, 4096, prot=mmap.PROT_WRITE | mmap.PROT_EXEC),
        ):
            try:
                refused()
            except PermissionError:
                continue
            raise AssertionError("allowed")
    """,
}


@needs_systemd
@pytest.mark.parametrize("claim", _AS_IN_SERVICE)
def test_inside_the_sandbox(claim, tmp_path):
    """The unit's system call rules leave what the product needs and refuse what it does not."""
    script = tmp_path / "inside.py"
    lines = _AS_IN_SERVICE[claim].splitlines()
    script.write_text("if __name__ == '__main__':\n" + "\n".join(line[4:] for line in lines))
    done = subprocess.run(
        [sys.executable, str(SANDBOX), str(UNIT), sys.executable, str(script)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode == 77:
        pytest.skip(done.stderr.strip())
    assert done.returncode == 0, done.stderr


@needs_systemd
def test_a_whole_line_lives_in_the_sandbox(tmp_path):
    """A daemon with everything starts, feeds the watchdog and ends as systemd asks, with nothing refused."""
    (tmp_path / "config.yaml").write_text(scenario.config(1, 60, every=None))
    runtime = {"STATE_DIRECTORY": str(tmp_path / "state"), "RUNTIME_DIRECTORY": str(tmp_path)}
    watch = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "1000000"}
    command = [sys.executable, "-m", "edge_agent", "run", "--config", str(tmp_path / "config.yaml")]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ear, (tmp_path / "log").open("w") as log:
        ear.bind(watch["NOTIFY_SOCKET"])
        ear.settimeout(60)
        daemon = subprocess.Popen(
            [sys.executable, SANDBOX, UNIT, *command], env=os.environ | runtime | watch, stderr=log
        )
        try:
            heard = [ear.recv(4096).decode()]
            while not re.match(r"STATUS=\d\d+ rows recorded, mqtt at fault$", heard[-1]):  # there is no broker
                heard.append(ear.recv(4096).decode())
        except TimeoutError:
            daemon.kill()
            if daemon.wait() == 77:
                pytest.skip((tmp_path / "log").read_text().strip())
            raise AssertionError((tmp_path / "log").read_text()) from None
        daemon.terminate()
        while heard[-1] != "STOPPING=1":
            heard.append(ear.recv(4096).decode())
        assert daemon.wait(30) == 0
    assert heard[0].startswith("READY=1\n")
    assert "WATCHDOG=1" in heard
    assert "not permitted" not in (tmp_path / "log").read_text()


@needs_systemd
@pytest.mark.parametrize("step", ["ExecStart", "ExecStopPost"])
def test_the_service_runs_commands_that_there_are(step, tmp_path):
    """What the unit runs is a command that the product has, understood in the sandbox."""
    (command,) = sandbox.settings(UNIT)[step]
    program, *words, option, _config = command.removeprefix("-").split()
    assert (program, option) == ("/opt/edge-agent/venv/bin/edge-agent", "--config")
    (tmp_path / "config.yaml").write_text("site: ulsan\nline: press-3\nstate_dir: state\nbuses: {a: {kind: wrong}}\n")
    done = run(
        sys.executable, SANDBOX, UNIT, sys.executable, "-m", "edge_agent", *words, option, tmp_path / "config.yaml"
    )
    if done.returncode == 77:
        pytest.skip(done.stderr.strip())
    assert done.returncode == 2
    assert "config.yaml:4: buses.a.kind" in done.stderr


# --- the installer


@pytest.mark.skipif(not shutil.which("shellcheck") and not os.environ.get("CI"), reason="shellcheck is not installed")
def test_shell_scripts_are_sound():
    """Every shell script of the project passes shellcheck."""
    scripts = [path for path in (ROOT / "do", INSTALL, *(ROOT / ".ci").iterdir()) if path.is_file()]
    done = run("shellcheck", *scripts)
    assert done.returncode == 0, done.stdout


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    """The file system of an image with the product in it, dependencies left out for speed."""
    root = tmp_path_factory.mktemp("image")
    for attempt in ("first", "again"):
        done = run(INSTALL, "--root", root, "--python", sys.executable, PIP_NO_DEPS="1")
        assert done.returncode == 0, f"{attempt}: {done.stdout}{done.stderr}"
        if attempt == "first":
            (root / "etc/edge-agent/config.yaml").write_text("# mine\n")
    return root


needs_tools = pytest.mark.skipif(
    not shutil.which("systemd-sysusers") and not os.environ.get("CI"), reason="systemd is not installed here"
)


@needs_tools
def test_the_installer_puts_everything_in_its_place(image):
    """After it the program, its service, its user, and its devices' rules are there."""
    for name in (
        "opt/edge-agent/venv/bin/edge-agent",
        "etc/systemd/system/edge-agent.service",
        "etc/sysusers.d/edge-agent.conf",
        "etc/modules-load.d/edge-agent.conf",
        "etc/udev/rules.d/70-edge-agent.rules",
    ):
        assert (image / name).is_file(), name
    assert (image / "usr/local/bin/edge-agent").readlink() == Path("/opt/edge-agent/venv/bin/edge-agent")
    assert (image / "etc/systemd/system/multi-user.target.wants/edge-agent.service").is_symlink()
    assert (image / "etc/edge-agent").stat().st_mode & 0o7777 == 0o2750


@needs_tools
def test_the_service_starts_what_was_installed(image):
    """The unit's command is a file that the installer makes."""
    program = sandbox.settings(UNIT)["ExecStart"][0].split()[0]
    assert os.access(f"{image}{program}", os.X_OK)


@needs_tools
def test_the_image_does_not_know_where_it_was_built(image):
    """No script in the image names the folder that it was built in."""
    programs = (image / "opt/edge-agent/venv").resolve()
    for path in [*programs.glob("bin/*"), programs / "pyvenv.cfg"]:
        if not path.is_symlink():
            assert str(image).encode() not in path.read_bytes(), path


@needs_tools
def test_a_second_run_keeps_the_configuration_and_the_program_before(image):
    """Installing again replaces the program, keeps one older for the way back, and does not touch the configuration."""
    assert (image / "etc/edge-agent/config.yaml").read_text() == "# mine\n"
    assert len(list((image / "opt/edge-agent").glob("venv-*"))) == 2


@needs_tools
def test_a_failed_installation_changes_nothing(image):
    """Where the new program cannot be built the old one stays in place and nothing is left over."""
    before = sorted((image / "opt/edge-agent").iterdir()), (image / "opt/edge-agent/venv").readlink()
    broken = image / "broken-1-py3-none-any.whl"
    broken.write_bytes(b"not a wheel")
    done = run(INSTALL, "--root", image, "--python", sys.executable, "--wheel", broken, PIP_NO_DEPS="1")
    assert done.returncode != 0
    assert (sorted((image / "opt/edge-agent").iterdir()), (image / "opt/edge-agent/venv").readlink()) == before


@needs_tools
def test_uninstalling_keeps_configuration_and_data(tmp_path):
    """What people made stays, what the installer made goes."""
    kept = (tmp_path / "etc/edge-agent/config.yaml", tmp_path / "var/lib/edge-agent/spool.db")
    gone = (tmp_path / "opt/edge-agent/venv-1/bin/edge-agent", tmp_path / "etc/systemd/system/edge-agent.service")
    for path in (*kept, *gone):
        path.parent.mkdir(parents=True)
        path.touch()
    assert run(INSTALL, "--root", tmp_path, "--uninstall").returncode == 0
    assert all(path.exists() for path in kept)
    assert not any(path.exists() for path in gone)


@pytest.mark.parametrize(
    ("tool", "answer", "complaint"),
    [
        ("getconf", "echo 32", "32-bit"),
        ("uname", '[ "$1" = -m ] && echo armv7l || echo Linux', "armv7l"),
        ("id", "echo 1000", "not root"),
        ("python3", '[ "$1" = -V ] && echo Python 3.9.2; exit 1', "Python 3.9.2 is too old"),
    ],
)
def test_the_installer_says_what_is_wrong_with_the_machine(tmp_path, tool, answer, complaint):
    """A machine that cannot run the product is refused with one line that says why, before anything is written."""
    stub = tmp_path / tool
    stub.write_text(f"#!/bin/sh\n{answer}\n")
    stub.chmod(0o755)
    options = [] if tool == "id" else ["--root", tmp_path / "image"]
    done = run(INSTALL, *options, PATH=f"{tmp_path}:{os.environ['PATH']}")
    assert done.returncode == 3
    assert complaint in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not list((tmp_path / "image").glob("*"))
