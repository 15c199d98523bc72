"""``edge-agent models …`` and ``edge-agent judge`` as people call them."""

import json

import numpy as np
import pytest
import yaml

from edge_agent.cli import main
from edge_agent.clock import ManualClock
from edge_agent.settings import Section
from edge_agent.vocabulary import ANOMALY, NORMAL, UNKNOWN, Judgement
from models import archive, bundle, judge, keys, rows, trial
from models.library import Library
from models.train.graphs import line_graph
from tests.models.building import (
    BLACK,
    STRANGER,
    TRUSTED,
    VENDOR,
    WHITE,
    bundle_files,
    card,
    golden_of,
    one_node,
    pixel_onnx,
    with_tflite,
)
from tests.models.lines import line_card

IN_A_CHILD = trial.prove
CONFIG = "site: ulsan\nline: press-3\nstate_dir: state\n"


def in_this_process(found, variant=None):
    loaded = judge.load(found, variant)
    return trial.Proof(loaded.decided_by, 3, 1.0, 0.1, 1 << 20)


@pytest.fixture
def place(tmp_path, monkeypatch, capsys):
    """A machine with a config that trusts the vendor; ``run`` gives exit code and what was printed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(trial, "prove", in_this_process)  # a child takes a second each time
    (tmp_path / "config.yaml").write_text(CONFIG)
    (tmp_path / "state" / "keys").mkdir(parents=True)
    (tmp_path / "state" / "keys" / "vendor.pub").write_bytes(keys.public_pem(VENDOR.public_key()))

    def run(*arguments):
        capsys.readouterr()
        code = main([*map(str, arguments), "--config", str(tmp_path / "config.yaml")])
        said = capsys.readouterr()
        return code, said.out or said.err

    return run


def packed(path, *, version=1, key=VENDOR, **how):
    path.write_bytes(archive.zipped(bundle_files(card(version=version), key=key, **how)))
    return path


def test_installing_listing_and_going_back(place, tmp_path):
    """The life of a bundle on a machine."""
    assert place("models", "list") == (0, "no models are installed\n")
    for version in (1, 2):
        code, said = place("models", "install", packed(tmp_path / f"{version}.zip", version=version), "--why", "better")
        assert (code, f"pixel@{version} is installed" in said) == (0, True)

    code, said = place("models", "list", "--json")
    (found,) = json.loads(said)["models"]
    assert (code, found["version"], found["why"], len(found["kept"])) == (0, 2, "better", 2)
    assert place("models", "rollback", "pixel", "--why", "worse")[0] == 0
    assert json.loads(place("models", "list", "--json")[1])["models"][0]["version"] == 1
    assert "pixel" in place("models", "list")[1]


def test_what_is_refused_is_said_and_on_record(place, tmp_path):
    """Exit code 1, the reason in words, a line in the audit record, and nothing installed."""
    code, said = place("models", "install", packed(tmp_path / "strange.zip", key=STRANGER))

    assert (code, "unknown key" in said) == (1, True)
    line = json.loads((tmp_path / "state" / "audit" / "models.jsonl").read_text())
    assert (line["what"], line["bundle"]) == ("install refused", "strange.zip")
    assert place("models", "list") == (0, "no models are installed\n")


def test_a_bundle_with_wrong_decisions_is_refused(place, tmp_path):
    """Verify and install say the same; installing leaves a record."""
    path = packed(tmp_path / "wrong.zip", golden_data=golden_of(labels=("good", "good", "good")))

    for verb in ("verify", "install"):
        code, said = place("models", verb, path, "--json")
        assert (code, json.loads(said)["good"], "decides wrongly" in said) == (1, False, True)


def test_verify_tries_every_variant(place, tmp_path, monkeypatch):
    """What each costs on this machine is shown."""
    monkeypatch.setattr(trial, "prove", IN_A_CHILD)
    says, models = with_tflite()
    (tmp_path / "pixel.zip").write_bytes(archive.zipped(bundle_files(says, models)))

    code, said = place("models", "verify", "pixel.zip", "--json")

    found = json.loads(said)
    assert (code, found["good"], found["signed_by"]) == (0, True, keys.key_id(VENDOR.public_key()))
    assert [each["variant"] for each in found["variants"]] == ["fp32-onnx", "fp32-tflite", "int8-tflite"]
    monkeypatch.setattr(trial, "prove", in_this_process)
    assert "as they should be" in place("models", "verify", "pixel.zip")[1]


def test_who_vouches_signs_with_the_machines_own_key(place, tmp_path):
    """Nothing unsigned is ever installed: the person at the machine answers for it with its key."""
    path = packed(tmp_path / "strange.zip", key=STRANGER)

    code, said = place("models", "install", path, "--trust-unsigned", "--json")

    own = keys.key_id(keys.device_key(tmp_path / "state").public_key())
    assert (code, json.loads(said)["signed_by"]) == (0, own)
    assert json.loads(place("models", "list", "--json")[1])["models"][0]["signed_by"] == own


def test_a_bundle_that_was_damaged_on_the_disk_is_listed_as_such(place, tmp_path):
    """Exit code 1, and what to do."""
    place("models", "install", packed(tmp_path / "1.zip"))
    next((tmp_path / "state" / "bundles" / "pixel").glob("1-*/pixel.onnx")).write_bytes(b"")

    code, said = place("models", "list")

    assert (code, "cannot be used" in said) == (1, True)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("models", "verify", "nothing.zip"), 3, "there is no bundle at nothing.zip"),
        (("models", "install", "nothing.zip"), 3, "there is no bundle at nothing.zip"),
        (("models", "rollback", "pixle"), 2, "did you mean 'pixel'"),
        (("models", "rollback", "pixel"), 3, "no previous release"),
        (("judge", "pixle", "x.png"), 3, "did you mean 'pixel'"),
        (("judge", "pixel", "nothing"), 3, "there is no nothing"),
        (("judge", "pixel", "state"), 3, "there are no pictures"),
        (("judge", "pixel", "x.png", "--variant", "int8-onnx"), 3, "it has fp32-onnx"),
    ],
)
def test_mistakes_at_the_keyboard(place, tmp_path, arguments, code, message):
    """Each is told with what would be right."""
    place("models", "install", packed(tmp_path / "1.zip"))

    found, said = place(*arguments)

    assert (found, message in said) == (code, True), said


def picture(path, image):
    import cv2

    cv2.imwrite(str(path), image)


@pytest.mark.parametrize("how", ["installed", "zip"])
def test_pictures_are_judged_one_line_each(place, tmp_path, how):
    """By the file's name, with who decided; a picture that cannot be judged is no good one."""
    path = packed(tmp_path / "1.zip")
    if how == "installed":
        place("models", "install", path)
    folder = tmp_path / "pictures"
    folder.mkdir()
    picture(folder / "b.png", BLACK)
    picture(folder / "a.jpg", WHITE)
    (folder / "c.png").write_bytes(b"no picture")
    (folder / "notes.txt").write_text("not a picture either")

    code, said = place("judge", "pixel" if how == "installed" else path, folder)

    lines = [json.loads(line) for line in said.splitlines()]
    assert [(line["file"].rpartition("/")[2], line["label"]) for line in lines] == [
        ("a.jpg", "good"),
        ("b.png", "defect"),
        ("c.png", "not-inspected"),
    ]
    assert lines[1].items() >= {"decided_by": "pixel@1/fp32-onnx", "threshold": 0.5, "class": "pit"}.items()
    assert len(lines[1]["model_sha256"]) == 64
    assert lines[2]["reason"] == "not-a-picture"
    assert code == 1


