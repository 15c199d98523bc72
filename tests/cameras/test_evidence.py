"""Pictures kept as evidence."""

import hashlib
import os
import threading
from pathlib import Path

import pytest

from edge_agent.camera_settings import EvidenceSection
from edge_agent.clock import ManualClock, Stamp
from edge_agent.contracts import Frame
from edge_agent.evidence import Keeper, Pencil, new_id
from edge_agent.evidence_folder import EvidenceFolder, Turns
from edge_agent.evidence_index import INDEX, Kept, read
from edge_agent.vocabulary import Verdict

DAY_S = 86_400


def settings(**wanted) -> EvidenceSection:
    return EvidenceSection.model_validate({"keep_free": "0B", "quota": "1MiB", **wanted})


def stamp(path: Path, later_s: float = 0, *, synced: bool = True) -> Stamp:
    """The time on which a file was written, or so much later."""
    return Stamp(0, int((path.stat().st_mtime + later_s) * 1000), synced)


@pytest.fixture
def folder(tmp_path):
    opened = EvidenceFolder(tmp_path / "evidence", settings())
    opened.open()
    return opened


def files(folder: EvidenceFolder) -> list[str]:
    return sorted(path.name for path in folder.path.iterdir() if path.suffix == ".jpg")


def put(folder: EvidenceFolder, name: str, data: bytes, at: Stamp) -> None:
    folder.write(data, at, Kept(name, "cam", "verdict", name, at.wall_ms, "defect", "rule"))


NOW = ManualClock().stamp()


def test_ids_are_unique_in_order_and_fit_everywhere():
    """Camera, time and chance; only letters, digits and dashes."""
    clock = ManualClock()
    made = []
    for _ in range(5):
        made.append(new_id("outfeed", clock.stamp()))
        clock.advance(0.001)
    assert made == sorted(made)
    assert len({new_id("outfeed", NOW) for _ in range(100)}) == 100
    assert new_id("outfeed", NOW).startswith("outfeed-20261118T110640000Z-")


def test_a_file_is_there_whole(folder):
    """Nothing but the finished file is left."""
    put(folder, "a", b"picture", NOW)
    assert sorted(path.name for path in folder.path.iterdir()) == ["a.jpg", INDEX]
    assert (folder.path / "a.jpg").read_bytes() == b"picture"


def test_what_a_crash_left_unfinished_is_removed(folder):
    """Half a picture is no evidence."""
    (folder.path / "b.part").write_bytes(b"half")
    folder.open()
    assert [path.name for path in folder.path.iterdir()] == [INDEX]


def test_the_oldest_go_first_when_the_quota_is_reached(folder):
    """1 MiB holds three pictures of 300 kB; each further one costs the oldest, and that is counted."""
    for number in range(5):
        put(folder, f"{number}", bytes(300_000), NOW)
        os.utime(folder.path / f"{number}.jpg", (number, number))
    assert files(folder) == ["2.jpg", "3.jpg", "4.jpg"]
    assert folder.evicted == 2


def test_the_quota_counts_what_was_there_before(tmp_path):
    """A restart does not forget the files of yesterday."""
    first = EvidenceFolder(tmp_path, settings())
    first.open()
    put(first, "old", bytes(900_000), NOW)
    second = EvidenceFolder(tmp_path, settings())
    second.open()
    put(second, "new", bytes(300_000), NOW)
    assert files(second) == ["new.jpg"]


def test_old_pictures_go_by_age_while_the_clock_is_right(folder):
    """After `keep` a picture goes; an unsynced clock may claim any year and removes nothing."""
    put(folder, "a", b"x", NOW)
    path = folder.path / "a.jpg"
    put(folder, "b", b"x", stamp(path, 31 * DAY_S, synced=False))
    assert files(folder) == ["a.jpg", "b.jpg"]
    put(folder, "c", b"x", stamp(path, 29 * DAY_S))
    assert files(folder) == ["a.jpg", "b.jpg", "c.jpg"]
    put(folder, "d", b"x", stamp(path, 31 * DAY_S))
    assert files(folder) == ["d.jpg"]
    assert folder.evicted == 3


