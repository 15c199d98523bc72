"""What people say of pictures, and the folder that training takes."""

import errno
import json
import os
import shutil
from pathlib import Path

import pytest

from edge_agent import training_set
from edge_agent.clock import ManualClock, iso
from edge_agent.errors import EdgeAgentError
from edge_agent.evidence_index import INDEX, Kept
from edge_agent.relabelling import correct, corrections, pictures
from edge_agent.training_set import GROUPS, gather, parts, write
from models.train.pictures import read

NOW = ManualClock().stamp()
FOR_EVER = (0, 1 << 60)


class State:
    """A state folder with evidence as an eye leaves it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.at_ms = NOW.wall_ms

    def keep(self, name: str, label: str, *, after_s: float = 60.0, camera: str = "cam", **more) -> str:
        self.at_ms += round(after_s * 1000)
        role = more.pop("role", "verdict")
        kept = Kept(name, camera, role, more.pop("of", name), self.at_ms, label, "pitting@1", 0.9, 0.8, **more)
        folder = self.path / "evidence" / camera / ("uncertain" if role == "uncertain" else "")
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}.jpg").write_bytes(b"\xff\xd8" + name.encode())
        with (folder / INDEX).open("a") as file:
            file.write(json.dumps({key: getattr(kept, key) for key in Kept.__slots__}) + "\n")
        return name

    def correct(self, picture: str, label: str) -> object:
        return correct(self.path, picture, label, "kim", NOW)

    def labels(self) -> dict[str, str]:
        return {each.name: each.label for each in gather(self.path, *FOR_EVER).examples}


@pytest.fixture
def state(tmp_path):
    return State(tmp_path / "state")


# --- what people say


def test_a_correction_is_kept_with_its_picture(state):
    """Who said what of which picture, what was said before; the picture stays when evidence makes room."""
    state.keep("cam-a", "defect")
    found = state.correct("cam-a", "good")
    assert (found.label, found.was, found.who) == ("good", "defect", "kim")
    shutil.rmtree(state.path / "evidence")
    (only,) = corrections(state.path)
    assert (only.kept.id, only.label, only.kept.decided_by) == ("cam-a", "good", "pitting@1")
    assert state.labels() == {"cam-a": "good"}
    assert state.correct("cam-a", "scratch").was == "good", "it can be said anew"
    assert state.labels() == {"cam-a": "scratch"}


def test_what_is_told_the_broker(state):
    """One row under correction/<camera>."""
    state.keep("cam-a", "defect")
    row = state.correct("cam-a", "good").row(NOW)
    assert row.topic == "correction/cam"
    assert json.loads("{" + row.body + "}") == {
        "subject": "cam",
        "evidence": "cam-a",
        "taken": iso(state.at_ms),
        "label": "good",
        "was": "defect",
        "decided_by": "pitting@1",
        "who": "kim",
    }


def test_a_camera_means_its_newest_picture_and_a_copy_its_original(state):
    """What a person at the line has before the eyes."""
    state.keep("cam-a", "defect")
    state.keep("cam-b", "defect")
    state.keep("cam-b-post1", "good", role="post", of="cam-b", after_s=1)
    state.keep("cam-b-overlay", "defect", role="overlay", of="cam-b", after_s=0)
    state.keep("other-c", "defect", camera="other")
    assert state.correct("cam", "good").kept.id == "cam-b"
    assert state.correct("cam-a-overlay", "good").kept.id == "cam-a"
    state.keep("cam-d", "good", role="uncertain", uncertain="near-threshold")
    assert state.correct("cam", "scratch").kept.id == "cam-d"


@pytest.mark.parametrize(
    ("picture", "label", "message"),
    [
        ("cam-b", "good", "did you mean 'cam-a'"),
        ("nothing-like-it", "good", "edge-agent alarms pictures"),
        ("cam-a", "../../etc", "no label"),
        ("cam-a", "", "no label"),
        ("cam-a", ".hidden", "no label"),
        ("cam-a", "x" * 65, "no label"),
        ("../cam/cam-a", "good", "no picture"),
    ],
)
def test_what_cannot_be_is_refused(state, picture, label, message):
    """Nothing is written then."""
    state.keep("cam-a", "defect")
    with pytest.raises(EdgeAgentError, match=message):
        state.correct(picture, label)
    assert not (state.path / "corrections").exists()


def test_a_label_may_be_a_word_of_any_language(state):
    """It is the operator's word."""
    state.keep("cam-a", "defect")
    assert state.correct("cam-a", "긁힘").label == "긁힘"
    assert state.labels() == {"cam-a": "긁힘"}


