"""What every process that judges does first and last; :mod:`edge_agent.child` starts it: ``-m MODULE LINK MARK``.

It ends when the link closes, and the kernel kills it when the agent dies. Signals that are meant for the agent do
not reach it.
"""

from __future__ import annotations

import ctypes
import faulthandler
import os
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from edge_agent.eye_link import Link, LinkClosedError
from edge_agent.mark import Mark
from edge_agent.memory import be_thrifty

Live = Callable[[Link, Mark, dict[str, Any]], None]
"""``live(link, mark, order)`` runs until the link closes. ``order``: what the parent said first."""

_PR_SET_PDEATHSIG: Final = 1
_OOM_SCORE = "500"  # when memory runs out, who judges goes before the agent
_BROKEN = 70  # exit status: a mistake of ours, not of a camera or model


def main(live: Live) -> None:
    """See the head of this file. Never returns."""
    link = Link(socket.socket(fileno=int(sys.argv[1])))
    mark = Mark(int(sys.argv[2]))
    try:
        order = link.receive(None)
        if order is not None:
            _settle(order["parent"])
            live(link, mark, order)
    except Exception as error:  # the one place where a mistake of ours ends
        _break(error)
    # Not the long way: a camera that hangs would keep the interpreter from ending.
    sys.stderr.flush()
    os._exit(0)


def _settle(parent: int) -> None:
    """Die with the parent, die before it when memory runs out, and leave its signals to it."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before we asked
        os._exit(0)
    Path("/proc/self/oom_score_adj").write_text(_OOM_SCORE)
    be_thrifty()
    # Standard error itself may be borrowed while a picture is decoded.
    faulthandler.enable(os.dup(2))
    threading.excepthook = lambda failed: _break(failed.exc_value)


def _break(error: BaseException | None) -> None:
    """A thread failed: the whole process ends, so that the parent notices and starts it again."""
    if isinstance(error, LinkClosedError):
        os._exit(0)
    traceback.print_exception(error)
    os._exit(_BROKEN)
