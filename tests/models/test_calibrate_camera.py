"""``calibrate camera``: a few good parts become a model that knows them, its place and its light."""

from __future__ import annotations

import json

import numpy as np
import pytest

from drivers import opencv
from edge_agent.cli import main
from edge_agent.clock import ManualClock
from models import bundle, judge, keys
from models.chain import Chain
from models.scene import impression
from models.train import camera, camera_bundle
from models.train.camera import false_rejects_at_most, model_size

HEIGHT, WIDTH = 192, 256


def plate(seed=0):
    """A surface of no kind in particular, with a bar and a ring on it: real numbers."""
    random = np.random.default_rng(seed)
    rows, columns = np.indices((HEIGHT + 40, WIDTH + 40))
    field = 110 + 20 * np.sin(columns / 9 + np.sin(rows / 23)) + random.normal(0, 6, rows.shape)
    far = np.hypot(rows - 90, columns - 110)
    field[(far > 30) & (far < 42)] = 190
    field[150:170, 160:260] = 60
    return field


def part(number, *, field=None, shift=(0, 0), gain=1.0):
    """The plate as a camera sees it: a pixel aside, a little brighter or darker, with noise."""
    random = np.random.default_rng(1000 + number)
    down, across = 20 + random.integers(-1, 2) + shift[0], 20 + random.integers(-1, 2) + shift[1]
    seen = (plate() if field is None else field)[down : down + HEIGHT, across : across + WIDTH]
    seen = seen * (gain * random.uniform(0.97, 1.03)) + random.normal(0, 1.5, seen.shape)
    return np.clip(np.stack([seen * 0.9, seen, seen * 1.05], axis=2), 0, 255).astype(np.uint8)


def scratched(number):
    """A part with a dark hole."""
    image = part(number)
    image[100:116, 40:58] = 15
    return image


def save(folder, pictures):
    folder.mkdir(exist_ok=True)
    for name, image in pictures.items():
        (folder / name).write_bytes(image if isinstance(image, bytes) else opencv.encode_jpeg(image, 97))
    return folder


@pytest.fixture(scope="module")
def goods():
    return {f"{number:02}.jpg": part(number) for number in range(14)}


@pytest.fixture(scope="module")
def calibrated(goods, tmp_path_factory):
    """What the verb wrote, and what it said."""
    place = tmp_path_factory.mktemp("camera")
    patch = pytest.MonkeyPatch()
    patch.setenv("HOME", str(place))
    patch.chdir(place)
    save(place / "good", goods)
    code = main(["calibrate", "camera", "--good-dir", "good", "--bundle-dir", "out", "--json"])
    found = bundle.load(place / "out", keys.trusted(place / ".local/share/edge-agent"))
    patch.undo()
    assert code == 0
    return found


def test_it_is_a_signed_bundle_for_parts_of_one_scene(calibrated):
    """Signed by this machine, small, int8, and honest about how little so few parts can promise."""
    card = calibrated.card
    assert calibrated.signed_by is not None
    assert card.task == "defect"
    assert [file.variant for file in card.files] == ["int8-onnx"]
    assert len(calibrated.files[card.files[0].name]) < 4_000_000
    assert card.threshold.samples == 14
    assert card.threshold.confidence == 0.95
    assert "19.3%" in card.threshold.set_for


def test_good_parts_are_good_and_others_are_not(calibrated):
    """New good parts pass, and where the hole is, the box is."""
    model = judge.load(calibrated)
    assert [model.judge(part(number)).label for number in range(100, 106)] == ["good"] * 6
    said = model.judge(scratched(200))
    assert said.label == "defect"
    left, top, width, height = said.details["box_px"]
    assert left <= 49 <= left + width
    assert top <= 108 <= top + height


def test_a_small_move_and_an_older_lamp_do_not_matter(calibrated):
    """A few pixels and a tenth of the light are undone before the model looks."""
    model = judge.load(calibrated)
    assert model.judge(part(300, shift=(3, -4))).label == "good"
    assert model.judge(part(301, gain=0.9)).label == "good"
    assert model.judge(part(302, gain=1.1)).label == "good"


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        (part(400, shift=(18, -18)), "camera-moved"),
        (part(402, gain=0.5), "light-changed"),
        (part(403)[:-8], "wrong-size"),
        (np.full((HEIGHT, WIDTH, 3), 3, np.uint8), "light-changed"),
    ],
    ids=["moved", "dimmed", "cut", "black"],
)
def test_another_scene_is_not_inspected(calibrated, image, reason):
    """A camera that moved and another light are told before the model misfires."""
    said = judge.load(calibrated).judge(image)
    assert said.label == "not-inspected"
    assert said.details["reason"] == reason


