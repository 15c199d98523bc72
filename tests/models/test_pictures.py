"""The task defect: from a picture to a judgement, exactly as the card says."""

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_agent.errors import BundleError, ModelError
from edge_agent.vocabulary import DEFECT, GOOD
from models import bundle, golden, judge
from models.card import ModelFile, PictureInput
from models.defect import coarse, where
from models.preprocess import Preprocess, grey
from models.session import Quantiser, Tensor
from tests.models.building import (
    BLACK,
    BLUE,
    RED,
    TRUSTED,
    WHITE,
    bundle_files,
    bundle_of,
    card,
    golden_of,
    one_node,
    pixel_onnx,
    recorded,
    with_tflite,
)

FILE = ModelFile(name="m.onnx", format="onnx", precision="fp32", sha256="0" * 64)
PICTURE = np.arange(5 * 4 * 3, dtype=np.uint8).reshape(5, 4, 3)  # height 5, width 4, BGR


def wanted(**changes):
    return PictureInput.model_validate({"kind": "picture", "size": "4x5", "colour": "bgr", **changes})


@pytest.mark.parametrize("axes", ["nchw", "nhwc"])
@pytest.mark.parametrize("colour", ["bgr", "rgb", "grey"])
def test_channels_and_axes_are_those_of_the_card(axes, colour):
    """Blue, green, red as they come, the other way round, or as grey; in the order of axes that the file has."""
    channels = {"bgr": PICTURE, "rgb": PICTURE[:, :, ::-1], "grey": grey(PICTURE)[:, :, None]}[colour]
    expected = channels[None].astype(np.float32)
    if axes == "nchw":
        expected = expected.transpose(0, 3, 1, 2)
    prepare = Preprocess(
        wanted(colour=colour), FILE.model_copy(update={"layout": axes}), Tensor("x", expected.shape, "float32")
    )

    np.testing.assert_array_equal(expected, prepare(PICTURE))


def test_each_channel_has_its_own_scale():
    """(pixel − mean) / std, per channel in the order of the model."""
    prepare = Preprocess(
        wanted(colour="rgb", mean=[1, 2, 3], std=[2, 4, 8]), FILE, Tensor("x", (1, 3, 5, 4), "float32")
    )

    expected = (PICTURE[:, :, ::-1].astype(np.float32) - [1, 2, 3]) / [2, 4, 8]

    np.testing.assert_allclose(expected.transpose(2, 0, 1)[None], prepare(PICTURE))


@settings(max_examples=30)
@given(st.floats(-50, 300), st.floats(0.5, 300), st.floats(0.01, 2), st.integers(-128, 127))
def test_the_table_is_the_same_as_scaling_and_quantising(mean, std, scale, zero_point):
    """One table does in one step what the two steps would have done."""
    tensor = Tensor("x", (1, 3, 5, 4), "int8", scale, zero_point)
    prepare = Preprocess(wanted(mean=[mean], std=[std]), FILE, tensor)

    real = ((PICTURE.astype(np.float64) - mean) / std).astype(np.float32).transpose(2, 0, 1)[None]

    np.testing.assert_array_equal(Quantiser(tensor, real.shape)(real), prepare(PICTURE))


def test_an_almost_black_picture_is_scaled_like_any_other():
    """Never by looking at the pixels: two pictures that differ by one grey level stay so near."""
    prepare = Preprocess(wanted(std=[255]), FILE, Tensor("x", (1, 3, 5, 4), "float32"))

    assert prepare(np.ones_like(PICTURE)).max() == pytest.approx(1 / 255)


def test_another_size_is_averaged_by_area():
    """Every pixel counts in a smaller picture: nothing small disappears."""
    large = np.zeros((50, 40, 3), np.uint8)
    large[0, 0] = 200  # one of 100 pixels of the first cell

    prepare = Preprocess(wanted(), FILE, Tensor("x", (1, 3, 5, 4), "float32"))

    assert prepare(large)[0, 0, 0, :2].tolist() == [2.0, 0.0]


def test_the_card_says_how_a_picture_gets_its_size():
    """Bilinear from two neighbours down to half the size, and there as ever by area."""
    image = np.random.default_rng(3).integers(0, 255, (7, 9, 3)).astype(np.uint8)
    halved = np.random.default_rng(4).integers(0, 255, (10, 8, 3)).astype(np.uint8)
    tensor = Tensor("x", (1, 3, 5, 4), "float32")
    by_area, bilinear = (Preprocess(wanted(resize=way), FILE, tensor) for way in ("area", "bilinear"))

    assert not np.array_equal(by_area(image[:, :7]), bilinear(image[:, :7]))
    assert np.array_equal(by_area(halved), bilinear(halved))


@given(st.tuples(*[st.integers(0, 255)] * 3))
def test_grey_is_bt601(bgr):
    """Within rounding, and white is white."""
    expected = 0.114 * bgr[0] + 0.587 * bgr[1] + 0.299 * bgr[2]

    assert grey(np.array([[bgr]], np.uint8))[0, 0] == pytest.approx(expected, abs=1.01)
    assert grey(np.full((1, 1, 3), 255, np.uint8))[0, 0] == 255


