"""Whatever stands in a bundle, it is loaded or refused: nothing else comes out of the parts that read it."""

import io
import tracemalloc
import warnings
import zipfile

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edge_agent.errors import BundleError
from models import archive, bundle, flatbuffer, golden, onnx_guard, tflite_guard
from models.card import CARD, read_card
from tests.models.building import TRUSTED, bundle_files, golden_of, pixel_onnx, tflite, with_tflite

FILES = bundle_files(*with_tflite())
UNSIGNED = {name: content for name, content in FILES.items() if name != bundle.SIGNATURE}
SEEDS = {
    "zip": archive.zipped(FILES),
    "stored zip": archive.zipped(FILES, zipfile.ZIP_STORED),
    "card": FILES[CARD],
    "golden": golden_of(),
    "onnx": pixel_onnx(),
    "tflite": tflite(),
    "signature": FILES[bundle.SIGNATURE],
}
READERS = {
    "zip": lambda data: bundle.verify(archive.unzip(data), TRUSTED, trust_unsigned=True),
    "stored zip": lambda data: bundle.verify(archive.unzip(data), TRUSTED, trust_unsigned=True),
    "card": read_card,
    "golden": golden.read,
    "onnx": onnx_guard.check,
    "tflite": tflite_guard.check,
    "signature": lambda data: bundle.verify({**FILES, bundle.SIGNATURE: data}, TRUSTED, trust_unsigned=True),
}
NASTY = (b"\0", b"\xff", b"\x7f", b"\x80", b"\xff\xff\xff\xff", b"\xff\xff\xff\x7f", b"[", b"{", b"'", b"&a", b"PK\5\6")

cut = st.tuples(st.just("cut"), st.floats(0, 1), st.floats(0, 1))
put = st.tuples(st.just("put"), st.floats(0, 1), st.one_of(st.sampled_from(NASTY), st.binary(min_size=1, max_size=8)))
insert = st.tuples(st.just("insert"), st.floats(0, 1), st.sampled_from(NASTY))
double = st.tuples(st.just("double"), st.floats(0, 1), st.floats(0, 1))
CHANGES = st.lists(st.one_of(cut, put, insert, double), min_size=1, max_size=4)


def mutated(data, changes):
    """Parts cut out, bytes replaced, bytes inserted, parts doubled."""
    for what, where, with_ in changes:
        at = int(where * len(data))
        if what == "cut":
            data = data[:at] + data[at + int(with_ * 50) + 1 :]
        elif what == "put":
            data = data[:at] + with_ + data[at + len(with_) :]
        elif what == "insert":
            data = data[:at] + with_ + data[at:]
        else:
            end = at + int(with_ * 100)
            data = data[:end] + data[at:end] + data[end:]
    return data


@pytest.mark.parametrize("kind", list(SEEDS))
def test_the_seeds_are_good(kind):
    """What is mutated below would be accepted as it is."""
    READERS[kind](SEEDS[kind])


@pytest.mark.parametrize("kind", list(SEEDS))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(changes=CHANGES)
def test_anything_is_accepted_or_refused(kind, changes):
    """A BundleError with words in it, or nothing."""
    try:
        READERS[kind](mutated(SEEDS[kind], changes))
    except BundleError as error:
        words = str(error)
    else:
        words = "accepted"
    assert words.strip()


@settings(max_examples=100, deadline=None)
@given(name=st.sampled_from([*UNSIGNED]), changes=CHANGES)
def test_a_changed_file_is_never_taken_for_the_signed_one(name, changes):
    """One file of a signed bundle is changed: only the very same bytes pass."""
    changed = {**FILES, name: mutated(FILES[name], changes)}
    try:
        bundle.verify(changed, TRUSTED, trust_unsigned=True)
    except BundleError:
        assert changed != FILES
    else:
        assert changed == FILES


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.text(min_size=1, max_size=20), st.binary(max_size=50)), max_size=5),
    st.sampled_from([0, 8, 12, 14]),
)
def test_any_zip_that_python_can_write_is_accepted_or_refused(entries, method):
    """Names from all of Unicode, all packers, doubled names."""
    buffer = io.BytesIO()
    try:
        with zipfile.ZipFile(buffer, "w", method) as file, warnings.catch_warnings(action="ignore"):
            for name, content in entries:
                file.writestr(zipfile.ZipInfo(name), content, method)
    except (UnicodeEncodeError, ValueError):
        return
    try:
        found = archive.unzip(buffer.getvalue())
    except BundleError:
        return
    assert found == dict(entries)


BOMBS = {
    "zip": lambda: archive.unzip(deflated({"a.txt": 1 << 26})),
    "golden": lambda: golden.read(deflated({"inputs.npy": 1 << 26, "labels.npy": 10})),
    "card": lambda: read_card(b"a: " + b"[" * 100_000),
    "card of anchors": lambda: read_card(
        b"".join(b"a%d: &a%d [*a%d, *a%d]\n" % (n, n, n - 1, n - 1) for n in range(1, 60))
    ),
    "onnx": lambda: onnx_guard.check(b"\x3a\x82\x80\x80\x80\x08" + b"\x0a\x00" * 100_000),
    "tflite that shares": lambda: tflite_guard.check(shared_tables()),
}


def deflated(sizes):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
        for name, size in sizes.items():
            with file.open(name, "w") as entry:
                for _ in range(size >> 20 or 1):
                    entry.write(bytes(min(size, 1 << 20)))
    return buffer.getvalue()


def shared_tables():
    """A vector of very many offsets that all lead to the same subgraph."""
    import struct

    count = 1 << 20
    head = struct.pack("<I4s", 24, b"TFL3")
    vtable = struct.pack("<HHHHH", 10, 12, 4, 0, 8) + bytes(6)
    table = struct.pack("<iII", 16, 3, 4)  # at 24: vtable at 8, version, subgraphs behind it
    return head + vtable + table + struct.pack("<I", count) + bytes(4 * count)


@pytest.mark.parametrize("kind", list(BOMBS))
def test_a_bomb_costs_little_and_is_refused(kind, monkeypatch):
    """Memory stays bounded by what is allowed, whatever a few kilobytes claim to be."""
    monkeypatch.setattr(archive, "LARGEST_FILE_BYTES", 1 << 20)
    monkeypatch.setattr(golden, "LARGEST_BYTES", 1 << 20)
    monkeypatch.setattr(flatbuffer, "_MOST", 50_000)
    tracemalloc.start()
    try:
        with pytest.raises(BundleError):
            BOMBS[kind]()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 40 << 20
