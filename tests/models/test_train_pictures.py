"""Labelled pictures as people keep them: read, checked, all mistakes at once."""

from __future__ import annotations

import json

import numpy as np
import pytest

from drivers import opencv
from edge_agent.errors import ConfigError
from models.train import pictures, pixels

RED = (0, 0, 255)


def jpeg(path, width=48, height=32, colour=True, seed=0):
    """A picture with something in it."""
    image = np.random.default_rng(seed).integers(40, 200, (height, width, 3), np.uint8)
    if not colour:
        image[...] = image[..., :1]
    path.parent.mkdir(parents=True, exist_ok=True)
    data = opencv.encode_jpeg(image, 95)
    path.write_bytes(data)
    return path


def png(path, image):
    import cv2

    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(bytes(cv2.imencode(".png", image)[1]))


def label(path, *shapes, size=(48, 32)):
    said = [{"label": name, "points": points, "shape_type": kind} for name, kind, points in shapes]
    path.write_text(json.dumps({"shapes": said, "imageWidth": size[0], "imageHeight": size[1]}))


def classes(folder, **counts):
    for number, (name, count) in enumerate(counts.items()):
        (folder / name).mkdir(parents=True)
        for k in range(count):
            jpeg(folder / name / f"part{k // 2}_{k}.jpg", seed=100 * number + k)


def mistakes(call):
    with pytest.raises(ConfigError) as caught:
        call()
    return [str(problem) for problem in caught.value.problems]


def load(found, tmp_path, size=(48, 32), colour="bgr"):
    scratch = tmp_path / ".scratch"
    scratch.mkdir(exist_ok=True)
    return pixels.load(found.samples, size, colour, "area", scratch)


def test_a_folder_per_class(tmp_path):
    """The good class comes first, the part is what the expression finds."""
    classes(tmp_path, crack=3, good=4)
    found = pictures.read(tmp_path, groups=r"(part\d+)_")
    assert (found.kind, found.labels, found.good) == ("classes", ("good", "crack"), ("good",))
    assert len(found.samples) == 7
    assert {sample.group for sample in found.samples} == {"part0", "part1"}


def test_a_picture_without_a_part_is_one_of_its_own(tmp_path):
    """Nothing is thrown together by accident."""
    classes(tmp_path, crack=2, good=2)
    assert len({sample.group for sample in pictures.read(tmp_path).samples}) == 4
    assert len({sample.group for sample in pictures.read(tmp_path, groups="(nowhere)").samples}) == 4


def test_mvtec_folders_with_masks(tmp_path):
    """train/good, test/*, ground_truth/*: the masks say where."""
    jpeg(tmp_path / "train/good/000.jpg")
    jpeg(tmp_path / "test/good/000.jpg", seed=1)
    jpeg(tmp_path / "test/hole/000.jpg", seed=2)
    mask = np.zeros((32, 48), np.uint8)
    mask[8:16, 8:24] = 255
    png(tmp_path / "ground_truth/hole/000_mask.png", mask)
    found = pictures.read(tmp_path)
    assert (found.kind, found.labels) == ("regions", ("good", "hole"))
    loaded = load(found, tmp_path)
    (where,) = loaded.masks.values()
    assert where.sum() == 8 * 16
    assert where[8:16, 8:24].all()


def test_polygons_in_the_size_of_the_model(tmp_path):
    """labelme's polygons, rectangles and circles; `ignore` marks what nobody shall learn from."""
    jpeg(tmp_path / "a.jpg")
    jpeg(tmp_path / "b.jpg", seed=1)
    label(
        tmp_path / "b.json",
        ("pit", "polygon", [[8, 8], [24, 8], [24, 16], [8, 16]]),
        ("ignore", "rectangle", [[32, 0], [48, 16]]),
        ("pit", "circle", [[10, 26], [12, 26]]),
    )
    found = pictures.read(tmp_path)
    assert found.labels == ("good", "pit")
    loaded = load(found, tmp_path, size=(96, 64))
    assert list(loaded.masks) == [1]
    assert (loaded.masks[1][16:32, 16:48] == pixels.DEFECT).all()
    assert (loaded.masks[1][:32, 64:] == pixels.IGNORED).all()
    assert (loaded.masks[1][40:, 10:30] == pixels.DEFECT).sum() == pytest.approx(np.pi * 16, rel=0.2)


def test_a_polygon_smaller_than_a_pixel_is_not_lost(tmp_path):
    """The pixel that it is in."""
    mask = np.zeros((8, 8), np.uint8)
    pixels.fill(mask, ((3.1, 4.1), (3.2, 4.1), (3.2, 4.2)), 1)
    assert np.argwhere(mask).tolist() == [[4, 3]]


