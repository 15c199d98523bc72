"""A network camera over HTTP, on a real connection."""

import contextlib
import itertools
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drivers import opencv
from drivers.cameras.http import Http, Multipart
from edge_agent.clock import SystemClock
from edge_agent.errors import CameraError, PictureError
from tests.cameras.far_ends import HttpCamera, page, part, stream_head

PICTURE = b"\xff\xd8" + bytes(range(200)) + b"\xff\xd9"


@pytest.fixture
def serve():
    """Start a camera that answers with these pieces; all are closed at the end."""
    servers = []

    def start(*pieces, login=None):
        servers.append(HttpCamera(lambda: iter(pieces), login))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


def camera(url: str, **settings) -> Http:
    wanted = {"kind": "http", "source": url, "deadline": "500ms", **settings}
    return Http("cam", Http.Settings.model_validate(wanted), SystemClock(), 0)


def fault(act) -> CameraError:
    with pytest.raises(CameraError) as failed:
        act()
    return failed.value


def test_a_stream_gives_its_pictures_unchanged(serve):
    """Each part of a Motion JPEG stream is one picture, byte for byte."""
    pictures = [b"\xff\xd8" + bytes([n]) * 5000 + b"\xff\xd9" for n in range(3)]
    eye = camera(serve(stream_head(), *map(part, pictures)).url)
    eye.open()
    assert eye.streams
    assert [eye.grab().encoded for _ in range(3)] == pictures
    assert fault(eye.grab).reason == "bus-down"
    eye.close()


def test_a_page_with_one_picture_is_asked_for_again(serve):
    """A snapshot address gives a fresh picture whenever one is wanted."""
    server = serve(page(PICTURE))
    eye = camera(server.url)
    eye.open()
    assert not eye.streams
    assert [eye.grab().encoded for _ in range(3)] == [PICTURE] * 3
    assert len(server.requests) == 3


def test_a_truncated_part_costs_only_itself(serve, good_jpeg):
    """A part that ends too early is refused, and the next one is whole."""
    cut = good_jpeg[: len(good_jpeg) // 2]
    eye = camera(serve(stream_head(), part(cut, length=len(good_jpeg)), part(good_jpeg), part(good_jpeg)).url)
    eye.open()
    with pytest.raises(PictureError, match="without its end"):
        opencv.decode(eye.grab().encoded, 10**7)
    assert eye.grab().encoded == good_jpeg


def test_a_stall_in_the_middle_of_a_picture_is_a_timeout(serve):
    """The connection stays, nothing comes: the camera gives up before its deadline."""
    stalled = threading.Event()

    def pieces():
        yield stream_head()
        yield part(PICTURE)
        yield part(PICTURE)[:40]
        stalled.wait(10)

    server = serve()
    server.answer = pieces
    eye = camera(server.url)
    eye.open()
    assert eye.grab().encoded == PICTURE
    assert fault(eye.grab).reason == "timeout"
    stalled.set()


def test_a_connection_that_breaks_is_a_fault_and_can_be_made_again(serve):
    """After close and open the pictures come again."""
    server = serve(stream_head(), part(PICTURE))
    eye = camera(server.url)
    eye.open()
    assert eye.grab().encoded == PICTURE
    server.hang_up()
    assert fault(eye.grab).reason == "bus-down"
    eye.close()
    eye.open()
    assert eye.grab().encoded == PICTURE


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", "not-found"),
        (b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n", "permission"),
        (b"HTTP/1.1 500 Oh\r\nContent-Length: 0\r\n\r\n", "not-found"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "bus-down"),
        (b"", "bus-down"),
    ],
)
def test_an_address_without_a_camera_is_a_fault(serve, answer, reason):
    """The reason says which."""
    assert fault(camera(serve(answer).url).open).reason == reason


def test_nobody_there(serve):
    """A refused connection is a fault, not an exception of somebody else."""
    server = serve()
    server.close()
    assert fault(camera(server.url).open).reason == "bus-down"