def test_where_nothing_can_be_linked_it_is_copied(state, monkeypatch):
    """FAT and some network disks know no links."""

    def never(*_):
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", never)
    state.keep("cam-a", "defect")
    state.correct("cam-a", "good")
    assert (state.path / "corrections" / "cam" / "cam-a.jpg").read_bytes() == b"\xff\xd8cam-a"


def test_a_full_disk_is_told_and_nothing_counts(state, monkeypatch):
    """Half a correction is none."""

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    state.keep("cam-a", "defect")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(EdgeAgentError, match="No space left"):
        state.correct("cam-a", "good")
    assert list(corrections(state.path)) == []


@pytest.mark.parametrize("said", [b"", b"[]", b"{}", b'{"kept": {}}', b"\xff", b"[" * 9999])
def test_a_damaged_correction_is_none(state, said):
    """The others count."""
    for name in ("cam-a", "cam-b"):
        state.keep(name, "defect")
        state.correct(name, "good")
    (state.path / "corrections" / "cam" / "cam-a.json").write_bytes(said)
    assert [each.kept.id for each in corrections(state.path)] == ["cam-b"]


def test_a_picture_whose_line_was_lost_can_be_labelled(state):
    """After a power cut nobody knows what was said of it; a person may still say what it shows."""
    state.keep("cam-a", "defect")
    (state.path / "evidence" / "cam" / INDEX).unlink()
    assert gather(state.path, *FOR_EVER).left_out == {"not judged, and no person labelled it": 1}
    assert state.correct("cam-a", "dent").was == "unknown"
    assert state.labels() == {"cam-a": "dent"}


def test_what_an_eye_must_not_write_is_not_followed(state, tmp_path):
    """It handles hostile pictures: a line about another camera, a link to another file."""
    (tmp_path / "secret").write_bytes(b"secret")
    state.keep("cam-a", "defect")
    (state.path / "evidence" / "cam" / "cam-z.jpg").symlink_to(tmp_path / "secret")
    with (state.path / "evidence" / "cam" / INDEX).open("a") as file:
        foreign = {"id": "cam-a", "camera": "../..", "role": "verdict", "of": "x", "at_ms": 1, "label": "good"}
        file.write(json.dumps({**foreign, "decided_by": ""}) + "\n")
    assert [(each.kept.id, each.kept.camera) for each in pictures(state.path)] == [("cam-a", "cam")]


# --- the folder


def test_people_come_before_models(state):
    """The operator's word, else the model's class, else good or defect; what nobody knows is left out."""
    state.keep("cam-a", "defect")
    state.keep("cam-b", "defect", kind="scratch")
    state.keep("cam-c", "good", role="pre", of="cam-x")
    state.keep("cam-d", "good", role="uncertain", uncertain="near-threshold")
    state.keep("cam-e", "not-inspected")
    state.keep("cam-f", "defect", kind="../../etc")
    state.correct("cam-a", "good")
    state.keep("cam-g", "good", role="uncertain", uncertain="models-disagree")
    state.correct("cam-g", "dent")
    found = gather(state.path, *FOR_EVER)
    assert {each.name: each.label for each in found.examples} == {
        "cam-a": "good",
        "cam-b": "scratch",
        "cam-c": "good",
        "cam-f": "defect",
        "cam-g": "dent",
    }
    assert {each.name for each in found.examples if each.is_corrected} == {"cam-a", "cam-g"}
    assert sum(found.left_out.values()) == 2