def test_an_unsigned_bundle_judges_only_for_who_vouches(place, tmp_path):
    """Closed by default."""
    path = packed(tmp_path / "strange.zip", key=STRANGER)
    picture(tmp_path / "white.png", WHITE)

    assert place("judge", path, "white.png")[0] == 3
    assert place("judge", path, "white.png", "--trust-unsigned")[0] == 0


# --- models of one's own


@pytest.fixture
def own(tmp_path):
    """A folder with a card without hashes and a model; and pictures."""
    folder, pictures = tmp_path / "own", tmp_path / "pictures"
    folder.mkdir()
    pictures.mkdir()
    (folder / "card.yaml").write_text(yaml.safe_dump(card()))
    (folder / "pixel.onnx").write_bytes(pixel_onnx())
    (folder / "LICENSE.txt").write_text("own")
    picture(pictures / "good.png", WHITE)
    picture(pictures / "pit.png", BLACK)
    return folder


@pytest.mark.parametrize("output", ["pixel.zip", "packed/pixel"])
def test_own_models_become_a_bundle(place, tmp_path, own, output):
    """Packed, signed by this machine, verified, installed and asked; the same input gives the same bytes."""
    code, said = place("models", "pack", own, "pictures", "--output", output, "--json")
    assert (code, json.loads(said)) == (0, {"bundle": output, "name": "pixel", "version": 1})

    found = json.loads(place("models", "verify", output, "--json")[1])
    assert (found["good"], found["variants"][0]["samples"]) == (True, 3)
    assert place("models", "install", output)[0] == 0
    lines = [json.loads(line) for line in place("judge", "pixel", "pictures")[1].splitlines()]
    assert [line["label"] for line in lines] == ["good", "defect"]
    first = archive.read(tmp_path / output)
    assert place("models", "pack", own, "pictures", "--output", output)[0] == 0
    assert archive.read(tmp_path / output) == first
    assert first["LICENSE.txt"] == b"own"


