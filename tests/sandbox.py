"""Run a command under the system call rules of a systemd unit: `sandbox.py UNIT COMMAND…`.

systemd itself is seldom there where tests run, but what its rules break can be seen without it: this reads
SystemCallFilter, ProtectClock, MemoryDenyWriteExecute and RestrictAddressFamilies from the unit and asks the kernel
for the same, through libseccomp as systemd does. Exit status 77: this kernel or machine cannot.
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import subprocess
import sys
from pathlib import Path

_ALLOW, _DENY = 0x7FFF0000, 0x00050000 | errno.EPERM
_EQUAL = 4  # SCMP_CMP_EQ
_PR_SET_NO_NEW_PRIVS, _PR_SET_MDWE = 38, 65


class _Compare(ctypes.Structure):
    _fields_ = [("arg", ctypes.c_uint), ("op", ctypes.c_int), ("a", ctypes.c_uint64), ("b", ctypes.c_uint64)]


def settings(unit: Path) -> dict[str, list[str]]:
    """Every setting of the unit, each with all its values in order."""
    found: dict[str, list[str]] = {}
    for line in unit.read_text().splitlines():
        name, equals, value = line.partition("=")
        if equals and not line.startswith(("#", ";")):
            found.setdefault(name.strip(), []).append(value.strip())
    return found


def allowed_calls(filters: list[str], *, protect_clock: bool) -> set[str]:
    """The names of the system calls that a unit's filters leave."""
    sets: dict[str, set[str]] = {}
    listing = subprocess.run(
        ["systemd-analyze", "syscall-filter", "--no-pager"], capture_output=True, text=True, check=True
    ).stdout
    current: set[str] = set()
    for line in listing.splitlines():
        if line.startswith("@"):
            current = sets[line.strip()] = set()
        elif not line.startswith(" "):
            current = set()  # the kernel's calls that belong to no set
        elif not line.strip().startswith("#"):
            current.add(line.strip())

    def expand(name: str) -> set[str]:
        return set().union(*map(expand, sets[name])) if name in sets else {name}

    calls: set[str] = set()
    for entry in filters:
        named = set().union(*map(expand, entry.removeprefix("~").split()))
        calls = calls - named if entry.startswith("~") else calls | named
    return calls - expand("@clock") if protect_clock else calls


def enter(unit: Path) -> None:
    """Put the unit's rules on this process, for good. Raises OSError where the machine cannot."""
    wanted = settings(unit)
    libc = ctypes.CDLL(None, use_errno=True)
    seccomp = ctypes.CDLL("libseccomp.so.2", use_errno=True)
    seccomp.seccomp_init.restype = ctypes.c_void_p
    rules = ctypes.c_void_p(seccomp.seccomp_init(_DENY))
    families = [int(getattr(socket, name)) for name in wanted["RestrictAddressFamilies"][-1].split()]
    calls = allowed_calls(wanted["SystemCallFilter"], protect_clock=wanted.get("ProtectClock") == ["yes"])
    for call in calls:
        number = seccomp.seccomp_syscall_resolve_name(call.encode())
        if number < 0:  # of another processor
            continue
        if call != "socket":
            assert seccomp.seccomp_rule_add_array(rules, _ALLOW, number, 0, None) == 0, call
            continue
        for family in families:
            is_family = _Compare(0, _EQUAL, family, 0)
            assert seccomp.seccomp_rule_add_array(rules, _ALLOW, number, 1, ctypes.byref(is_family)) == 0
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "no_new_privs")
    if wanted.get("MemoryDenyWriteExecute") == ["yes"] and libc.prctl(_PR_SET_MDWE, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "this kernel cannot refuse writable code (6.3 can)")
    if seccomp.seccomp_load(rules) != 0:
        raise OSError(errno.EPERM, "this machine does not let us filter system calls")


if __name__ == "__main__":
    try:
        enter(Path(sys.argv[1]))
    except OSError as cannot:
        sys.stderr.write(f"{cannot}\n")
        sys.exit(77)
    os.execvp(sys.argv[2], sys.argv[2:])
