"""What every process that judges does first and last; :mod:`edge_agent.child` starts it: ``-m MODULE LINK MARK``.

It ends when the link closes, and the kernel kills it when the agent dies. Signals that are meant for the agent do
not reach it.
"""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import os
import re
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

Live = Callable[[Link, Mark, dict[str, Any]], None]
"""``live(link, mark, order)`` runs until the link closes. ``order``: what the parent said first."""

_PR_SET_PDEATHSIG: Final = 1
_OOM_SCORE = "500"  # when memory runs out, who judges goes before the agent
# mallopt: M_MMAP_THRESHOLD (a picture of 1920 x 1080 is used again), M_TRIM_THRESHOLD, M_ARENA_MAX
_THRIFT: Final = ((-3, 4 << 20), (-1, 8 << 20), (-8, 1))
_MADV_DONTNEED: Final = 4
# A mapping of a file, private and not writable, and what smaps says of it; see proc(5).
_MAPPED: Final = re.compile(r"^([0-9a-f]+)-([0-9a-f]+) r-[x-]p \S+ \S+ [1-9]\d* +/.*\n((?:[A-Z].*\n?)*)", re.MULTILINE)
_CHANGED: Final = re.compile(r"^(?:Private_Dirty|Shared_Dirty|Anonymous|Swap): +[1-9]", re.MULTILINE)
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


def rss_bytes() -> int:
    """Memory of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


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


def be_thrifty() -> None:
    """Room for a few pictures is used again and again; what is more goes back to the machine at once.

    Left alone, glibc keeps whatever was needed once: three times as much, while a model is loaded.
    """
    with contextlib.suppress(AttributeError):  # another C library
        for setting, value in _THRIFT:
            ctypes.CDLL(None).mallopt(setting, value)


def give_back() -> None:
    """What starting needed goes back to the machine: memory, and pages of libraries that were needed once.

    Those come back from the kernel's cache, one by one, when they are needed again.
    """
    libc = ctypes.CDLL(None)
    with contextlib.suppress(AttributeError):  # as above
        libc.malloc_trim(0)
    for begin, end in _untouched(Path("/proc/self/smaps").read_text()):
        libc.madvise(ctypes.c_void_p(begin), ctypes.c_size_t(end - begin), _MADV_DONTNEED)


def _untouched(smaps: str) -> list[tuple[int, int]]:
    """Where files are mapped that nobody may write, and nobody has written: what is there is what the file says."""
    found = []
    for begin, end, said in _MAPPED.findall(smaps):
        if _CHANGED.search(said) is None:
            found.append((int(begin, 16), int(end, 16)))
    return found


def _break(error: BaseException | None) -> None:
    """A thread failed: the whole process ends, so that the parent notices and starts it again."""
    if isinstance(error, LinkClosedError):
        os._exit(0)
    traceback.print_exception(error)
    os._exit(_BROKEN)