def test_who_has_a_key_signs_with_it(place, tmp_path, own):
    """So that other machines, which trust that key, take it."""
    (tmp_path / "key.pem").write_bytes(keys.private_pem(VENDOR))

    assert place("models", "pack", own, "pictures", "--output", "p.zip", "--key", "key.pem")[0] == 0
    found = json.loads(place("models", "verify", "p.zip", "--json")[1])
    assert found["signed_by"] == keys.key_id(VENDOR.public_key())


def test_own_models_of_rows_become_a_bundle_too(place, tmp_path, own):
    """Their samples are a table."""
    (own / "pixel.onnx").unlink()
    card_ = line_card({"main.active_power": 100.0})
    (own / "card.yaml").write_text(yaml.safe_dump(card_))
    (own / "int8.onnx").write_bytes(line_graph(1, 1, "int8"))
    (tmp_path / "rows.csv").write_text(
        "time,main.active_power\n" + "".join(f"{n / 10},{100 if n < 30 else 900}\n" for n in range(60))
    )

    assert place("models", "pack", own, "rows.csv", "--output", "line.zip")[0] == 0
    assert place("models", "verify", "line.zip")[0] == 0


@pytest.mark.parametrize(
    ("spoil", "code", "message"),
    [
        (lambda own: (own / "card.yaml").unlink(), 1, "has no card.yaml"),
        (lambda own: (own / "card.yaml").write_text("a: [\n"), 1, "card.yaml:"),
        (lambda own: (own / "card.yaml").write_text("name: x\n"), 1, "names None among its files"),
        (lambda own: (own / "card.yaml").write_text("name: x\nfiles: [1]\n"), 1, "names 1 among its files"),
        (lambda own: (own / "pixel.onnx").unlink(), 1, "which is not there"),
        (lambda own: (own / "pixel.onnx").write_bytes(b"nonsense"), 1, "pixel.onnx: is damaged ONNX"),
        (lambda own: (own / "card.yaml").write_text(yaml.safe_dump(card(colour=1))), 1, "colour"),
        (lambda own: (own.parent / "pictures" / "pit.png").write_bytes(b"x"), 3, "pictures"),
    ],
)
def test_what_cannot_be_packed_says_why(place, tmp_path, own, spoil, code, message):
    """And nothing is written."""
    spoil(own)

    found, said = place("models", "pack", own, "pictures", "--output", "p.zip")

    assert (found, message in said) == (code, True), said
    assert not (tmp_path / "p.zip").exists()


# --- rows


