"""``edge-agent run``: the daemon."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import threading
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Final

import structlog
import typer

from edge_agent import logs, notify
from edge_agent.agent import Agent
from edge_agent.clock import SystemClock
from edge_agent.commands.options import ConfigFile, Json
from edge_agent.config import find, load, loads, stated_dir
from edge_agent.control import ControlServer, socket_path
from edge_agent.errors import ConfigError, EdgeAgentError
from edge_agent.health import dump_stacks
from edge_agent.memory import give_back
from edge_agent.plan import Config
from edge_agent.remote import Commands, control
from edge_agent.whole import UNFINISHED, whole
from edge_agent.worker import Worker

log = structlog.get_logger("run")

_LOOK_EVERY_S: Final = 3.0
_SAFE_S: Final = 1.0  # for the outputs, when somebody asks twice
LAST_GOOD: Final = "last-good.yaml"


class Level(StrEnum):
    """What is worth a line of the log."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


def register(app: typer.Typer) -> None:
    @app.command(epilog="Example: edge-agent run --config /etc/edge-agent/config.yaml")
    def run(
        config: ConfigFile = None,
        log_level: Annotated[Level, typer.Option(help="What is worth a line of the log.")] = Level.INFO,
        json_: Json = False,
    ) -> int:
        """Run the daemon in the foreground, as systemd does. SIGHUP reloads, SIGTERM ends it."""
        clock = SystemClock()
        logs.configure(clock, level=log_level, pretty=False if json_ else None)
        path = find(config)
        return serve(path, *load_or_last_good(path))


def load_or_last_good(path: Path) -> tuple[Config, str | None]:
    """The config, or the last one that worked with what is wrong with this one; raises ConfigError."""
    try:
        return load(path), None
    except ConfigError as error:
        state_dir = os.environ.get("STATE_DIRECTORY", "").split(":")[0]
        kept = Path(state_dir or stated_dir(path)) / LAST_GOOD
        if not os.path.exists(kept):  # noqa: PTH110 - a folder that may not be looked into has none for us
            raise
        try:
            config = loads(kept.read_text(encoding="utf-8"), path)
        except (ConfigError, OSError):
            raise error from None
        log.error("config is wrong, running with the last one that was good", problems=str(error))
        return config, str(error)


def keep_last_good(config: Config) -> None:
    """Remember a config that was started with. A disk that refuses is no reason not to run."""
    target = config.state_dir / LAST_GOOD
    with contextlib.suppress(OSError):
        text = config.file.read_bytes()
        if target.exists() and target.read_bytes() == text:
            return
        with whole(target) as file:
            file.write(text)


def tidy(state_dir: Path) -> None:
    """Remove what a kill left unfinished."""
    with contextlib.suppress(OSError):
        for file in state_dir.glob(f".*{UNFINISHED}"):
            file.unlink()


class Lock:
    """One agent per state folder."""

    def __init__(self, state_dir: Path) -> None:
        self._path = state_dir / "lock"
        self._file: Any = None

    def take(self) -> None:
        """Raises EdgeAgentError that names the other process. A folder that cannot be written is no other agent."""
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self._path.open("a+", encoding="ascii")
        except OSError as error:
            log.warning("no lock", path=str(self._path), why=str(error))
            return
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._file.seek(0)
            pid = self._file.read().strip() or "unknown"
            raise EdgeAgentError(
                f"another edge-agent (process {pid}) uses {self._path.parent}",
                hint="stop it, or give this one its own state_dir",
            ) from error
        with contextlib.suppress(OSError):
            self._file.truncate(0)
            self._file.write(str(os.getpid()))
            self._file.flush()


class Daemon:
    """The agent with its signals, its watchdog and its control socket."""

    def __init__(self, path: Path, config: Config, wrong: str | None) -> None:
        self.clock = SystemClock()
        self.agent = Agent(config, self.clock)
        self.agent.on_command = Commands(self.agent).answer
        self._path = path
        self._wake = threading.Event()
        self._ending = False
        self._reload = False
        self._control: ControlServer | None = None
        self._control_worker: Worker | None = None
        if wrong is not None:
            self.agent.health.fault("config", wrong, hint="mend it and reload; the last good one is in use")
        self._is_good = wrong is None

    def run(self) -> int:
        for number, act in (
            (signal.SIGTERM, self._on_end),
            (signal.SIGINT, self._on_end),
            (signal.SIGHUP, self._on_reload),
        ):
            signal.signal(number, act)
        lock = Lock(self.agent.config.state_dir)
        lock.take()
        tidy(self.agent.config.state_dir)
        self.agent.start()
        give_back()
        if self._is_good:
            keep_last_good(self.agent.config)
        self._listen()
        notify.ready(self._line())
        self._watch()
        notify.stopping()
        if self._control is not None and self._control_worker is not None:
            self._control_worker.ask_to_stop()
            self._control.close()
        hanging = self.agent.stop()
        if hanging:
            log.error("threads did not end", threads=hanging)
            os._exit(0)  # they are daemons in a system call; everything else is safe on the disk
        return 0

    def _on_end(self, *_: object) -> None:
        if self._ending:  # the second signal cuts it short, whatever was interrupted here, with any lock held
            safe = threading.Thread(target=self.agent.safe, daemon=True)
            safe.start()
            safe.join(_SAFE_S)
            os._exit(130)
        self._ending = True
        self._wake.set()

    def _on_reload(self, *_: object) -> None:
        self._reload = True
        self._wake.set()

    def _watch(self) -> None:
        """Feed the watchdog only while every worker makes progress."""
        interval = min(_LOOK_EVERY_S, notify.watchdog_interval_s() or _LOOK_EVERY_S)
        said = None
        while not self._ending:
            self._wake.wait(interval)
            self._wake.clear()
            if self._reload:
                self._reload = False
                self._do_reload()
            stalled = self.agent.health.stalled()
            if not stalled:
                notify.watchdog()
            elif stalled != said:
                log.error("stalled", workers=stalled)
                dump_stacks()
            said = stalled
            self.agent.look()
            notify.status(self._line())

    def _do_reload(self) -> None:
        try:
            config = load(self._path)
        except ConfigError as error:
            self.agent.health.fault("config", str(error), hint="the running config stays in use")
            return
        self.agent.health.clear("config")
        running = self.agent.config
        if (config.state_dir, config.spool) != (running.state_dir, running.spool):
            self.agent.health.fault("config", "state_dir and spool change only with a restart")
            config.state_dir, config.spool = running.state_dir, running.spool
        self.agent.reload(config)
        keep_last_good(config)

    def _listen(self) -> None:
        path = socket_path(self.agent.config.state_dir)
        server = ControlServer(path, lambda question: control(self.agent, question))
        try:
            server.open()
        except OSError as error:
            self.agent.health.fault("control", f"no control socket at {path}: {error}")
            return
        self._control = server
        self._control_worker = Worker("control", server.body, self.agent.health, self.clock, max_silence_s=60.0)
        self._control_worker.start()

    def _line(self) -> str:
        faults = self.agent.health.faults()
        recorded = self.agent.recorder.recorded
        return f"{recorded} rows recorded, " + (
            ", ".join(fault.source for fault in faults) + " at fault" if faults else "all well"
        )


def serve(path: Path, config: Config, wrong: str | None) -> int:
    """Run the daemon until a signal ends it; the exit code."""
    return Daemon(path, config, wrong).run()