def test_nothing_is_written_where_the_disk_is_nearly_full(tmp_path):
    """The database needs the last room more."""
    folder = EvidenceFolder(tmp_path, settings(keep_free="1000000GiB"))
    folder.open()
    with pytest.raises(OSError, match="too little room"):
        put(folder, "a", b"x", NOW)
    assert files(folder) == []


def test_a_picture_larger_than_the_quota_evicts_nobody(folder):
    """It is refused before anything is removed."""
    put(folder, "a", b"x", NOW)
    with pytest.raises(OSError, match="larger than the quota"):
        put(folder, "b", bytes(2_000_000), NOW)
    assert files(folder) == ["a.jpg"]


def test_a_write_that_fails_leaves_nothing_behind(folder, monkeypatch):
    """Also when the disk fails at the last moment."""

    def broken(_descriptor):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fsync", broken)
    with pytest.raises(OSError, match="Input/output"):
        put(folder, "a", b"x", NOW)
    assert files(folder) == []


# --- what is kept of a sequence of judged pictures


class Picture:
    """Pixels that are a word, and what was drawn into them."""

    def __init__(self, word: object) -> None:
        self.word = str(word)

    def __str__(self) -> str:
        return self.word

    @staticmethod
    def shrunk(source) -> tuple["Picture", int]:
        """Half as large."""
        return Picture(source[2:].decode() if isinstance(source, bytes) else source), 2

    def mark(self, box, text) -> None:
        self.word += f" {list(box)} {text}"

    def glow(self, region, levels) -> None:
        self.word += f" hot {list(region)} {'/'.join(levels)}"


class Desk:
    """A keeper whose pictures are numbered: the image n has the JPEG b'n', and a box in it b'n [box] text'."""

    def __init__(self, path: Path, encode=lambda image, _quality: f"{image}".encode(), **wanted) -> None:
        self.lost: list[str] = []
        self.reports = []
        self.clock = ManualClock()
        self.folder = EvidenceFolder(path, settings(**wanted))
        pencil = Pencil(Picture.shrunk, encode, Picture.mark, Picture.glow)
        keeper = (settings(**wanted), self.folder, pencil, self.clock, self.reports.append, self.lost.append)
        self.keeper = Keeper("cam", *keeper)
        self.number = 0
        self.verdicts = []

    def plan(self, label: str, encoded: bytes | None = None, heat=(), **details):
        verdict = Verdict("cam", NOW, label, "pitting@1", 0.9, 0.8, details=details)
        self.verdicts.append(verdict)
        return self.keeper.plan(
            Frame(NOW, self.number, encoded), Picture(self.number), verdict, (100, 10, 80, 60), heat
        )

    def judge(self, *labels: str, encoded: bytes | None = None, **details) -> list[str]:
        """Judge pictures; what is written of them, as role and picture."""
        planned = []
        for label in labels:
            jobs = self.plan(label, encoded, **details)
            self.keeper.submit(jobs)
            planned += [f"{job.role} {job.shot.jpeg or job.shot.image}" for job in jobs]
            self.number += 1
        return planned


def test_the_pictures_around_a_defect_are_kept(tmp_path):
    """Two before, itself and two after, each once, in order."""
    desk = Desk(tmp_path)
    assert desk.judge(*["good"] * 4) == []
    assert desk.judge("defect") == ["pre 2", "pre 3", "verdict 4"]
    assert desk.judge("good", "good", "good") == ["post 5", "post 6"]
    assert desk.judge("defect") == ["pre 7", "verdict 8"]
    assert desk.judge("good", "defect", "good") == ["post 9", "verdict 10", "post 11"]


def test_ids_tell_what_belongs_together(tmp_path):
    """The pictures around a verdict bear its id."""
    desk = Desk(tmp_path, pre=1, post=1)
    jobs = []
    for label in ("good", "defect", "good"):
        jobs += desk.plan(label)
    before, itself, after = (job.id for job in jobs)
    assert (before, after) == (f"{itself}-pre1", f"{itself}-post1")