class Sum:
    """Anomaly: the sum of what is there; unknown while nothing is."""

    class Parameters(Section):
        pass

    def __init__(self, card, file, parameters, session):
        self.threshold = card.threshold.value

    def judge(self, given):
        total = sum(given.values.values())
        if total < 0:
            raise ZeroDivisionError("negative")
        label = UNKNOWN if not given.values else ANOMALY if total >= self.threshold else NORMAL
        return Judgement(label, total, self.threshold, {"at_s": given.time_s})


@pytest.fixture
def line(place, tmp_path, monkeypatch):
    """An installed bundle that judges rows of two quantities."""
    monkeypatch.setitem(judge.TASKS, "anomaly", "tests.models.test_bundle_commands:Sum")
    says = card(
        task="anomaly",
        input={"kind": "rows", "quantities": ["meter.power", "temperature"], "every": "1s"},
        threshold={"value": 100.0, "set_for": "a test"},
    )
    inputs = np.array([[99.0, 2.0], [1.0, np.nan]])
    data = _npz(inputs=inputs, times=np.arange(2.0), labels=np.array(["anomaly", "normal"]))
    files = bundle_files(says, {"pixel.onnx": one_node("Identity")}, golden_data=data)
    Library(tmp_path / "state", ManualClock()).install(bundle.verify(files, TRUSTED), lambda _: None, who="x", why="y")
    return place


def _npz(**arrays):
    import io

    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


@pytest.mark.parametrize("delimiter", [",", ";"])
def test_rows_are_judged_in_order(line, tmp_path, delimiter):
    """Each by its time; a cell that is empty or no number is absent, a column too many is passed over."""
    text = (
        "\ufefftime,meter.power [W],temperature [°C]\n"
        "2026-11-20T06:00:00Z,99,2\n2026-11-20T06:00:01Z,1,n/a\n"
        "2026-11-20T06:00:02+00:00,,inf\n2026-11-20 06:00:03,-5,\n"
    )
    (tmp_path / "rows.csv").write_text(text.replace(",", delimiter), encoding="utf-8")

    code, said = line("judge", "pixel", "rows.csv")

    lines = [json.loads(each) for each in said.splitlines()]
    assert [each["label"] for each in lines] == ["anomaly", "normal", "unknown", "unknown"]
    assert [each["score"] for each in lines] == [101.0, 1.0, None, None]
    assert all(each.keys() >= {"label", "score", "threshold", "decided_by"} for each in lines)
    assert lines[0]["time"] == "2026-11-20T06:00:00Z"
    assert lines[1]["at_s"] - lines[0]["at_s"] == 1.0
    assert lines[3].items() >= {"decided_by": "nobody", "reason": "judge-failed"}.items()
    assert "ZeroDivisionError: negative" in lines[3]["failed"][0]
    assert code == 1


@pytest.mark.parametrize(
    ("text", "code", "message"),
    [
        ("time,meter.power\n1,2\n", 2, "no column 'temperature'"),
        ("when,meter.power,temperature\n", 3, "the first column must be time"),
        ("", 3, "the first column must be time"),
        ("time,meter.power,temperature\nyesterday,1,2\n", 3, "rows.csv:2: 'yesterday' is no time"),
        ("time,meter.power,temperature\nnan,1,2\n", 3, "is no time"),
        ("time,meter.power,meter.power,temperature\n", 3, "two columns meter.power"),
        (b"time,a\n\xff\xfe,1\n", 3, "not UTF-8"),
        ('time,meter.power,temperature\n1,"' + "x" * 200_000 + '",3\n', 3, "no CSV"),
    ],
)
def test_a_table_that_cannot_be_judged_says_why(line, tmp_path, text, code, message):
    """With the line, or the nearest right name."""
    (tmp_path / "rows.csv").write_bytes(text if isinstance(text, bytes) else text.encode())

    found, said = line("judge", "pixel", "rows.csv")

    assert (found, message in said) == (code, True), said


def test_times_are_seconds_or_dates():
    """A number is seconds; a date without a zone is UTC."""
    assert rows.seconds("12.5") == 12.5
    assert rows.seconds("1970-01-01 00:01:00") == rows.seconds("1970-01-01T09:01:00+09:00") == 60.0
