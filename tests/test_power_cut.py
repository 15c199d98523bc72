"""A power cut at any moment: what the disk then holds is made from a recording of every write and sync.

What was not synced may be there or not, each write for itself, and the last one in part.
"""

from __future__ import annotations

import ctypes
import json
import os
import random
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from edge_agent.clock import ManualClock
from edge_agent.health import Health
from edge_agent.outbox import GAP, TELEMETRY, Row
from edge_agent.spool import Spool

RECORDER = Path(__file__).parent / "peers" / "disk_recorder.c"
QUICK_DISK = next((place for place in ("/dev/shm",) if os.access(place, os.W_OK)), None)
FILES = ("spool.db", "spool.db-wal")
KEPT = 40  # rows that the broker has not confirmed yet
CUTS = 150


def spool(folder: Path, clock: ManualClock, *, durable: bool) -> Spool:
    return Spool(folder / "spool.db", clock, Health(clock), limit_bytes=1 << 30, floor_bytes=0, durable=durable)


def live(folder: Path, *, durable: bool) -> None:
    """In the child: batches are kept, older rows leave, minutes are written, now and then the WAL is emptied."""
    mark = ctypes.CDLL(None).recorder_mark
    chance, clock = random.Random(5), ManualClock(synced=False)
    lived = spool(folder, clock, durable=durable)
    lived.open()
    (folder / "stream").write_text(lived.stream)
    given, waiting = 0, []
    for step in range(200):
        rows = []
        for _ in range(chance.randint(1, 8)):
            given += 1
            pad = "x" * chance.choice((20, 300, 5000))
            rows.append(Row(TELEMETRY, "telemetry/main", clock.stamp(), f'"n":{given},"pad":"{pad}"'))
        waiting += [kept.id for kept in lived.append(rows, waiting[:-KEPT])]
        waiting = waiting[-KEPT - len(rows) :]
        mark(given)
        clock.advance(1)
        if step == 50:
            clock.step_wall(3600, synced=True)
            lived.anchor()
        if step % 60 == 59:
            lived.history([("main", step, '{"p":[1,2,3,4,5]}')], 0)
            lived._db.checkpoint()
    os._exit(0)  # nothing is closed in order


class Note(NamedTuple):
    """One thing that happened on the way to the disk."""

    kind: str
    file: int
    place: int
    data: bytes


def read(path: Path) -> Iterator[Note]:
    """What the recorder noted, in order."""
    notes, at = path.read_bytes(), 0
    while at < len(notes):
        kind, file, place, size = struct.unpack_from("=4q", notes, at)
        at += 32
        yield Note(chr(kind), file, place, notes[at : at + size] if kind == ord("w") else b"")
        at += size


def applied(image: bytearray, note: Note, size: int | None = None) -> None:
    """The note has reached the disk; of a write perhaps only the first bytes."""
    if note.kind == "t":
        del image[note.place :]
        image.extend(bytes(note.place - len(image)))
        return
    data = note.data[:size]
    image.extend(bytes(max(0, note.place + len(data) - len(image))))
    image[note.place : note.place + len(data)] = data


def disk(notes: list[Note], cut: int, chance: random.Random) -> tuple[list[bytearray], int]:
    """The two files after a power cut behind ``cut`` notes, and the last mark before it."""
    images, unsynced, marked = [bytearray(), bytearray()], ([], []), 0
    for note in notes[:cut]:
        if note.kind == "m":
            marked = note.file
        elif note.kind == "s":
            for late in unsynced[note.file]:
                applied(images[note.file], late)
            unsynced[note.file].clear()
        else:
            unsynced[note.file].append(note)
    share = chance.choice((0, 0.2, 0.5, 0.9))
    for image, late in zip(images, unsynced, strict=True):
        for note in late:
            if chance.random() < share:
                applied(image, note)
        if late and chance.random() < 0.5:
            applied(image, late[-1], chance.randrange(0, len(late[-1].data) + 1, 512))
    return images, marked


@pytest.fixture(scope="module", params=[True, False], ids=["power-cut", "crash"])
def recording(request, tmp_path_factory):
    """The notes of a child that lived a while, which durability it had, and its stream."""
    folder = tmp_path_factory.mktemp("recording")
    library = folder / "recorder.so"
    subprocess.run(["gcc", "-shared", "-fPIC", "-O1", "-o", library, RECORDER], check=True)
    code = (
        "import sys; from pathlib import Path; from tests.test_power_cut import live; "
        "live(Path(sys.argv[1]), durable=sys.argv[2] == 'True')"
    )
    environment = {**os.environ, "LD_PRELOAD": str(library), "DISK_NOTES": str(folder / "notes")}
    command = [sys.executable, "-c", code, str(folder), str(request.param)]
    subprocess.run(command, check=True, cwd=Path(__file__).parent.parent, env=environment)
    return list(read(folder / "notes")), request.param, (folder / "stream").read_text()


@pytest.fixture
def quick_disk():
    """In memory where there is such a place: the syncs of hundreds of openings cost nothing there."""
    with tempfile.TemporaryDirectory(dir=QUICK_DISK) as folder:
        yield Path(folder)


def test_a_power_cut_at_any_moment_loses_no_more_than_was_promised(recording, quick_disk):
    """The file is sound; with `power-cut` every commit is there; and no number is ever given twice."""
    notes, durable, stream = recording
    chance = random.Random(62)
    begun = next(at for at, note in enumerate(notes) if note.kind == "m")
    lost = 0
    for cut in range(CUTS):
        images, marked = disk(notes, chance.randint(begun, len(notes)), chance)
        folder = quick_disk / str(cut)
        folder.mkdir()
        for name, image in zip(FILES, images, strict=True):
            (folder / name).write_bytes(image)
        clock = ManualClock()
        (folder / "spool.db-running").write_text(clock.boot_id)
        clock.boot_id = "the next one"
        found = spool(folder, clock, durable=durable)
        found.open()
        reader = found.reader()
        rows = [row for row in reader.rows(-1, 1 << 60, 1 << 30, alarms=False) if row.kind != GAP]
        reader.close()
        assert not list(folder.glob("*.corrupt-*")), "never damaged"
        assert not found.volatile
        if not durable and found.stream != stream:  # nothing had reached the disk yet: it begins anew
            lost += 1
            continue
        numbers = [json.loads(f"{{{row.body}}}")["n"] for row in rows]
        first, last = numbers[0] if numbers else 1, numbers[-1] if numbers else 0
        assert numbers == list(range(first, last + 1)), "in order and whole"
        assert [row.seq for row in rows] == numbers
        assert found.next_seq > max(marked, last), "no number twice"
        if durable:
            assert first <= max(1, marked - KEPT + 1)
            assert last >= marked, "what was kept is there"
        lost += last < marked
        found.close()
    assert (lost > 0) is not durable, "the cuts bit"