def test_what_was_never_shown_is_never_good(calibrated):
    """Something else in front of the camera looks like no good part."""
    assert judge.load(calibrated).judge(part(401, field=plate(7)[::-1, ::-1])).label != "good"


def test_one_that_is_unlike_the_others_is_left_out(goods, tmp_path, monkeypatch, capsys):
    """A bad part among the good ones is named, and is not learned."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    save(tmp_path / "good", {**goods, "bad.jpg": scratched(1)})
    assert main(["calibrate", "camera", "--good-dir", "good", "--bundle-dir", "out", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["left_out"] == ["bad.jpg"]
    assert said["good"] == 14


def test_everything_that_is_wrong_is_said_at_once(goods, tmp_path, monkeypatch, capsys):
    """Damaged, of another size, grey, black, too few: all are named, and nothing is written."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    few = dict(list(goods.items())[:5])
    whole = opencv.encode_jpeg(part(1))
    wrong = {
        "cut.jpg": whole[: len(whole) // 2],
        "text.jpg": b"no picture",
        "size.jpg": part(2)[:100],
        "grey.jpg": np.repeat(part(3)[..., 1:2], 3, axis=2),
        "black.jpg": np.full((HEIGHT, WIDTH, 3), 2, np.uint8),
        "twice.jpg": goods["00.jpg"],
    }
    save(tmp_path / "good", {**few, **wrong})
    assert main(["calibrate", "camera", "--good-dir", "good", "--bundle-dir", "out"]) == 2
    said = capsys.readouterr().err
    for word in ("cut.jpg", "text.jpg", "size.jpg", "grey.jpg is grey", "black.jpg", "at least 10"):
        assert word.split()[0] in said
    assert not (tmp_path / "out").exists()


def test_a_folder_that_is_none_is_a_usage_error(tmp_path, monkeypatch):
    """Nothing there, nothing written."""
    monkeypatch.chdir(tmp_path)
    assert main(["calibrate", "camera", "--good-dir", "nowhere", "--bundle-dir", "out"]) == 2
    assert not list(tmp_path.iterdir())


def test_a_place_that_cannot_be_is_told_before_anybody_looks(tmp_path, monkeypatch, capsys):
    """Below a file there is no room for a bundle: said before pictures are read, or taken one by one."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "good").mkdir()
    (tmp_path / "notes").write_text("mine")
    assert main(["calibrate", "camera", "--good-dir", "good", "--bundle-dir", "notes/new/out"]) == 3
    assert f"cannot write {tmp_path}/notes/new/out: {tmp_path}/notes is no folder" in capsys.readouterr().err
    assert main(["calibrate", "camera", "--good-dir", "good", "--bundle-dir", "/"]) == 2
    assert "is there already, and is no bundle" in capsys.readouterr().err


def test_what_is_too_large_is_named_before_anybody_learns(goods, tmp_path, monkeypatch, capsys):
    """More pixels than a bundle can keep, and more bytes than a picture has: by name, with what would do."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    save(tmp_path / "good", {**goods, "photo.jpg": np.zeros((3000, 4000, 3), np.uint8)})
    with (tmp_path / "good/film.png").open("wb") as file:
        file.truncate((64 << 20) + 1)
    assert main(["calibrate", "camera", "--good-dir", "good", "--bundle-dir", "out"]) == 2
    said = capsys.readouterr().err
    assert "film.png: is larger than 64 MiB" in said
    assert "photo.jpg: is 4000x3000: take at most 11 megapixels" in said
    assert not (tmp_path / "out").exists()


def test_a_name_that_no_bundle_may_have_is_a_usage_error(goods, tmp_path, monkeypatch, capsys):
    """Before anybody learns, and without a word of cards."""
    monkeypatch.chdir(tmp_path)
    save(tmp_path / "good", goods)
    assert main(["calibrate", "camera", "--good-dir", "good", "--bundle-dir", "out", "--name", "../mine"]) == 2
    assert "--name must be made of letters, digits, _ and -; not '../mine'" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["good"]


def test_at_a_terminal_the_progress_leaves_no_rest_of_a_line(goods, tmp_path, monkeypatch, capsys):
    """What came out stands on lines of its own."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    save(tmp_path / "good", goods)
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    assert main(["calibrate", "camera", "--good-dir", "good", "--bundle-dir", "out"]) == 0
    said = capsys.readouterr().err
    assert "\rlearn 1 of 1" in said
    assert said.rpartition("learn 1 of 1")[2].strip(" ") == "\r\x1b[K"


def test_what_so_few_parts_can_promise():
    """None of 20 beyond the limit: at most 13.9 % of all with 95 % confidence (Clopper and Pearson); of 299, 1 %."""
    assert false_rejects_at_most(20) == pytest.approx(0.1391, abs=1e-4)
    assert false_rejects_at_most(299) == pytest.approx(0.00997, abs=1e-5)


def test_the_picture_of_the_model_keeps_its_shape():
    """Never enlarged, multiples of eight, and not more than a small board can look at."""
    assert model_size(256, 192) == (256, 192)
    assert model_size(1280, 720) == (680, 384)
    assert all(side % 8 == 0 for side in model_size(1130, 460))


def test_a_camera_of_the_config_shows_its_good_parts(goods, tmp_path, monkeypatch, capsys):
    """Its own eye process takes the pictures; what is learned takes over, and --undo goes back."""
    monkeypatch.chdir(tmp_path)
    save(tmp_path / "good", goods)
    (tmp_path / "config.yaml").write_text(
        "site: s\nline: l\nstate_dir: state\ncameras:\n  eye: {kind: folder, source: good, every: 10ms, loop: true}\n"
    )
    ask = ["calibrate", "camera", "eye", "--frames", "10", "--config", "config.yaml", "--json"]
    for version in (1, 2):
        assert main(ask) == 0
        assert json.loads(capsys.readouterr().out)["bundle"] == f"eye-good@{version}"
    assert main([*ask, "--undo"]) == 0
    assert json.loads(capsys.readouterr().out)["current"].startswith("1-")


def test_an_impression_tells_a_person_what_is_wrong():
    """Out of focus is less sharp, too much light is white, and a part that was moved has moved."""
    sharp = part(1)
    soft = opencv.resize(opencv.resize(sharp, WIDTH // 4, HEIGHT // 4), WIDTH, HEIGHT)
    assert impression(soft, None).sharpness < 0.5 * impression(sharp, None).sharpness
    assert impression(np.full_like(sharp, 255), None).white == 1.0
    assert 4 < impression(part(1, shift=(0, 6)), sharp).moved_px < 8


def test_why_it_was_not_inspected_reaches_the_verdict(calibrated):
    """A verdict without a score, with the reason; nobody else is asked, as that is no failure of the model."""
    clock = ManualClock()
    chain = Chain("eye", [judge.load(calibrated)], clock, 60.0)
    said = chain.decide(part(400, shift=(18, -18)), clock.stamp())
    assert (said.label, said.reason, said.score) == ("not-inspected", "camera-moved", None)
    assert "reason" not in said.details
    assert chain.fallbacks == 0


def glaring(number):
    """Light that the sensor cannot take: a sixth of the picture is white."""
    image = part(number)
    image[:, :42] = 255
    return image


def tinted(number):
    """As if the white balance had jumped."""
    return np.clip(part(number) * np.array([1.0, 1.0, 0.6]), 0, 255).astype(np.uint8)


@pytest.mark.parametrize(("image", "what"), [(glaring(500), "white"), (tinted(501), "blue_green_red")])
def test_light_that_cannot_be_undone_is_told(calibrated, image, what):
    """Saturated pixels and another colour of the light: not inspected, with what was seen."""
    said = judge.load(calibrated).judge(image)
    assert said.label == "not-inspected"
    assert said.details["reason"] == "light-changed"
    assert what in said.details


def test_a_little_of_another_colour_does_not_matter(calibrated):
    """White balance that wanders by a tenth is undone, channel by channel."""
    image = np.clip(part(502) * np.array([1.0, 0.95, 0.87]), 0, 255).astype(np.uint8)
    said = judge.load(calibrated).judge(image)
    assert (said.label, said.details) == ("good", {}), said


def test_a_region_is_all_that_is_judged(goods, tmp_path, monkeypatch, capsys):
    """With --roi nothing counts beside it, and pictures are still whole ones."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    save(tmp_path / "good", goods)
    ask = ["calibrate", "camera", "--good-dir", "good", "--bundle-dir", "out"]
    assert main([*ask, "--roi", "100x192+140+0"]) == 0
    model = judge.load(bundle.load(tmp_path / "out", keys.trusted(tmp_path / ".local/share/edge-agent")))
    assert model.judge(scratched(503)).label == "good"
    beside = part(504)
    beside[100:116, 180:198] = 15
    assert model.judge(beside).label == "defect"
    capsys.readouterr()
    assert main([*ask, "--roi", "100 by 100"]) == 2
    assert "640x480+100+50" in capsys.readouterr().err
    assert main([*ask, "--roi", "100x192+200+1"]) != 0
    assert "reaches beyond the pictures" in capsys.readouterr().err


def test_a_place_that_changed_while_it_was_shown_counts_little(tmp_path):
    """Dirt that grows among good parts goes on growing, and is no defect; elsewhere the same spot is one."""

    def soiled(number, size, at):
        image = part(number)
        image[at : at + 3 + size, 200 : 203 + 2 * size] //= 2
        return image

    fit = camera.fit([soiled(600 + number, number // 2, 20) for number in range(16)], lambda *_: None)
    made = camera_bundle.make(fit, [part(600)] * 16, "x", 1, keys.device_key(tmp_path), source="x")
    model = judge.build(made.bundle)
    assert model.judge(soiled(700, 9, 20)).label == "good"
    assert model.judge(soiled(701, 9, 90)).label == "defect"


def test_a_part_that_was_shown_and_is_beyond_the_limit_is_counted():
    """Three of 60 beyond the limit: at most 12.5 % of all with 95 % confidence (one-sided, Clopper and Pearson)."""
    assert false_rejects_at_most(60, 3) == pytest.approx(0.1239, abs=2e-3)
    assert false_rejects_at_most(10, 10) == pytest.approx(1.0, abs=1e-6)


def test_pictures_that_are_nearly_the_same_are_doubted(tmp_path):
    """One part shown ten times teaches nothing of how parts differ: told, and what is made still decides."""
    images = [part(0).copy() for _ in range(10)]
    for number, image in enumerate(images):
        image[number, 0] = 0  # not byte for byte the same
    fit = camera.fit(images, lambda *_: None)
    made = camera_bundle.make(fit, images, "x", 1, keys.device_key(tmp_path), source="x")
    model = judge.build(made.bundle)
    assert any("nearly the same" in doubt for doubt in fit.doubts)
    assert np.isfinite(fit.scores).all()
    assert model.judge(part(0)).label == "good"
    assert model.judge(scratched(0)).label == "defect"


def test_different_parts_are_not_doubted():
    """A sensor's noise alone is enough of a difference."""
    assert camera.fit([part(number) for number in range(10)], lambda *_: None).doubts == []


def test_nothing_is_promised_of_parts_that_lie_differently(tmp_path, monkeypatch, capsys):
    """Each has odd places of its own, so parts that were shown tell little of what others will be refused."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    save(tmp_path / "good", {f"{n:02}.jpg": np.roll(part(n), (17 * n, 29 * n), axis=(0, 1)) for n in range(12)})
    ask = ["calibrate", "camera", "--good-dir", "good", "--bundle-dir"]
    assert main([*ask, "out", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["false_rejects_at_most"], said["confidence"]) == (None, None)
    assert any("lie differently each time" in doubt for doubt in said["doubts"])
    assert main([*ask, "again"]) == 0
    assert "95 %" not in capsys.readouterr().out


def test_what_a_judgement_costs_is_said(calibrated):
    """Multiplications, counted by hand for the first convolution: 27 for each of 16 × 96 × 128 numbers."""
    first = 27 * 16 * 96 * 128
    assert first < calibrated.card.metrics["multiplications"] < 40 * first
