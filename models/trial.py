"""The first load of a bundle, in a process of its own: a crafted model may crash, hang or eat memory there.

::

    prove(bundle) ──bytes in memory──▶ python -m models.trial FD: limits, guard, session, golden decisions
          ▲                                      │
          └── Proof, or ModelError: refused · ended by SIGSEGV · took too long ◀── one JSON line
"""

from __future__ import annotations

import ctypes
import json
import mmap
import os
import re
import resource
import signal
import subprocess
import sys
import zipfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from edge_agent import catalogue
from edge_agent.clock import SystemClock
from edge_agent.errors import ModelError
from edge_agent.vocabulary import Judgement
from models import archive, golden, judge
from models.bundle import Bundle, digest
from models.card import CARD, read_card
from models.session import FORMATS, is_installed

DEADLINE_S: Final = 60.0
MEMORY_BYTES: Final = 1 << 30
"""What a model may take beyond what its runtime takes anyway."""

_PR_SET_PDEATHSIG: Final = 1
_LARGEST_ANSWER: Final = 64 << 10


@dataclass(frozen=True, slots=True)
class Proof:
    """That a bundle decides as it should on this machine, and what that costs.

    ``judge_ms``: mean over the golden inputs; ``p50_ms``, ``p95_ms``: half, and 95 %, of the judgements take no longer;
    ``rss_bytes``: of the whole process at its largest; ``same``: share of golden decisions that were made.
    """

    decided_by: str
    samples: int
    load_ms: float
    judge_ms: float
    rss_bytes: int
    p50_ms: float = 0.0
    p95_ms: float = 0.0
    same: float = 1.0


def prove(
    bundle: Bundle,
    variant: str | None = None,
    threads: int = 1,
    *,
    deadline_s: float = DEADLINE_S,
    memory_bytes: int = MEMORY_BYTES,
    judgements: int = 0,
) -> Proof:
    """Load the bundle in a child process and let it make its golden decisions. Raises ModelError.

    ``judgements``: at least so many are made, to measure; then a wrong one is counted in ``same`` and no error.
    """
    limits = {"memory_bytes": memory_bytes, "deadline_s": deadline_s, "judgements": judgements}
    order = json.dumps({"variant": variant, "threads": threads, **limits})
    try:
        with os.fdopen(os.memfd_create("bundle"), "wb") as file:
            file.write(archive.zipped(bundle.files, zipfile.ZIP_STORED))  # once in memory, and not on the disk
            file.flush()
            done = subprocess.run(  # noqa: S603 - ourselves
                [sys.executable, "-P", "-m", "models.trial", str(file.fileno()), str(os.getpid()), order],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                pass_fds=[file.fileno()],
                env={**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)},
                process_group=0,
                timeout=deadline_s,
                check=False,
            )
    except subprocess.TimeoutExpired:
        raise ModelError(f"{bundle.card.name} hangs: it was not loaded within {deadline_s:g} s") from None
    except OSError as error:
        raise ModelError(f"no process for {bundle.card.name} can be started: {error}") from error
    return _heard(bundle, done)


def _heard(bundle: Bundle, done: subprocess.CompletedProcess[bytes]) -> Proof:
    if done.returncode < 0:
        name = signal.Signals(-done.returncode).name
        raise ModelError(f"{bundle.card.name} crashes: its process was ended by {name}")
    try:
        said = json.loads(done.stdout[:_LARGEST_ANSWER])
        if "refused" in said:
            raise ModelError(str(said["refused"]), hint=str(said["hint"]))
        return Proof(**said)
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        if isinstance(error, ModelError):
            raise
        raise ModelError(f"{bundle.card.name} breaks its process (status {done.returncode})") from error


def main() -> None:
    """See the head of this file."""
    number, parent, order = int(sys.argv[1]), int(sys.argv[2]), json.loads(sys.argv[3])
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before we asked
        os._exit(0)
    answer = os.dup(1)
    os.dup2(2, 1)  # whatever a native library prints is no answer
    with mmap.mmap(number, 0, access=mmap.ACCESS_READ) as data:
        files = archive.unzip(data[:])
    bundle = Bundle(read_card(files[CARD]), files, digest(files))
    try:
        said: dict[str, object] = asdict(_try(bundle, order["variant"], order["threads"], order))
    except ModelError as error:
        said = {"refused": error.args[0], "hint": error.hint}
    except MemoryError:
        said = {"refused": f"{bundle.card.name} needs more memory than a model may have", "hint": ""}
    os.write(answer, json.dumps(said).encode())
    os._exit(0)  # not the long way: a runtime that was fed nonsense may not find out


def _try(bundle: Bundle, variant: str | None, threads: int, limits: dict[str, float]) -> Proof:
    clock = SystemClock()
    for file in bundle.card.files:  # its runtime, before memory is limited
        if variant in (None, file.variant) and is_installed(file.format):
            catalogue.load(FORMATS, file.format)
            break
    _limit(int(limits["memory_bytes"]), int(limits["deadline_s"]))
    began_ns = clock.mono_ns()
    built = judge.build(bundle, variant, threads)
    loaded_ns = clock.mono_ns()
    samples = golden.read(bundle.golden)
    timed, same = _Timed(built, clock), 1.0
    if limits["judgements"]:
        same = golden.agreement(timed, built.card, samples)
    else:
        golden.check(timed, built.card, samples)
    while len(timed.took_ms) < limits["judgements"]:
        built.forget()
        golden.agreement(timed, built.card, samples)
    ordered = sorted(timed.took_ms)
    return Proof(
        built.decided_by,
        len(samples.labels),
        round((loaded_ns - began_ns) / 1e6, 2),
        round(sum(ordered) / len(ordered), 4),
        resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        round(ordered[len(ordered) // 2], 4),
        round(ordered[int(0.95 * (len(ordered) - 1))], 4),
        same,
    )


class _Timed:
    """A judge whose every judgement is timed."""

    def __init__(self, judged: judge.Judge, clock: SystemClock) -> None:
        self.decided_by = judged.decided_by
        self.model_sha256 = judged.model_sha256
        self.took_ms: list[float] = []
        self._judge = judged.judge
        self._clock = clock

    def judge(self, given: object) -> Judgement:
        began_ns = self._clock.mono_ns()
        said = self._judge(given)
        self.took_ms.append((self._clock.mono_ns() - began_ns) / 1e6)
        return said


def _limit(memory_bytes: int, seconds: int) -> None:
    match = re.search(r"VmSize:\s+(\d+) kB", Path("/proc/self/status").read_text(encoding="ascii"))
    taken = int(match[1]) * 1024 if match else 0
    for what, limit in (
        (resource.RLIMIT_AS, taken + memory_bytes),
        (resource.RLIMIT_CPU, seconds + 1),
        (resource.RLIMIT_FSIZE, 0),  # it writes nothing
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(what, (limit, limit))


if __name__ == "__main__":
    main()