def test_everything_that_is_wrong_with_labels_comes_at_once(tmp_path):
    """A label without a picture, one that is no label, one outside of its picture: three mistakes, one go."""
    jpeg(tmp_path / "a.jpg")
    jpeg(tmp_path / "b.jpg", seed=1)
    label(tmp_path / "gone.json", ("pit", "polygon", [[0, 0], [4, 0], [4, 4]]))
    label(tmp_path / "a.json", ("pit", "polygon", [[0, 0], [400, 0], [4, 4]]))
    (tmp_path / "b.json").write_text('{"shapes": [{"label": "pit", "points": [[1, 2]]}]}')
    said = mistakes(lambda: pictures.read(tmp_path))
    assert len([each for each in said if "without a picture" in each]) == 1
    assert len([each for each in said if "outside of the picture" in each]) == 1
    assert len([each for each in said if "no labelme file" in each]) == 1


def test_a_label_of_another_size_is_refused(tmp_path):
    """Someone resized the picture after it was labelled: the polygon is somewhere else now."""
    jpeg(tmp_path / "a.jpg")
    jpeg(tmp_path / "b.jpg", seed=1)
    label(tmp_path / "b.json", ("pit", "polygon", [[0, 0], [9, 0], [9, 9]]), size=(640, 480))
    said = mistakes(lambda: load(pictures.read(tmp_path), tmp_path))
    assert "made for a picture of 640x480, it is 48x32" in said[0]


@pytest.mark.parametrize(
    "text",
    [
        '{"shapes": [{"label": "pit", "points": [[Infinity, 2], [3, 4], [5, 6]]}]}',
        '{"shapes": [{"label": "pit", "points": [[NaN, 2], [3, 4], [5, 6]]}]}',
        '{"shapes": [], "imageWidth": Infinity, "imageHeight": 32}',
        "[" * 100_000,
    ],
)
def test_a_label_that_is_nowhere_is_named(tmp_path, text):
    """Places and sizes without end, and brackets without end, are mistakes of that file as any other is."""
    jpeg(tmp_path / "a.jpg")
    jpeg(tmp_path / "b.jpg", seed=1)
    (tmp_path / "b.json").write_text(text)
    said = mistakes(lambda: load(pictures.read(tmp_path), tmp_path))
    assert len([each for each in said if "b.json: is no labelme file" in each]) == 1


def test_a_mask_that_cannot_be_used_is_named(tmp_path):
    """It is the mask that is broken, not its picture; one drawn with 0 and 1 instead of 255 shows nothing."""
    jpeg(tmp_path / "train/good/000.jpg")
    for k in range(2):
        jpeg(tmp_path / f"test/hole/{k}.jpg", seed=2 + k)
    png(tmp_path / "ground_truth/hole/0_mask.png", np.ones((32, 48), np.uint8))
    (tmp_path / "ground_truth/hole/1_mask.png").write_text("no picture")
    said = " ".join(mistakes(lambda: load(pictures.read(tmp_path), tmp_path)))
    assert "hole/0.jpg: cannot be used: its mask shows no defect: its brightest pixel is 1" in said
    assert "1_mask.png cannot be used: neither JPEG nor PNG" in said


@pytest.mark.parametrize(
    ("counts", "words"),
    [
        ({"good": 3, "crack": 0}, "has no picture"),
        ({"good": 3}, "one class only"),
        ({"crack": 2, "dent": 2}, "say which of the classes are good: crack, dent"),
        ({}, "has no picture"),
    ],
)
def test_classes_that_nobody_can_learn_from(tmp_path, counts, words):
    """An empty class, one class only, none that is good."""
    classes(tmp_path, **counts)
    assert words in " ".join(mistakes(lambda: pictures.read(tmp_path)))


def test_every_picture_that_cannot_be_used_is_named(tmp_path):
    """Text, half a picture, an odd shape, grey among colour: each by name, before anything is learned."""
    classes(tmp_path, good=3, crack=2)
    (tmp_path / "good/text.jpg").write_text("no picture")
    whole = (tmp_path / "good/part0_0.jpg").read_bytes()
    (tmp_path / "good/half.jpg").write_bytes(whole[: len(whole) // 2])
    said = mistakes(lambda: load(pictures.read(tmp_path), tmp_path))
    assert len(said) == 2
    assert "half.jpg" in said[0]
    assert "text.jpg" in said[1]
    for name in ("text.jpg", "half.jpg"):
        (tmp_path / "good" / name).unlink()
    jpeg(tmp_path / "good/wide.jpg", width=200)
    jpeg(tmp_path / "good/grey.jpg", colour=False, seed=7)
    said = mistakes(lambda: load(pictures.read(tmp_path), tmp_path))
    assert any("wide.jpg" in each and "another shape" in each for each in said)
    assert any("grey.jpg" in each and "--colour grey" in each for each in said)


def test_an_almost_black_picture_is_kept_as_it_is(tmp_path):
    """Pixels are scaled as the card says, never by looking at them."""
    for k in range(2):
        png(tmp_path / "good" / f"{k}.png", np.full((32, 48, 3), k + 1, np.uint8))
        png(tmp_path / "bad" / f"{k}.png", np.full((32, 48, 3), 200 + k, np.uint8))
    found = pictures.read(tmp_path)
    loaded = load(found, tmp_path, colour="grey")
    dark = [loaded.images[k].max() for k, sample in enumerate(found.samples) if sample.label == "good"]
    assert sorted(map(int, dark)) == [1, 2]
