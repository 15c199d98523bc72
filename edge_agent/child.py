"""A child process on a link: started, listened to, and ended for sure."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from typing import Any, Final

from edge_agent.clock import NS, Clock
from edge_agent.eye_link import Link, LinkClosedError, NonsenseError, pair
from edge_agent.mark import Mark

_GRACE_S: Final = 2.0  # to finish what is being written
_KILL_S: Final = 1.0  # the kernel needs no longer, unless the child is stuck in a driver
# The library beneath NumPy would start a thread per core: metering has the others.
_ONE_THREAD: Final = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}

# Killed, but stuck in the kernel: each goes when its driver lets it, and must be waited for then.
_leaving: list[subprocess.Popen[bytes]] = []


class Child:
    """One life of one process."""

    def __init__(self, process: subprocess.Popen[bytes], link: Link, mark: Mark, clock: Clock) -> None:
        self.process = process
        self._link = link
        self._mark = mark
        self._clock = clock

    @classmethod
    def start(cls, module: str, order: Mapping[str, object], clock: Clock) -> Child:
        """Run ``python -m module LINK MARK`` and say ``order`` to it; raises OSError where none can be started."""
        _leaving[:] = [process for process in _leaving if process.poll() is None]
        mark = Mark.fresh()
        ours, theirs = pair()
        try:
            with theirs:
                process = subprocess.Popen(  # noqa: S603 - ourselves
                    [sys.executable, "-m", module, str(theirs.fileno()), str(mark.number)],
                    stdin=subprocess.DEVNULL,
                    stdout=2,  # whatever a native library prints belongs into the journal
                    pass_fds=[theirs.fileno(), mark.number],
                    env={**_ONE_THREAD, **os.environ},
                    process_group=0,  # Ctrl-C is for the agent
                )
        except OSError:
            ours.close()
            mark.close()
            raise
        link = Link(ours)
        with contextlib.suppress(LinkClosedError):  # dead already: who receives next will know
            link.send("look", parent=os.getpid(), **order)
        return cls(process, link, mark, clock)

    @property
    def asked(self) -> int:
        """Who was being asked over there, see :class:`Mark`; until ``end``."""
        return self._mark.asked

    def offer(self, say: str, **what: object) -> bool:
        """As :meth:`Link.offer`."""
        return self._link.offer(say, **what)

    def receive(self, timeout_s: float) -> dict[str, Any] | None:
        """As :meth:`Link.receive`."""
        return self._link.receive(timeout_s)

    def finish(self, hear: Callable[[dict[str, Any]], None]) -> None:
        """Ask it to end, and hear what it still has to say; for a moment only."""
        until_ns = self._clock.mono_ns() + int(_GRACE_S * NS)
        with contextlib.suppress(LinkClosedError, NonsenseError):
            self._link.finish()
            while (left_s := (until_ns - self._clock.mono_ns()) / NS) > 0:
                message = self._link.receive(left_s)
                if message is not None:
                    hear(message)

    def end(self) -> bool:
        """It is over now: no zombie, no wait for ever. False when even SIGKILL did not end it yet."""
        self._link.close()
        self._mark.close()
        self.process.kill()
        try:
            self.process.wait(_KILL_S)
        except subprocess.TimeoutExpired:
            _leaving.append(self.process)
            return False
        return True

    def how_it_ended(self) -> str:
        """For a person, once the link is closed."""
        try:
            status = self.process.wait(_KILL_S)
        except subprocess.TimeoutExpired:
            return "let go of its link"
        return f"was ended by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