def test_only_the_configured_labels_are_kept(tmp_path):
    """A picture that could not be inspected is kept if that is wanted."""
    assert Desk(tmp_path).judge("not-inspected", "anomaly") == ["pre 0", "verdict 1"]
    assert Desk(tmp_path, labels=["not-inspected"]).judge("defect", "not-inspected") == ["pre 0", "verdict 1"]
    assert Desk(tmp_path, labels=[]).judge("defect", "anomaly") == []


def test_files_are_reported_when_they_are_complete(tmp_path):
    """The report names path, hash, size and role; a JPEG is kept as it came."""
    desk = Desk(tmp_path, pre=0, post=1)
    desk.keeper.start()
    desk.judge("defect", encoded=b"\xff\xd8 as it came")
    desk.judge("good")
    desk.keeper.finish(10)
    assert [report.role for report in desk.reports] == ["verdict", "post"]
    for report, data in zip(desk.reports, (b"\xff\xd8 as it came", b"1"), strict=True):
        assert Path(report.path).read_bytes() == data
        assert (report.sha256, report.size_bytes) == (hashlib.sha256(data).hexdigest(), len(data))


def test_a_disk_that_is_too_slow_costs_pictures_and_nothing_else(tmp_path):
    """While the writer is stuck the judge goes on; what is lost is counted, and no verdict names it."""
    go_on = threading.Event()

    def slowly(image, _quality):
        go_on.wait(30)
        return f"{image}".encode()

    desk = Desk(tmp_path, slowly, pre=0, post=0)
    desk.keeper.start()
    written = desk.judge(*["defect"] * 50)
    assert 1 <= len(written) < 10
    assert len(desk.lost) == 50 - len(written)
    go_on.set()
    desk.keeper.finish(10)
    assert len(desk.reports) == len(written)


def test_a_folder_that_cannot_be_made_costs_pictures_and_nothing_else(tmp_path):
    """A read-only or missing disk is told, and the thread lives on."""
    (tmp_path / "file").touch()
    desk = Desk(tmp_path / "file" / "evidence", pre=0, post=0)
    desk.keeper.start()
    desk.judge("defect", "defect")
    desk.keeper.finish(10)
    assert len(desk.lost) == 3
    assert desk.reports == []


# --- where it is, and what it shows


def test_a_copy_shows_where_and_the_picture_itself_is_as_it_came(tmp_path):
    """The box stands in the whole picture, though the judge saw a region; it is half as large, which will do."""
    desk = Desk(tmp_path, pre=0, post=0)
    desk.keeper.start()
    desk.judge("defect", encoded=b"\xff\xd8 as it came", box_px=[5, 6, 7, 8])
    desk.judge("defect", at_px=[50, 60])
    desk.keeper.finish(10)
    written = {report.role: Path(report.path).read_bytes() for report in desk.reports[:2]}
    assert written["verdict"] == b"\xff\xd8 as it came"
    assert written["overlay"] == b" as it came [52, 8, 3, 4] defect 0.9 of 0.8, pitting@1"
    assert Path(desk.reports[3].path).read_bytes().startswith(b"1 [69, 29, 12, 12]")
    assert desk.reports[1].id == f"{desk.reports[0].id}-overlay"


def test_a_copy_shows_where_it_is_hot(tmp_path):
    """The model's map over the region that it saw, also where it names no box."""
    desk = Desk(tmp_path, pre=0, post=0)
    desk.keeper.start()
    desk.judge("defect", heat=("00", "0f"), box_px=[5, 6, 7, 8])
    desk.judge("defect", heat=("00", "0f"))
    desk.keeper.finish(10)
    drawn = [Path(report.path).read_text() for report in desk.reports if report.role == "overlay"]
    assert drawn[0].startswith("0 hot [50, 5, 40, 30] 00/0f [52, 8, 3, 4] defect")
    assert drawn[1].startswith("1 hot [50, 5, 40, 30] 00/0f [50, 5, 40, 30] defect")


