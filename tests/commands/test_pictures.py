"""From a verdict to a folder that training takes: what the camera kept, and what people say of it."""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from contextlib import closing
from pathlib import Path

import pytest

CAMERA = """\
site: ulsan
line: press-3
state_dir: state
cameras:
  outfeed:
    {kind: simulated, size: 320x240, fps: 20, part_every: 400ms, defect_every: 2, trigger: {kind: simulated}}
"""


@pytest.fixture
def inspected(place, until):
    """A daemon that judges parts, with some defects behind it."""
    place.config.write_text(CAMERA)
    place.start()
    # Enough that training finds good and bad ones to learn from, to choose by and to examine with.
    until(lambda: len(kept(place, "verdict")) >= 8 and len(kept(place, "post")) >= 12, 120)
    return place


def kept(place, role):
    listed = place.json("alarms", "pictures", "--last", "1000")["pictures"]
    return [each for each in listed if each["role"] == role]


def bodies(place, topic):
    """What waits for the broker under a topic."""
    with closing(sqlite3.connect(f"file:{place.folder}/state/spool.db?mode=ro", uri=True)) as db:
        rows = db.execute("SELECT body FROM outbox WHERE topic=? ORDER BY id", (topic,))
        return [json.loads("{" + row[0] + "}") for row in rows]


def test_a_correction_reaches_the_broker_and_the_training_set(inspected, until):
    """The operator says that it was a scratch; it is stored, published, exported, and training reads it."""
    first, second, *_ = kept(inspected, "verdict")
    env = {"SUDO_USER": "kim"}
    answer = inspected.json("alarms", "correct", first["id"], "scratch", env=env)
    assert answer == {"picture": first["id"], "label": "scratch", "was": "defect"}
    assert "shows good, not defect" in inspected.call("alarms", "correct", second["id"], "good", env=env).stdout
    told = until(lambda: bodies(inspected, "correction/outfeed")[1:])
    assert (told[0]["evidence"], told[0]["label"], told[0]["who"]) == (second["id"], "good", "kim")
    shown = inspected.call("alarms", "pictures", "--last", "1000").stdout
    assert first["id"] in shown
    assert "scratch" in shown

    answer = inspected.json("export", "--evidence", "out", "--camera", "outfeed")
    assert answer["classes"]["scratch"] == 1
    assert answer["corrected"] == 2
    train = ("train", "defects", "out", "--output", "model.zip", "--groups", answer["groups"], "--check")
    found = inspected.json(*train, timeout=300)
    # Simulated parts are now and then copies; what has two labels is left out, and each is named.
    said = [line for line in found["remarks"] if line.startswith("left out, a copy has another label: ")]
    left_out = Counter(Path(line.rpartition(": ")[2]).parent.name for line in said)
    assert {name: found["classes"][name] + left_out[name] for name in found["classes"]} == answer["classes"]
    again = inspected.call("export", "--evidence", "out")
    assert again.returncode == 3
    assert "is there already" in again.stderr


def test_the_counts_of_a_shift_outlive_the_daemon(inspected, until):
    """Killed without a word: the next one goes on, and at the end each verdict on record is counted once."""
    daemon = inspected.daemons[-1]
    daemon.kill()
    daemon.wait(20)
    (inspected.folder / "state" / "control.sock").unlink()
    recorded = [verdict["label"] for verdict in bodies(inspected, "verdict/outfeed")]
    inspected.start()
    camera = inspected.ask("status")["cameras"]["outfeed"]
    assert camera["trigger"] == "simulated"
    assert camera["shift"]["good"] + camera.get("last_shift", {}).get("good", 0) >= recorded.count("good") > 0
    assert "inspects" in inspected.call("status").stdout
    until(lambda: len(bodies(inspected, "verdict/outfeed")) > len(recorded) + 2, 60)
    inspected.end()
    assert bodies(inspected, "shift/outfeed")
    with closing(sqlite3.connect(inspected.folder / "state" / "spool.db")) as db:
        note = json.loads(db.execute("SELECT value FROM meta WHERE key='shift/outfeed'").fetchone()[0])
    labels = [verdict["label"] for verdict in bodies(inspected, "verdict/outfeed")]
    for bucket, label in (("good", "good"), ("bad", "defect"), ("not_inspected", "not-inspected")):
        assert sum(count[bucket] for count in note.values()) == labels.count(label), bucket


def test_without_a_picture_there_is_nothing_to_say(place):
    """Each verb says so, in words."""
    assert "no picture is kept" in place.call("alarms", "pictures").stdout
    done = place.call("export", "--evidence", "out")
    assert done.returncode == 3
    assert "no picture with a label" in done.stderr
    assert not (place.folder / "out").exists()


def test_a_camera_of_which_no_picture_is_kept_is_named(place):
    """There are pictures, of others: a name with a mistake in it must not look as if there were none at all."""
    place.config.write_text(CAMERA)
    folder = place.folder / "state" / "evidence" / "outfeed"
    folder.mkdir(parents=True)
    (folder / "outfeed-20261120T055102317Z-1a2b3c4d.jpg").write_bytes(b"a picture")
    assert (
        "no picture of outfed is kept — did you mean 'outfeed'?"
        in place.call("alarms", "pictures", "--camera", "outfed").stdout
    )
    assert (
        "no picture of outfeed waits for a label\n"
        in place.call("alarms", "pictures", "--camera", "outfeed", "--uncertain").stdout
    )
    refused = place.call("export", "--evidence", "out", "--camera", "outfed")
    assert refused.returncode == 3
    assert "there is no picture with a label for that (pictures are kept of outfeed)" in refused.stderr
