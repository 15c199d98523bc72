"""The real daemon in a process of its own, and an oracle outside of it that believes only what it heard."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
from collections import defaultdict
from contextlib import closing
from pathlib import Path
from typing import Self

from tests.brokers import Ear, until
from tests.patience import SLOWNESS

CONFIG = """
site: ulsan
line: press-3
state_dir: state
mqtt: {{brokers: ["{url}"], drain_rate: 2000, puback_timeout: 5s}}
spool: {{commit_every: {commit_every}}}
buses: {{panel: {{kind: simulated-modbus-tcp}}, air: {{kind: simulated-i2c}}}}
devices:
  main: {{bus: panel, profile: eastron-sdm630, unit: 1, every: 50ms}}
  second: {{bus: panel, profile: eastron-sdm630, unit: 2, every: 100ms}}
  cabinet: {{bus: air, profile: sht31, every: 500ms}}
{more}
"""


class Daemon:
    """``edge-agent run``; killed, paused and ended by its process id."""

    def __init__(
        self,
        folder: Path,
        url: str = "",
        *,
        config: str = CONFIG,
        commit_every: str = "100ms",
        more: str = "",
        environment: dict[str, str] | None = None,
        script: str = "from edge_agent.cli import main; import sys; sys.exit(main(['run', '--config', sys.argv[1]]))",
    ) -> None:
        """``config``: a text with places for ``url``, ``commit_every`` and ``more``.

        ``script``: Python that runs the daemon of the config ``sys.argv[1]``.
        """
        self.folder = folder
        self.config = folder / "config.yaml"
        self.config.write_text(config.format(url=url, commit_every=commit_every, more=more))
        self.log = folder / "agent.log"
        self.starts = 0
        self._environment = environment
        self._script = script
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> Self:
        self.starts += 1
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-c", self._script, self.config], stdout=log, stderr=log, env=self._environment
            )
        return self

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def send(self, number: signal.Signals) -> None:
        assert self._process is not None
        assert self._process.poll() is None, self.log.read_text()[-3000:]
        os.kill(self._process.pid, number)

    def kill(self) -> None:
        """SIGKILL, now."""
        self.send(signal.SIGKILL)
        assert self._process is not None
        self._process.wait()

    def end(self) -> int:
        """SIGTERM; its exit code."""
        self.send(signal.SIGTERM)
        assert self._process is not None
        return self._process.wait(60 * SLOWNESS)

    def numbered(self) -> dict[str, int]:
        """Of the ended daemon's own database: its stream, and the highest seq that it gave."""
        with closing(sqlite3.connect(self.folder / "state" / "spool.db")) as db:
            meta = dict(db.execute("SELECT key, value FROM meta"))
        return {meta["stream"]: meta["next_seq"] - 1}

    def waiting(self) -> int:
        """Rows that no broker has confirmed yet; also of a daemon that runs."""
        with closing(sqlite3.connect(f"file:{self.folder / 'state' / 'spool.db'}?mode=ro", uri=True)) as db:
            return db.execute("SELECT count(*) FROM outbox").fetchone()[0]

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()


class Oracle:
    """What was heard from outside, held against what was promised."""

    def __init__(self, ear: Ear) -> None:
        self._ear = ear

    def judge(self, numbered: dict[str, int]) -> dict[str, int]:
        """Counts of what is missing, invented, changed, repeated, repeated without saying late, out of order."""
        heard: dict[tuple[str, int], str] = {}
        lost: set[tuple[str, int]] = set()
        highest: dict[str, int] = defaultdict(int)
        found = dict.fromkeys(("messages", "missing", "invented", "changed", "repeats", "unmarked", "disorder"), 0)
        for message in list(self._ear.heard):
            fields = dict(message.fields)
            if "seq" not in fields or message.retain:
                continue
            found["messages"] += 1
            late = fields.pop("late")
            key = (fields["stream"], fields["seq"])
            content = json.dumps(fields, sort_keys=True)
            if key in heard:
                found["repeats"] += 1
                found["unmarked"] += not late
                found["changed"] += heard[key] != content
            elif not late:
                found["disorder"] += key[1] < highest[key[0]]
                highest[key[0]] = key[1]
            heard[key] = content
            if message.topic.endswith("/gap"):
                lost |= {(fields["of"], seq) for seq in range(fields["from"], fields["to"] + 1)}
        promised = {(stream, seq) for stream, last in numbered.items() for seq in range(1, last + 1)}
        found["missing"] = len(promised - set(heard) - lost)
        found["invented"] = len(set(heard) - promised)
        return found

    def readings(self) -> int:
        return len(self._ear.of("telemetry"))

    def wait_for(self, more: int, seconds: float = 60.0) -> None:
        """Wait until so many more readings were heard."""
        goal = self.readings() + more
        until(lambda: self.readings() >= goal, f"{more} more readings", seconds)
