"""The demo's processes: broker, agent and listener, started, disturbed and ended."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from edge_agent.broker import Broker, Credentials
from edge_agent.clock import NS, Clock
from edge_agent.control import UnreachableError, ask, socket_path
from edge_agent.demo import scenario
from edge_agent.demo.scenario import Act
from edge_agent.errors import EdgeAgentError
from edge_agent.listener import Listener, Show

_START_S: Final = 20.0
_DRAIN_S: Final = 15.0


class Stage:
    """One performance in one folder. ``tell(text)`` hears what happens."""

    def __init__(
        self, folder: Path, seconds: float, *, repeat: bool, clock: Clock, tell: Callable[[str], None], show: Show
    ) -> None:
        self.folder = folder
        self.seconds = seconds
        self.repeat = repeat
        self.clock = clock
        self.tell = tell
        self.port, self.door = _free_ports(2)
        self.stop = threading.Event()
        self.listener = Listener(Broker.parse(f"mqtt://127.0.0.1:{self.port}"), Credentials(), "edge/#", clock, show)
        self.status: dict[str, Any] = {}
        self.seen: set[str] = set()
        self.broker_up = False
        self.began_ns = 0
        self._broker: subprocess.Popen[bytes] | None = None
        self._agent: subprocess.Popen[bytes] | None = None
        self._threads: list[threading.Thread] = []

    # --- beginning

    def open(self) -> None:
        """Start broker, listener and agent; raises EdgeAgentError when one does not come up."""
        config = self.folder / "config.yaml"
        config.write_text(
            scenario.config(self.door, self.seconds, every=self.seconds if self.repeat else None), encoding="utf-8"
        )
        self._thread(self.listener.body)
        self.start_broker()
        log = (self.folder / "agent.log").open("wb")
        self._agent = subprocess.Popen(  # noqa: S603 - our own interpreter
            [sys.executable, "-m", "edge_agent", "run", "--config", str(config)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=self.folder,
            start_new_session=True,  # Ctrl-C is for the demo, which ends the agent in order
        )
        log.close()
        self._await_agent()
        self.began_ns = self.clock.mono_ns()

    def _await_agent(self) -> None:
        deadline_ns = self.clock.mono_ns() + int(_START_S * NS)
        while not self.refresh():
            if self._agent is None or self._agent.poll() is not None or self.clock.mono_ns() > deadline_ns:
                tail = (self.folder / "agent.log").read_text(errors="replace")[-2000:]
                raise EdgeAgentError(f"the agent did not start:\n{tail}")
            self.clock.wait(self.stop, 0.1)

    def start_broker(self) -> None:
        """Start the broker; the agent is let in once the listener listens. Raises EdgeAgentError."""
        self._broker = subprocess.Popen(  # noqa: S603 - our own interpreter
            [sys.executable, "-m", "edge_agent.demo.broker", str(self.port), str(self.door)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        if not self.listener.connected.wait(_START_S) or self._broker.stdin is None:
            raise EdgeAgentError("the demo's broker did not start", hint="pip install 'edge-agent[demo]'")
        self._broker.stdin.write(b"open the door\n")
        self._broker.stdin.flush()
        self.broker_up = True

    def stop_broker(self) -> None:
        self.broker_up = False
        _end(self._broker, signal.SIGKILL)  # a power cut, not a farewell
        self.listener.connected.clear()

    def _thread(self, body: Callable[[threading.Event], None]) -> None:
        thread = threading.Thread(target=body, args=(self.stop,), daemon=True)
        thread.start()
        self._threads.append(thread)

    # --- during

    @property
    def elapsed_s(self) -> float:
        return (self.clock.mono_ns() - self.began_ns) / NS if self.began_ns else 0.0

    def refresh(self) -> bool:
        """Ask the agent how it is; False when it does not answer."""
        try:
            self.status = ask(socket_path(self.folder / "state"), {"ask": "status"}, 2.0)
        except (UnreachableError, OSError):
            return False
        lamps = self.status.get("lamps", {})
        if lamps.get("red", "off") != "off":
            self.seen.add("red light")
        for alarm in self.status.get("alarms", []):
            if alarm.get("state") != "normal":
                self.seen.add(f"alarm {alarm.get('alarm', alarm.get('name'))}")
        return True

    def play(self, draw: Callable[[], None]) -> None:
        """Until the time is over (or for ever): watch, tell, and pull the broker's plug when it is time."""
        told: set[tuple[int, str]] = set()
        while not self.stop.is_set():
            elapsed_s = self.elapsed_s
            round_, at_s = divmod(elapsed_s, self.seconds)
            if not self.repeat and elapsed_s >= self.seconds:
                return
            for act in scenario.acts(self.seconds):
                self._perform(act, int(round_), at_s, told)
            self.refresh()
            draw()
            self.clock.wait(self.stop, 0.25)

    def _perform(self, act: Act, round_: int, at_s: float, told: set[tuple[int, str]]) -> None:
        if act.at_s <= at_s and (round_, act.name) not in told:
            told.add((round_, act.name))
            self.tell(act.story)
        if act.name == "outage":
            down = act.at_s <= at_s < act.at_s + act.for_s
            if down and self.broker_up:
                self.stop_broker()
            elif not down and not self.broker_up:
                self.tell("the broker is back: the present first, the backlog beside it, marked late")
                self.start_broker()
        elif act.name == "overload" and at_s > act.at_s + act.for_s and (round_, "acknowledge") not in told:
            told.add((round_, "acknowledge"))
            self.tell("somebody acknowledges: the light is green again once nothing is wrong")
            self.ask({"ask": "acknowledge", "who": "demo"})

    def ask(self, question: dict[str, Any]) -> None:
        try:
            ask(socket_path(self.folder / "state"), question, 2.0)
        except (EdgeAgentError, OSError) as error:
            self.tell(f"the agent does not answer: {error}")

    # --- the end

    def finish(self) -> dict[str, Any]:
        """Let the backlog drain, end the agent in order, and add up."""
        if not self.broker_up:
            self.start_broker()
        deadline_ns = self.clock.mono_ns() + int(_DRAIN_S * NS)
        while self.clock.mono_ns() < deadline_ns:
            self.refresh()
            spool = self.status.get("spool", {})
            # What was taken within the last second is always on its way.
            if self.status.get("broker") and spool.get("rows", 0) < 30 and not self._missing():
                break
            self.clock.wait(threading.Event(), 0.2)
        recorded_late = self.refresh()
        _end(self._agent, signal.SIGTERM, 15.0)
        self.clock.wait(threading.Event(), 1.0)
        totals = dict(self.listener.completeness.totals())
        streams = self.listener.completeness.by_stream()
        stream = str(self.status.get("stream")) if recorded_late else next(iter(streams), "")
        known = streams.get(stream, {})
        return {
            "seconds": round(self.elapsed_s, 1),
            "recorded": self._recorded(),
            "published": known.get("seen", 0),
            **totals,
            "seen": sorted(self.seen),
        }

    def _missing(self) -> int:
        return self.listener.completeness.totals()["missing"]

    def _recorded(self) -> int:
        """How many rows the agent numbered, from its own database after it ended."""
        import sqlite3  # noqa: PLC0415

        try:
            with sqlite3.connect(f"file:{self.folder / 'state' / 'spool.db'}?mode=ro", uri=True) as db:
                (next_seq,) = db.execute("SELECT value FROM meta WHERE key='next_seq'").fetchone()
        except sqlite3.Error as error:
            raise EdgeAgentError(f"the agent's database cannot be read: {error}") from error
        return int(next_seq) - 1

    def close(self) -> None:
        """End everything, whatever happened."""
        self.stop.set()
        _end(self._agent, signal.SIGTERM, 10.0)
        for thread in self._threads:
            thread.join(3.0)
        _end(self._broker, signal.SIGTERM, 3.0)


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [int(probe.getsockname()[1]) for probe in probes]


def _end(process: subprocess.Popen[bytes] | None, number: signal.Signals, patience_s: float = 5.0) -> None:
    if process is None or process.poll() is not None:
        return
    os.kill(process.pid, number)
    try:
        process.wait(patience_s)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(5.0)
    if process.stdin is not None:
        process.stdin.close()