def test_a_page_of_text_is_no_picture(serve):
    """A login page is not taken for one."""
    eye = camera(serve(page(b"<html>", "text/html")).url)
    eye.open()
    with pytest.raises(PictureError) as refused:
        eye.grab()
    assert refused.value.reason == "not-a-picture"


def test_user_and_password_come_from_outside_the_config(serve, tmp_path):
    """The password stands in a file; without it the camera refuses, and the error says what to set."""
    (tmp_path / "password").write_text("geheim\n")
    server = serve(page(PICTURE), login="line:geheim")
    refused = fault(camera(server.url).open)
    assert (refused.reason, refused.hint) == ("permission", "set user and password_file")
    eye = camera(server.url, user="line", password_file=str(tmp_path / "password"))
    eye.open()
    assert eye.grab().encoded == PICTURE


@pytest.mark.parametrize("address", ["http://u:p@cam/x", "file:///etc/passwd", "ftp://cam/x", "http:///x", "cam/x"])
def test_addresses_that_are_refused_in_the_config(address):
    """No password in the config, no other protocol, no address without a host."""
    with pytest.raises(ValueError, match=r"password|must begin with"):
        Http.Settings.model_validate({"kind": "http", "source": address})


# --- the parts of a stream


def parts(body: bytes, cuts: list[int], largest: int = 10_000) -> list[bytes]:
    """What a stream gives when it arrives in these pieces."""
    reader = Multipart(b"frame", largest)
    found = []
    edges = [0, *sorted(cut % (len(body) + 1) for cut in cuts), len(body)]
    for start, end in itertools.pairwise(edges):
        reader.feed(body[start:end])
        while (whole := reader.next()) is not None:
            found.append(whole)
    return found


PICTURES = st.lists(st.binary(max_size=300).map(lambda data: b"\xff\xd8" + data.replace(b"--", b"__") + b"\xff\xd9"))


@given(PICTURES, st.lists(st.integers(0, 10_000)), st.booleans(), st.sampled_from([b"", b"\r\n", b"hello\r\n"]))
def test_however_a_stream_is_cut_its_parts_are_the_same(pictures, cuts, with_length, preamble):
    """Pieces of any size, with or without Content-Length, with or without a preamble."""
    body = preamble
    for picture in pictures:
        head = f"Content-Length: {len(picture)}\r\n" if with_length else ""
        body += f"--frame\r\nContent-Type: image/jpeg\r\n{head}\r\n".encode() + picture + b"\r\n"
    body += b"--frame--\r\n"
    assert parts(body, cuts) == pictures


@given(st.lists(st.one_of(st.binary(max_size=400), st.sampled_from([b"--frame\r\n", b"\r\n\r\n", b"\xff\xd9"]))))
def test_garbage_never_fills_the_memory(pieces):
    """Whatever comes, the reader keeps no more than one part."""
    reader = Multipart(b"frame", 500)
    for piece in pieces:
        reader.feed(piece)
        with contextlib.suppress(PictureError):
            while reader.next() is not None:
                pass
        assert len(reader._buffer) <= 70_000


def test_a_part_without_end_is_refused_and_the_stream_goes_on():
    """A picture larger than allowed costs only itself."""
    reader = Multipart(b"frame", 1000)
    reader.feed(b"--frame\r\n\r\n" + bytes(2000))
    with pytest.raises(PictureError):
        reader.next()
    reader.feed(b"\r\n" + part(PICTURE))
    assert reader.next() == PICTURE


def test_a_header_without_end_is_refused():
    """Nor may a header grow for ever."""
    reader = Multipart(b"frame")
    reader.feed(b"--frame\r\n" + b"x: y\r\n" * 20_000)
    with pytest.raises(PictureError):
        reader.next()


def test_the_boundary_may_be_written_with_or_without_dashes():
    """Cameras disagree about that."""
    for boundary in (b"frame", b"--frame"):
        reader = Multipart(boundary)
        reader.feed(part(PICTURE))
        assert reader.next() == PICTURE
