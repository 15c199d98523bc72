"""Mutated models through guard, runtime and golden decisions: ``python -m bench.fuzz_models [SECONDS] [SEED]``.

Each one is tried in a child with little memory and a deadline, as :mod:`models.trial` does, but forked, so that
thousands fit into a minute. What the guards let through and the runtimes then crash on is why the first load of a
bundle happens in a process of its own.
"""

import os
import random
import resource
import signal
import sys
import time
from collections import Counter

from edge_agent.errors import ModelError
from models import bundle, judge, onnx_guard, session, tflite_guard
from models.bundle import Bundle, digest
from tests.models.building import TRUSTED, bundle_files, with_tflite

DEADLINE_S = 10
MISTAKE = "a mistake of ours"
GUARDS = {"onnx": onnx_guard.check, "tflite": tflite_guard.check}
NASTY = (b"\0", b"\xff", b"\x7f", b"\x80", b"\xff\xff\xff\xff", b"\xff\xff\xff\x7f", b"\0\0\0\x80", b"\x01\0\0\0")


def mutated(data, draw):
    data = bytearray(data)
    for _ in range(draw.choice((1, 1, 2, 4, 8))):
        at = draw.randrange(len(data))
        what = draw.randrange(4)
        if what == 0:
            data[at] ^= 1 << draw.randrange(8)
        elif what == 1:
            change = draw.choice(NASTY)
            data[at : at + len(change)] = change
        elif what == 2:
            del data[at : at + draw.randrange(1, 16)]
        else:
            data[at:at] = data[at : at + draw.randrange(1, 32)]
    return bytes(data)


def outcome(found, variant):
    """Loads, is refused by the guard, by the runtime or later; or what became of the child."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
            resource.setrlimit(resource.RLIMIT_AS, (1 << 31, 1 << 31))
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            signal.alarm(DEADLINE_S)
            said = tried(found, variant)
        except BaseException as error:
            said = f"{MISTAKE}: {error!r}"[:200].encode()
        os.write(writing, said)
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        said = pipe.read()
    _, status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(status):
        name = signal.Signals(os.WTERMSIG(status)).name
        return "hangs (contained)" if name == "SIGALRM" else f"crashes, {name} (contained)"
    return said.decode()


def tried(found, variant):
    try:
        GUARDS[found.card.file(variant).format](found.files[found.card.file(variant).name])
    except ModelError:
        return b"refused by the guard"
    try:
        judge.load(found, variant)
    except ModelError as error:
        return b"refused by golden decisions" if "golden" in str(error) else b"refused by the runtime or the card"
    except MemoryError:
        return b"refused: memory"
    return b"loads and decides as it should"


def main():
    seconds, seed = (float(sys.argv[1]) if len(sys.argv) > 1 else 30.0), (int(sys.argv[2]) if len(sys.argv) > 2 else 0)
    draw = random.Random(seed)
    whole = bundle.verify(bundle_files(*with_tflite()), TRUSTED)
    for format_ in session.FORMATS:  # before the first fork
        session.load(format_, next(whole.files[file.name] for file in whole.card.files if file.format == format_))
    end, counts = time.monotonic() + seconds, {file.variant: Counter() for file in whole.card.files}
    while time.monotonic() < end:
        for file in whole.card.files:
            files = {**whole.files, file.name: mutated(whole.files[file.name], draw)}
            counts[file.variant][outcome(Bundle(whole.card, files, digest(files)), file.variant)] += 1
    for variant, found in counts.items():
        print(f"{variant}: {sum(found.values())} mutations")
        for what, count in found.most_common():
            print(f"  {count:6} {what}")
    return 1 if any(what.startswith(MISTAKE) for found in counts.values() for what in found) else 0


if __name__ == "__main__":
    sys.exit(main())