def test_a_person_who_corrects_one_picture_doubts_the_others_of_its_part(state):
    """The model was wrong about this part: only what the person labelled is taken."""
    part = "2026-11-20T05:51:02.317Z"
    state.keep("cam-a", "defect", part=part)
    state.keep("cam-a-post1", "defect", role="post", of="cam-a", part=part, after_s=0.2)
    state.keep("cam-b", "defect", part="2026-11-20T05:51:03.317Z", after_s=0.2)
    state.correct("cam-a", "good")
    assert state.labels() == {"cam-a": "good", "cam-b": "defect"}
    assert gather(state.path, *FOR_EVER).left_out == {"a person labelled another picture of the same part": 1}


def test_what_may_show_the_same_part_stays_together(state):
    """By the sensor where there is one; else what follows closely, or was kept for the same verdict."""
    for name, after_s, of in (("a", 60, "a"), ("b", 1, "a"), ("c", 1.5, "c"), ("d", 2.5, "d"), ("e", 10, "d")):
        state.keep(f"cam-{name}", "good", after_s=after_s, of=f"cam-{of}")
    state.keep("other-f", "good", camera="other", after_s=0)
    state.keep("cam-g", "good", part="2026-11-20T05:51:02.317Z", after_s=0)
    groups = parts(each.kept for each in pictures(state.path))
    together = [[name for name in groups if groups[name] == group] for group in dict.fromkeys(groups.values())]
    assert together == [["cam-a", "cam-b", "cam-c"], ["cam-d", "cam-e"], ["cam-g"], ["other-f"]]
    assert groups["cam-g"] == "cam-20261120T055102317Z"


def test_only_what_is_wanted(state):
    """By time and camera."""
    state.keep("cam-a", "defect")
    middle = state.at_ms + 1
    state.keep("cam-b", "defect")
    state.keep("other-c", "defect", camera="other")
    assert [each.name for each in gather(state.path, middle, 1 << 60).examples] == ["cam-b", "other-c"]
    assert [each.name for each in gather(state.path, 0, 1 << 60, ["other"]).examples] == ["other-c"]


def test_training_takes_the_folder(state, tmp_path):
    """Its reader finds the classes, what is good, and the parts."""
    for number in range(3):
        state.keep(f"cam-g{number}", "good")
        state.keep(f"cam-d{number}", "defect")
        state.keep(f"cam-d{number}-post1", "defect", role="post", of=f"cam-d{number}", after_s=0.5)
    state.correct("cam-d2", "scratch")
    write(gather(state.path, *FOR_EVER), tmp_path / "out")
    found = read(tmp_path / "out", GROUPS)
    assert (found.labels, found.good) == (("good", "defect", "scratch"), ("good",))
    assert len(found.samples) == 8
    assert len({sample.group for sample in found.samples}) == 6
    assert all(sample.path.read_bytes().startswith(b"\xff\xd8cam-") for sample in found.samples)


def test_the_folder_is_whole_or_not_there(state, tmp_path, monkeypatch):
    """A disk that is full in the middle leaves nothing behind; a folder that is there is not touched."""
    state.keep("cam-a", "defect")
    state.keep("cam-b", "good")
    gathered = gather(state.path, *FOR_EVER)
    with pytest.raises(EdgeAgentError, match="there already"):
        write(gathered, state.path)
    copy = shutil.copyfile

    def full(source, target):
        if "cam-b" in str(target):
            raise OSError(errno.ENOSPC, "No space left on device", str(target))
        return copy(source, target)

    monkeypatch.setattr(training_set.shutil, "copyfile", full)
    with pytest.raises(EdgeAgentError, match="No space left"):
        write(gathered, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["state"]


def test_a_picture_that_makes_room_meanwhile_is_missing_and_nothing_else(state, tmp_path):
    """The eye goes on while somebody exports."""
    state.keep("cam-a", "defect")
    state.keep("cam-b", "good")
    gathered = gather(state.path, *FOR_EVER)
    (state.path / "evidence" / "cam" / "cam-a.jpg").unlink()
    write(gathered, tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["good"]
