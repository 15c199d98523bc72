"""The memory of a process: how much it is, and what of it goes back to the machine."""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
from pathlib import Path
from typing import Final

# mallopt: M_MMAP_THRESHOLD (a picture of 1920 x 1080 is used again), M_TRIM_THRESHOLD, M_ARENA_MAX
_THRIFT: Final = ((-3, 4 << 20), (-1, 8 << 20), (-8, 1))
_MADV_DONTNEED: Final = 4
_MADV_DONTDUMP: Final = 16
_AT_ONCE: Final = 128 << 10  # bytes
# A mapping of a file, private and not writable, and what smaps says of it; see proc(5). It may be dirty: a file that
# was installed a minute ago is not on the disk yet.
_MAPPED: Final = re.compile(r"^([0-9a-f]+)-([0-9a-f]+) r-[x-]p \S+ \S+ [1-9]\d* +/.*\n((?:[A-Z].*\n?)*)", re.MULTILINE)
_CHANGED: Final = re.compile(r"^(?:Anonymous|Swap): +[1-9]", re.MULTILINE)


def rss_bytes() -> int:
    """Memory of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def be_thrifty() -> None:
    """Room for a few pictures is used again and again; what is more goes back to the machine at once.

    Left alone, glibc keeps whatever was needed once: three times as much, while a model is loaded.
    """
    with contextlib.suppress(AttributeError):  # another C library
        for setting, value in _THRIFT:
            ctypes.CDLL(None).mallopt(setting, value)


def give_back() -> None:
    """What starting needed goes back to the machine: memory, and pages of libraries that were needed once.

    Those come back from the kernel's cache when they are needed again. From 6.18 on Linux then maps whatever it holds
    in one piece, up to 2 MB of a file that was written at once, as far as it is one mapping: so it is made several,
    which differ in what matters to nobody, whether they would be in a core dump.
    """
    libc = ctypes.CDLL(None)
    with contextlib.suppress(AttributeError):  # as above
        libc.malloc_trim(0)
    for begin, end in _untouched(Path("/proc/self/smaps").read_text()):
        libc.madvise(ctypes.c_void_p(begin), ctypes.c_size_t(end - begin), _MADV_DONTNEED)
        for place in range(begin, end - _AT_ONCE, 2 * _AT_ONCE):
            libc.madvise(ctypes.c_void_p(place), ctypes.c_size_t(_AT_ONCE), _MADV_DONTDUMP)


def _untouched(smaps: str) -> list[tuple[int, int]]:
    """Where files are mapped that nobody may write, and nobody has written: what is there is what the file says."""
    found = []
    for begin, end, said in _MAPPED.findall(smaps):
        if _CHANGED.search(said) is None:
            found.append((int(begin, 16), int(end, 16)))
    return found
