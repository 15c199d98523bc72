"""What is decided about a picture before and after it is decoded."""

import contextlib
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from drivers import opencv, pictures
from drivers.lettering import lettering
from drivers.pictures import Gate, Header
from edge_agent.camera_settings import PictureSection
from edge_agent.errors import PictureError

FORTY_MILLION = 40_000_000


def png_claiming(width: int, height: int) -> bytes:
    """A whole little PNG whose header claims any size."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    rows = zlib.compress(bytes(1000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def refusal(data: bytes, max_pixels: int = FORTY_MILLION) -> str:
    with pytest.raises(PictureError) as refused:
        opencv.decode(data, max_pixels)
    return refused.value.reason


def test_a_whole_jpeg_is_decoded(good_jpeg, good_picture):
    """What went in comes out, but for the losses of JPEG."""
    image = opencv.decode(good_jpeg, FORTY_MILLION)
    assert image.shape == (480, 640, 3)
    assert abs(image.astype(int) - good_picture).mean() < 3


@pytest.mark.parametrize("size", [(1, 1), (17, 3), (640, 480), (1, 2000)])
def test_the_header_tells_the_size(size):
    """Format, width and height come from the header of JPEG and PNG alike."""
    image = np.full((size[1], size[0], 3), 77, np.uint8)
    assert pictures.header(opencv.encode_jpeg(image)) == Header("jpeg", *size)
    assert pictures.header(png_claiming(*size)) == Header("png", *size)


def test_webcams_may_pad_their_jpegs(good_jpeg):
    """Zeros after the end, as UVC cameras send them, are no damage."""
    assert opencv.decode(good_jpeg + bytes(4000), FORTY_MILLION).shape == (480, 640, 3)


def test_webcams_may_leave_out_the_huffman_tables(good_jpeg):
    """Motion JPEG often relies on the usual tables."""
    at, bare = 2, good_jpeg[:2]
    while good_jpeg[at + 1] != 0xDA:
        end = at + 2 + int.from_bytes(good_jpeg[at + 2 : at + 4])
        bare += good_jpeg[at:end] if good_jpeg[at + 1] != 0xC4 else b""
        at = end
    bare += good_jpeg[at:]
    assert len(bare) < len(good_jpeg)
    assert (opencv.decode(bare, FORTY_MILLION) == opencv.decode(good_jpeg, FORTY_MILLION)).all()


@pytest.mark.parametrize("share", [0.0, 0.001, 0.01, 0.1, 0.5, 0.9, 0.999])
def test_a_truncated_jpeg_is_never_partly_good(good_jpeg, share):
    """A JPEG without its end is refused, wherever it was cut."""
    assert refusal(good_jpeg[: int(len(good_jpeg) * share)]) == "truncated"


def test_a_truncated_jpeg_with_an_end_glued_on_is_damaged(good_jpeg):
    """The decoder would paint the rest grey; its complaint is heard."""
    assert refusal(good_jpeg[: len(good_jpeg) // 2] + b"\xff\xd9") == "damaged"


def test_zeros_in_the_middle_of_the_scan_are_noticed(good_jpeg):
    """Forty lost bytes leave a picture that decodes and is wrong."""
    middle = len(good_jpeg) // 2
    assert refusal(good_jpeg[:middle] + bytes(40) + good_jpeg[middle + 40 :]) == "damaged"


def test_standard_error_is_ours_again_after_a_complaint(good_jpeg, capfd):
    """What the decoder wrote is not in the journal, what we write afterwards is."""
    refusal(good_jpeg[: len(good_jpeg) // 2] + b"\xff\xd9")
    import os

    os.write(2, b"still here\n")
    assert capfd.readouterr().err == "still here\n"


def test_a_few_extra_bytes_are_no_damage():
    """Some webcams are known for it, and their pictures are whole."""
    assert opencv._is_harmless("Corrupt JPEG data: 1 extraneous bytes before marker 0xd9")
    assert not opencv._is_harmless("Corrupt JPEG data: 1800 extraneous bytes before marker 0xd9")
    assert not opencv._is_harmless("Corrupt JPEG data: premature end of data segment")


def test_a_decompression_bomb_is_refused_before_it_is_decoded():
    """A PNG of a few bytes that claims 20000 × 20000 pixels costs nothing."""
    assert refusal(png_claiming(20_000, 20_000)) == "too-large"
    assert refusal(png_claiming(2, 2), max_pixels=3) == "too-large"


def test_a_damaged_png_is_refused():
    """A PNG whose pixels do not fit its header is not filled up."""
    assert refusal(png_claiming(3000, 3000)) == "damaged"


@pytest.mark.parametrize(
    "data",
    [
        b"hello, I am a text",
        b"GIF89a" + bytes(100),
        b"RIFF\x24\x00\x00\x00WEBPVP8 " + bytes(100),
        b"II*\x00" + bytes(100),
        b"BM" + bytes(100),
        b"\x00\x00\x00\x0cjP  \r\n\x87\n",
    ],
)
def test_only_jpeg_and_png_are_pictures(data):
    """Other formats are not decoded, however well OpenCV could."""
    assert refusal(data) == "not-a-picture"


@given(
    st.binary(max_size=200),
    st.sampled_from([b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xc0\x00\x0b\x08"]),
)
def test_garbage_is_refused_and_nothing_else_happens(data, start):
    """Whatever bytes come, the answer is a refusal with a reason."""
    assert refusal(start + data) in {"truncated", "damaged", "not-a-picture", "too-large"}


@given(st.integers(0, 2000), st.binary(min_size=1, max_size=60))
def test_damage_never_crashes_the_decoder(good_jpeg, at, patch):
    """A JPEG with a patch anywhere is refused or decoded in its own size."""
    data = good_jpeg[:at] + patch + good_jpeg[at + len(patch) :]
    with contextlib.suppress(PictureError):
        assert opencv.decode(data, FORTY_MILLION).shape[:2] == pictures.header(data)[:0:-1]


# --- the gate


def gate(**settings: object) -> Gate:
    return Gate(PictureSection.model_validate(settings), None)


def noisy(level: int, seed: int = 0, shape: tuple[int, int] = (240, 320)) -> np.ndarray:
    return np.random.default_rng(seed).normal(level, 4, (*shape, 3)).clip(0, 255).astype(np.uint8)


def test_an_ordinary_picture_passes(good_picture, bad_picture):
    """Good or bad part: that is for the judge."""
    doorman = gate()
    assert doorman.refuse(good_picture) is None
    assert doorman.refuse(bad_picture) is None


@pytest.mark.parametrize(
    ("level", "reason"), [(0, "black"), (6, "black"), (40, None), (200, None), (255, "over-exposed")]
)
def test_black_and_white_pictures_are_refused(level, reason):
    """A covered lens and a blinded sensor see nothing that could be judged."""
    assert gate().refuse(noisy(level)) == reason


def test_a_few_bright_pixels_do_not_make_a_dark_picture_good():
    """Hot pixels shine through the lens cap."""
    image = noisy(2)
    image[0, :3] = 255
    assert gate().refuse(image) == "black"


def test_a_bright_picture_with_a_dark_product_is_one():
    """A backlit product covers half of the white."""
    image = np.full((240, 320, 3), 255, np.uint8)
    image[:, :160] = noisy(60)[:, :160]
    assert gate().refuse(image) is None


def test_a_flat_grey_end_is_damage():
    """What a decoder paints where the data ended."""
    image = noisy(120)
    image[200:] = 128
    assert gate().refuse(image) == "damaged"


def test_a_frozen_camera_is_noticed():
    """The same picture again and again has no sensor noise, even if somebody encoded it anew."""
    doorman = gate(frozen_after=2)
    image = noisy(120)
    nearly = image.copy()
    nearly[0, 0] += 1
    said = [doorman.refuse(picture) for picture in (image, image, nearly, image)]
    assert said == [None, None, "frozen", "frozen"]
    assert doorman.refuse(noisy(120, seed=1)) is None


def test_a_line_that_stands_still_is_not_frozen():
    """The scene is the same, the noise is not."""
    doorman = gate(frozen_after=1)
    assert [doorman.refuse(noisy(120, seed)) for seed in range(5)] == [None] * 5


def test_frozen_can_be_switched_off():
    """A recording may hold the same picture twice."""
    doorman = gate(frozen_after=0)
    assert [doorman.refuse(noisy(120)) for _ in range(5)] == [None] * 5


def test_a_picture_of_another_size_is_refused():
    """A camera that fell back to another mode shows another part of the line."""
    doorman = Gate(PictureSection(), (320, 240))
    assert doorman.refuse(noisy(120)) is None
    assert doorman.refuse(noisy(120, shape=(240, 300))) == "wrong-size"


def test_only_the_region_is_judged():
    """Darkness around the lit product is meant; a region beyond the picture is a mistake."""
    image = np.zeros((240, 320, 3), np.uint8)
    image[100:150, 50:150] = noisy(150)[:50, :100]
    lit = Gate(PictureSection(), None, (100, 50, 50, 100))
    assert lit.refuse(image) is None
    assert lit.region(image).shape == (50, 100, 3)
    assert Gate(PictureSection(), None, (100, 50, 250, 100)).refuse(image) == "wrong-size"


def test_resizing_keeps_what_is_small():
    """A one-pixel spot still darkens its place at a tenth of the size."""
    image = np.full((100, 100, 3), 200, np.uint8)
    image[50:55, 50:55] = 0
    small = opencv.resize(image, 10, 10)
    assert small.shape == (10, 10, 3)
    assert small[5, 5, 0] == 150


# --- what is drawn into a copy


def test_letters_can_be_read():
    """Seven rows of dots; small letters are capitals, what nobody knows is a box."""
    drawn = ["".join(".#"[int(dot)] for dot in row) for row in lettering("a1.", 1)]
    assert drawn == [
        ".###....#.........",
        "#...#..##.........",
        "#...#...#.........",
        "#####...#.........",
        "#...#...#.........",
        "#...#...#....##...",
        "#...#..###...##...",
    ]
    assert lettering("A", 3).shape == (21, 18)
    assert (lettering("é", 1) == lettering("§", 1)).all()
    assert lettering("", 1).shape == (7, 0)


@pytest.mark.parametrize("size", [(3, 4), (20, 30), (48, 64), (720, 1280)])
@pytest.mark.parametrize("box", [(100, 200, 20, 12), (-50, -50, 5000, 5000), (0, 0, 0, 0)])
def test_a_box_is_drawn_wherever_it_is(size, box):
    """Also beyond the edge, and into pictures that are smaller than the text."""
    image = np.full((*size, 3), 100, np.uint8)
    opencv.mark(image, box, "defect 0.93 of 0.71, pitting@3/int8-onnx")
    assert image.shape == (*size, 3)
    if size == (720, 1280) and box[2] == 20:
        assert tuple(image[212, 110]) == (0, 0, 255)
        assert (image[300:] == 100).all()
        assert {0, 255} <= set(image[:20].ravel().tolist())


def test_what_is_hot_is_red():
    """Only in its region; the rest of the picture stays as it is."""
    image = np.full((60, 80, 3), 100, np.uint8)
    opencv.glow(image, (20, 10, 40, 40), ["00", "0f"])
    assert (image[:10] == 100).all()
    assert (image[:, :20] == 100).all()
    blue, green, red = map(int, image[48, 58])
    assert blue == green == 0
    assert red == 220
    assert tuple(image[11, 21]) == (100, 100, 100)


@pytest.mark.parametrize(("size", "factor"), [((720, 1280), 2), ((480, 640), 1)])
def test_a_copy_to_draw_into_is_small_and_a_copy(size, factor):
    """Large pictures at half their size, from pixels and from JPEG alike."""
    image = np.full((*size, 3), 100, np.uint8)
    for source in (image, opencv.encode_jpeg(image)):
        copy, smaller = opencv.shrunk(source)
        assert (copy.shape, smaller) == ((size[0] // factor, size[1] // factor, 3), factor)
        copy[:] = 0
    assert (image == 100).all()
    with pytest.raises(PictureError):
        opencv.shrunk(opencv.encode_jpeg(image)[:200])