def test_no_copy_where_nobody_says_where_or_nobody_wants_it(tmp_path):
    """A picture is not stored twice for nothing."""
    assert Desk(tmp_path).judge("defect") == ["verdict 0"]
    assert Desk(tmp_path, overlay=False).judge("defect", box_px=[1, 2, 3, 4]) == ["verdict 0"]


def test_what_a_picture_shows_stands_in_the_index(tmp_path):
    """Each picture with the verdict about itself, whoever it is kept for; torn and foreign lines count for nothing."""
    desk = Desk(tmp_path, pre=1, post=0)
    desk.keeper.start()
    desk.judge("good", **{"class": "fine"})
    desk.judge("defect", part="2026-11-20T05:51:02.317Z")
    desk.keeper.finish(10)
    with (tmp_path / INDEX).open("ab") as file:
        file.write(b'[]\n{"id": 1}\n\xff\n' + b"[" * 9999 + b'\n{"id": "torn')
    before, itself = read(tmp_path)
    assert (before.role, before.label, before.kind, before.of) == ("pre", "good", "fine", itself.id)
    assert (itself.role, itself.label, itself.score, itself.threshold) == ("verdict", "defect", 0.9, 0.8)
    assert (itself.part, itself.at_ms, itself.decided_by) == ("2026-11-20T05:51:02.317Z", NOW.wall_ms, "pitting@1")


def test_the_index_forgets_pictures_that_are_gone(tmp_path):
    """It is written anew at every start."""
    folder = EvidenceFolder(tmp_path, settings())
    folder.open()
    for name in "abc":
        put(folder, name, b"x", NOW)
    (tmp_path / "b.jpg").unlink()
    folder.open()
    assert [line.id for line in read(tmp_path)] == ["a", "c"]


# --- what people should label


def test_what_the_model_was_unsure_of_is_kept_in_a_room_of_its_own(tmp_path):
    """A good part with a doubtful score: the verdict names the picture; defects never push it out."""
    desk = Desk(tmp_path, pre=1)
    desk.keeper.start()
    assert desk.judge("good", uncertain="near-threshold") == ["uncertain 0"]
    assert desk.judge("defect", uncertain="near-threshold") == ["pre 0", "verdict 1"], "kept anyway"
    desk.keeper.finish(10)
    (kept,) = read(tmp_path / "uncertain")
    assert desk.verdicts[0].evidence == kept.id
    assert (kept.role, kept.uncertain) == ("uncertain", "near-threshold")
    assert desk.reports[0].path == str(tmp_path / "uncertain" / f"{kept.id}.jpg")


def test_not_too_many_are_kept_for_labelling(tmp_path):
    """So many in 24 hours, so long between two, also over a restart."""
    turns = Turns(per_day=3, apart_s=60)
    turns.remember([0, -23 * 3600 * 10**9])
    assert [turns.take(second * 10**9) for second in (30, 90, 100, 3 * 3600, 4 * 3600)] == [
        False,
        True,
        False,
        True,
        False,
    ]
    desk = Desk(tmp_path, uncertain={"per_day": 1})
    assert len(desk.judge(*["good"] * 5, uncertain="near-threshold")) == 1


def test_a_full_room_for_labelling_costs_its_oldest_pictures_only(tmp_path):
    """Its quota is its own."""
    wanted = {"quota": "1MiB", "uncertain": {"quota": "1MiB", "apart": "0s"}, "pre": 0, "post": 0}
    desk = Desk(tmp_path, lambda _image, _quality: bytes(400_000), **wanted)
    desk.keeper.start()
    desk.judge("defect")
    for _ in range(4):
        desk.judge("good", uncertain="models-disagree")
    desk.keeper.finish(10)
    assert len(list(tmp_path.glob("*.jpg"))) == 1
    assert [path.stem for path in sorted((tmp_path / "uncertain").glob("*.jpg"))] == sorted(
        report.id for report in desk.reports[-2:]
    )
    assert desk.keeper.evicted == 2