@pytest.mark.parametrize(
    "image",
    [np.zeros((5, 4), np.uint8), np.zeros((5, 4, 3)), np.zeros((0, 4, 3), np.uint8), np.zeros((5, 4, 4), np.uint8)],
)
def test_what_is_no_picture_is_refused(image):
    """Grey, floating, empty or with transparency: not what a camera gives."""
    prepare = Preprocess(wanted(), FILE, Tensor("x", (1, 3, 5, 4), "float32"))

    with pytest.raises(ModelError, match="no picture"):
        prepare(image)


@pytest.mark.parametrize(
    ("tensor", "changes", "message"),
    [
        (Tensor("x", (1, 3, 4, 5), "float32"), {}, "the card says"),
        (Tensor("x", (1, 3, 5, 4), "uint8"), {"std": [2]}, "do not fit"),
        (Tensor("x", (1, 3, 5, 4), "int8"), {}, "outside"),
    ],
)
def test_a_card_that_does_not_fit_its_model_is_refused(tensor, changes, message):
    """Shape and numbers must be possible before the first picture."""
    with pytest.raises(BundleError, match=message):
        Preprocess(wanted(**changes), FILE, tensor)


def test_bytes_may_go_in_as_they_are():
    """A model that takes the pixels themselves gets them."""
    prepare = Preprocess(wanted(), FILE, Tensor("x", (1, 3, 5, 4), "uint8"))

    np.testing.assert_array_equal(PICTURE.transpose(2, 0, 1)[None], prepare(PICTURE))


# --- the judge


@pytest.mark.parametrize("variant", ["fp32-onnx", "fp32-tflite", "int8-tflite"])
def test_every_variant_decides_the_same(variant):
    """One card, three files, the same decisions; who decided is said."""
    says, models = with_tflite()
    loaded = judge.load(bundle.verify(bundle_files(says, models), TRUSTED), variant)

    said = {
        name: loaded.judge(image) for name, image in (("white", WHITE), ("black", BLACK), ("red", RED), ("blue", BLUE))
    }

    assert {name: each.label for name, each in said.items()} == {
        "white": GOOD,
        "black": DEFECT,
        "red": DEFECT,
        "blue": DEFECT,
    }
    assert said["red"].score > said["blue"].score  # not the other way round: the channels are in order
    assert [said["black"].details["class"], said["white"].details["class"]] == ["pit", "good"]
    assert f"pixel@1/{variant}" == loaded.decided_by
    assert loaded.model_sha256 == loaded.file.sha256


def test_the_score_is_the_share_of_everything_that_is_not_good():
    """Softmax by hand."""
    loaded = judge.load(bundle_of())
    logits = np.array([3.5 + 0.25, -3.5 - 0.25])  # white: all pixels are 1
    expected = np.exp(logits[1]) / np.exp(logits).sum()

    assert loaded.judge(WHITE).score == pytest.approx(expected, abs=1e-4)


def test_a_score_at_the_threshold_is_a_defect():
    """From the threshold on, not above it only; and the score that is told is the one that was compared."""
    score = judge.build(bundle_of()).judge(RED).score
    loaded = judge.build(bundle_of(threshold={"value": score, "set_for": "a test"}))

    assert loaded.judge(RED).label == DEFECT


def single(activation, **changes):
    says = card(
        input={"kind": "picture", "size": "1x1", "colour": "grey", "mean": [127.5], "std": [12.75]},
        outputs={"activation": activation},
        files=[{"name": "m.onnx", "format": "onnx", "precision": "fp32"}],
        **changes,
    )
    return bundle.draft(says, {"m.onnx": one_node("Neg", shape=(1, 1, 1, 1), out=(1, 1, 1, 1))})


def test_one_output_that_rises_with_the_suspicion():
    """A sigmoid needs no labels."""
    loaded = judge.build(single("sigmoid"))

    assert [loaded.judge(BLACK).label, loaded.judge(WHITE).label] == [DEFECT, GOOD]
    assert loaded.judge(BLACK).score == pytest.approx(1 / (1 + np.exp(-10)), abs=1e-4)


def test_a_wrong_activation_shows():
    """Numbers beyond 0 to 1 are no shares: the card is wrong, and nothing is decided."""
    with pytest.raises(ModelError, match="no share"):
        judge.build(single("none")).judge(BLACK)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"outputs": None}, "needs an input"),
        ({"threshold": None}, "threshold"),
        ({"outputs": {"name": "z", "labels": ["a", "b"], "good": ["a"]}}, "no output 'z'; it has y"),
        ({"outputs": {"labels": ["a", "b", "c"], "good": ["a"]}}, "2 numbers for 3 labels"),
        ({"outputs": {"labels": ["a", "b"], "good": []}}, "which of its labels are good"),
        ({"outputs": {"labels": ["a", "b"], "good": ["a", "b"]}}, "which of its labels are good"),
        ({"parameters": {"odd": 1}}, "parameters.odd: unknown key"),
        ({"parameters": {"heat": "z"}}, "no output 'z' with one number per cell"),
        ({"input": {"kind": "rows", "quantities": ["a"], "every": "1s"}}, "kind picture"),
        ({"task": "forecast"}, "does not know"),
    ],
)
def test_a_card_that_cannot_decide_about_pictures_is_refused(changes, message):
    """Everything that the task needs must be there before the first picture."""
    changed = {key: value for key, value in card(**changes).items() if value is not None}

    with pytest.raises(BundleError, match=message):
        judge.build(bundle.draft(changed, {"pixel.onnx": pixel_onnx()}))


def test_an_unknown_variant_is_named():
    """With those that there are."""
    with pytest.raises(BundleError, match="it has fp32-onnx"):
        judge.build(bundle_of(), "int8-onnx")


# --- golden decisions


def test_wrong_golden_decisions_refuse_the_bundle():
    """A model that decides otherwise than its makers saw decides nothing here."""
    files = bundle_files(golden_data=golden_of(labels=("good", "good", "good")))

    with pytest.raises(ModelError, match="golden sample 2 of 3 is good, it says defect"):
        judge.load(bundle.verify(files, TRUSTED))


def test_golden_decisions_are_recorded_from_the_judge_itself():
    """What is recorded is passed, and what is too close to call demands nothing."""
    made = recorded(card(), {"pixel.onnx": pixel_onnx()}, [WHITE, BLACK, RED])
    close = judge.build(made).judge(RED).score
    edge = recorded(card(threshold={"value": close, "set_for": "x"}), {"pixel.onnx": pixel_onnx()}, [WHITE, RED])

    assert golden.read(made.golden).labels.tolist() == ["good", "defect", "defect"]
    assert golden.read(edge.golden).labels.tolist() == ["good", ""]
    assert judge.load(made).judge(WHITE).label == GOOD


def npz(**arrays):
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


ONE = np.zeros((1, 1, 1, 3), np.uint8)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"rubbish",
        npz(),
        npz(inputs=ONE),
        npz(labels=np.array(["good"])),
        npz(inputs=ONE, labels=np.array([b"good"])),
        npz(inputs=ONE, labels=np.array(["good", "good"])),
        npz(inputs=ONE, labels=np.array("good")),
        npz(inputs=ONE, labels=np.array([""])),
        npz(inputs=ONE, labels=np.array(["good"]), more=ONE),
        npz(inputs=np.array([{"a": 1}], object), labels=np.array(["good"])),
        npz(inputs=np.zeros((1, 2), complex), labels=np.array(["good"])),
        npz(inputs=np.zeros((0, 1, 1, 3), np.uint8), labels=np.array([], "<U4")),
        npz(inputs=np.asfortranarray(np.zeros((2, 3))), labels=np.array(["good", "good"])),
    ],
)
def test_a_golden_file_that_is_none_is_refused(data):
    """No pickles, no odd types, no missing or further arrays."""
    with pytest.raises(BundleError):
        golden.read(data)


def test_a_shape_that_lies_allocates_nothing():
    """An array that claims a terabyte is compared with the bytes that are there."""
    data = npz(inputs=ONE, labels=np.array(["good"]))
    for claim in (b"(9999999, 9999, 9, 3)", b"(0, 1, 1, 3)         "):
        honest = b"(1, 1, 1, 3)" + b" " * 9
        header = data[: data.index(b"}", data.index(b"inputs.npy"))]
        at = header.index(b"(1, 1, 1, 3)")
        lying = data[:at] + claim + data[at + len(honest) :]
        with pytest.raises(BundleError):
            golden.read(lying)


def test_golden_inputs_must_fit_the_card():
    """Rows for a card of pictures are no inputs."""
    files = bundle_files(golden_data=npz(inputs=np.zeros((1, 3)), times=np.zeros(1), labels=np.array(["good"])))

    with pytest.raises(BundleError, match="golden pictures"):
        judge.load(bundle.verify(files, TRUSTED))


HOT = np.array([[0, 0, 0, 0, 0, 0], [0, 0.9, 0.8, 0, 0, 0], [0, 0.1, 0.7, 0, 0, 0.9]])


def test_a_defect_has_its_place_in_the_picture():
    """The hottest cell, and the box of what hangs together with it and is as suspicious; nothing else."""
    found = where(HOT, 0.5, (30, 120, 3))
    assert found == {"at_px": [30, 15], "box_px": [20, 10, 40, 20]}


def test_a_place_is_found_at_the_edge_and_everywhere():
    """A map that is hot all over is one box, one that is barely hot has its hottest cell."""
    assert where(np.ones((3, 6)), 0.5, (30, 120, 3))["box_px"] == [0, 0, 120, 30]
    assert where(HOT * 0.5, 0.5, (30, 120, 3))["box_px"] == [20, 10, 20, 10]


def test_the_map_is_told_coarsely():
    """At most 32 x 32 levels, each the hottest of its cells; what is small stays visible."""
    assert coarse(np.array([[0.0, 0.5], [1.2, -1.0]])) == ["08", "f0"]
    cells = np.zeros((57, 141))
    cells[56, 140] = 1.0
    found = coarse(cells)
    assert (len(found), {len(row) for row in found}) == (29, {29})
    assert "".join(found).count("f") == 1
    assert found[-1][-1] == "f"
