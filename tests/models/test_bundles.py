"""A bundle is believed only after everything in it was measured, hashed and signed by somebody trusted here."""

import io
import json
import os
import stat
import zipfile

import pytest
import yaml

from edge_agent.errors import BundleError
from models import archive, bundle, keys
from models.card import CARD, read_card
from tests.models.building import STRANGER, TRUSTED, VENDOR, bundle_files, card, golden_of, pixel_onnx, trusting


@pytest.fixture
def files():
    return bundle_files()


@pytest.mark.parametrize("as_zip", [False, True])
def test_a_bundle_is_a_folder_or_its_zip(tmp_path, files, as_zip):
    """Both hold the same bytes and are equally good."""
    path = tmp_path / "pixel"
    if as_zip:
        path.write_bytes(archive.zipped(files))
    else:
        archive.place(files, path)

    loaded = bundle.load(path, TRUSTED)

    assert ("pixel", 1, keys.key_id(VENDOR.public_key())) == (loaded.card.name, loaded.card.version, loaded.signed_by)
    assert files == loaded.files


def test_the_same_files_are_the_same_zip(files):
    """Nothing of the clock or the order gets into a zip."""
    assert archive.zipped(files) == archive.zipped(dict(reversed(files.items())))


@pytest.mark.parametrize("name", ["card.yaml", "pixel.onnx", "golden.npz"])
def test_one_changed_bit_is_noticed(files, name):
    """The signature covers every file."""
    changed = bytearray(files[name])
    changed[len(changed) // 2] ^= 1

    with pytest.raises(BundleError, match="changed after vendor signed"):
        bundle.verify({**files, name: bytes(changed)}, TRUSTED, trust_unsigned=True)


def test_an_added_file_is_noticed(files):
    """Nothing can be slipped in beside what was signed."""
    with pytest.raises(BundleError, match="changed after"):
        bundle.verify({**files, "notes.txt": b""}, TRUSTED)


def test_a_signature_of_another_bundle_does_not_fit(files):
    """A signature cannot be moved."""
    other = bundle_files(card(version=2))

    with pytest.raises(BundleError, match="changed after"):
        bundle.verify({**files, bundle.SIGNATURE: other[bundle.SIGNATURE]}, TRUSTED)


def test_an_unknown_signer_is_refused_by_name(files):
    """Whoever is not trusted here is named, and who is trusted too."""
    with pytest.raises(BundleError, match=f"unknown key {keys.key_id(VENDOR.public_key())}.*(vendor)"):
        bundle.verify(files, trusting(STRANGER))


def test_an_unsigned_bundle_needs_somebody_who_vouches(files):
    """Closed by default; trust in the unsigned is given by hand, and leaves no signer."""
    del files[bundle.SIGNATURE]

    with pytest.raises(BundleError, match="not signed"):
        bundle.verify(files, TRUSTED)
    assert bundle.verify(files, TRUSTED, trust_unsigned=True).signed_by is None
    assert bundle.verify(bundle_files(key=STRANGER), TRUSTED, trust_unsigned=True).signed_by is None


@pytest.mark.parametrize("text", [b"", b"ed25519", b"rsa " + b"0" * 16 + b" " + b"A" * 86 + b"==\n", b"x" * 1000])
def test_a_damaged_signature_is_no_signature_even_by_hand(files, text):
    """What looks signed and is not is suspicious."""
    with pytest.raises(BundleError, match="damaged"):
        bundle.verify({**files, bundle.SIGNATURE: text}, TRUSTED, trust_unsigned=True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda files: files.pop("golden.npz"), "no golden.npz"),
        (lambda files: files.pop("card.yaml"), "is it a model bundle"),
        (lambda files: files.pop("pixel.onnx"), "no pixel.onnx, which its card names"),
        (lambda files: files.update({"pixel.onnx": b"other"}), "sha256 differs"),
        (lambda files: files.update({"weights.bin": b"other"}), "weights.bin, which its card does not name"),
    ],
)
def test_card_and_files_must_fit_whoever_signed(files, change, message):
    """A signature makes nothing right that is wrong."""
    change(files)

    with pytest.raises(BundleError, match=message):
        bundle.verify(bundle.sign(files, VENDOR), TRUSTED)


def test_licences_may_travel_along(files):
    """Texts need no line in the card."""
    assert bundle.verify(bundle.sign({**files, "LICENSE.txt": b"MIT"}, VENDOR), TRUSTED).files["LICENSE.txt"] == b"MIT"


def test_a_bundle_is_read_once(tmp_path, files):
    """What was verified is what is used, whatever happens to the folder afterwards."""
    archive.place(files, tmp_path / "pixel")
    loaded = bundle.load(tmp_path / "pixel", TRUSTED)
    (tmp_path / "pixel" / "pixel.onnx").write_bytes(b"swapped")

    assert loaded.files["pixel.onnx"] == pixel_onnx()


# --- folders that are none


@pytest.mark.parametrize("kind", ["link", "dangling", "folder", "pipe", "hidden", "device"])
def test_only_plain_files(tmp_path, files, kind):
    """Links are not followed, pipes not waited for, devices not read."""
    folder = tmp_path / "pixel"
    archive.place(files, folder)
    odd = folder / "odd.txt"
    if kind == "link":
        odd.symlink_to("/etc/hostname")
    elif kind == "dangling":
        odd.symlink_to("nowhere")
    elif kind == "folder":
        odd.mkdir()
    elif kind == "pipe":
        os.mkfifo(odd)
    elif kind == "device":
        try:
            os.mknod(odd, stat.S_IFCHR | 0o600, os.makedev(1, 5))
            odd.open("rb").close()
        except PermissionError:
            pytest.skip("devices cannot be made here")
    else:
        (folder / ".odd").write_bytes(b"")

    with pytest.raises(
        BundleError, match="'odd.txt' is a link" if kind in ("link", "dangling") else r"odd|cannot read"
    ):
        archive.read(folder)


def test_a_hard_link_is_the_file_that_it_is(tmp_path, files):
    """Package installers make them; its content is read once and must be what was signed, like any other."""
    archive.place(files, tmp_path / "pixel")
    (tmp_path / "elsewhere").write_bytes(b"secret")
    assert bundle.load(tmp_path / "pixel", TRUSTED).files == files
    (tmp_path / "again").hardlink_to(tmp_path / "pixel" / "pixel.onnx")
    assert bundle.load(tmp_path / "pixel", TRUSTED).files == files
    (tmp_path / "pixel" / "notes.txt").hardlink_to(tmp_path / "elsewhere")

    with pytest.raises(BundleError, match="changed after"):
        bundle.load(tmp_path / "pixel", TRUSTED)


def test_what_is_not_there_is_said(tmp_path):
    """A path that leads nowhere is no bundle."""
    with pytest.raises(BundleError, match="No such file"):
        archive.read(tmp_path / "nothing")


def test_large_files_are_not_even_read(tmp_path, monkeypatch):
    """A sparse file of any size costs nothing."""
    with (tmp_path / "huge.txt").open("wb") as file:
        file.truncate(1 << 40)
    monkeypatch.setattr(archive, "LARGEST_FILE_BYTES", 1000)

    with pytest.raises(BundleError, match="too large"):
        archive.read(tmp_path)


def test_too_many_files(tmp_path):
    """A folder of many files is no bundle."""
    for number in range(archive.MOST_FILES + 1):
        (tmp_path / f"{number}.txt").touch()

    with pytest.raises(BundleError, match="more than"):
        archive.read(tmp_path)


# --- zips that are none


def packed(*entries, comment=b"", method=zipfile.ZIP_DEFLATED):
    """A zip of (name or ZipInfo, content), as anybody may write one."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as file:
        for name, content in entries:
            file.writestr(name, content)
        file.comment = comment
    return buffer.getvalue()


def linked(name):
    info = zipfile.ZipInfo(name)
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    return info


@pytest.mark.parametrize(
    "name",
    [
        "../a.txt",
        "/etc/passwd",
        "a/b.txt",
        "a\\b.txt",
        "C:a.txt",
        " ",
        ".",
        "..",
        ".a",
        "a\nb",
        "ä.txt",
        "-a",
        "a" * 101,
    ],
)
def test_a_name_can_lead_nowhere_else(name):
    """Plain names only."""
    with pytest.raises(BundleError, match="plain files only"):
        archive.unzip(packed((name, b"x")))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (packed((linked("a.txt"), b"/etc/passwd")), "not a plain file"),
        (packed(*((f"{number}.txt", b"") for number in range(33))), "at most 32 files"),
        (packed(("a.txt", b"x"), comment=b"hello"), "zip"),
        (packed(("a.txt", b"x"), ("A.txt", b"y")), "there twice"),
        (packed(("a.txt", b"x" * 1000), method=zipfile.ZIP_LZMA), "not allowed"),
        (packed(("a.txt", b"x" * 1000), method=zipfile.ZIP_BZIP2), "not allowed"),
        (b"PK\3\4 something", "neither a folder nor a zip"),
        (b"", "neither a folder nor a zip"),
        (packed(("a.txt", b"x"))[:-1], "neither a folder nor a zip"),
    ],
)
def test_an_odd_zip_is_refused(data, message):
    """Links, comments, other packers, two files of one name: nothing a bundle needs."""
    with pytest.raises(BundleError, match=message):
        archive.unzip(data)


def test_an_encrypted_entry_is_refused():
    """Nobody is asked for a password."""
    data = bytearray(packed(("a.txt", b"x")))
    data[data.index(b"PK\1\2") + 8] |= 1

    with pytest.raises(BundleError, match="encrypted"):
        archive.unzip(bytes(data))


def test_a_bomb_is_not_unpacked(monkeypatch):
    """What would unpack to more than is allowed is stopped there, whatever its header says."""
    monkeypatch.setattr(archive, "LARGEST_FILE_BYTES", 100_000)
    honest = packed(("a.txt", b"\0" * 10_000_000))
    lying = bytearray(honest)
    for mark, offset in ((b"PK\3\4", 22), (b"PK\1\2", 24)):
        at = lying.index(mark) + offset
        lying[at : at + 4] = (5).to_bytes(4, "little")

    for data in (honest, bytes(lying)):
        with pytest.raises(BundleError, match=r"too large|damaged"):
            archive.unzip(data)


def test_overlapping_entries_count_each_time(monkeypatch):
    """Many entries over the same packed bytes are still limited together."""
    monkeypatch.setattr(archive, "LARGEST_BYTES", 100_000)
    data = packed(*((f"{number}.txt", b"\0" * 50_000) for number in range(5)))

    with pytest.raises(BundleError, match="too large"):
        archive.unzip(data, 100_000)


def test_a_large_table_of_contents_is_refused_before_it_is_read():
    """The number of entries is looked at before an object is made of each."""
    entry = packed(("a.txt", b""))
    end = bytearray(entry[-22:])
    end[12:16] = (1 << 26).to_bytes(4, "little")

    with pytest.raises(BundleError, match="no plain zip"):
        archive.unzip(entry[:-22] + bytes(1 << 20) + bytes(end))


# --- the card


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"verison": 1}, r"card.yaml:\d+: verison: unknown key — did you mean 'version'"),
        ({"version": 0}, r"card.yaml:2: version: must be at least 1"),
        ({"version": "1.2"}, "version: must be a whole number"),
        ({"name": "../pixel"}, "letters, digits"),
        ({"task": "guess"}, "task: must be"),
        ({"files": []}, "files"),
        ({"data": []}, "data"),
        ({"threshold": {"value": float("nan"), "set_for": "x"}}, "finite"),
        ({"threshold": {"value": 0.5}}, "threshold.set_for: is missing"),
        (
            {"input": {"kind": "picture", "size": "0x5", "colour": "rgb"}},
            r"card.yaml:\d+: input: size must be at least 1x1",
        ),
        (
            {"input": {"kind": "picture", "size": "8x8", "colour": "rgb", "std": [0.0]}},
            r"input.std.0: must be more than 0",
        ),
        ({"input": {"kind": "picture", "size": "8x8", "colour": "grey", "mean": [1, 2, 3]}}, "mean needs one number"),
        ({"input": {"kind": "rows", "quantities": ["a", "a"], "every": "1s"}}, "has a twice"),
        ({"input": {"kind": "sound"}}, "input"),
        ({"outputs": {"labels": ["a", "b"], "good": ["c"]}}, "good names c"),
        (
            {"files": [{"name": "../x.onnx", "format": "onnx", "precision": "fp32", "sha256": "0" * 64}]},
            "plain file name",
        ),
        ({"files": [{"name": "x.onnx", "format": "onnx", "precision": "fp32", "sha256": "A" * 64}]}, "hexadecimal"),
        (
            {"files": [{"name": n, "format": "onnx", "precision": "fp32", "sha256": "0" * 64} for n in "ab"]},
            "fp32-onnx twice",
        ),
    ],
)
def test_a_mistake_in_a_card_is_named_with_its_line(change, message):
    """The card is read as strictly as the config."""
    good = {**card(), "files": [{**card()["files"][0], "sha256": "0" * 64}]}
    read_card(yaml.safe_dump(good, sort_keys=False).encode())

    with pytest.raises(BundleError, match=message):
        read_card(yaml.safe_dump({**good, **change}, sort_keys=False).encode())


@pytest.mark.parametrize(
    "data", [b"", b"[]", b"\xff", b"a: [", b"&a [*a]", b"- " * 3000, b"x" * (1 << 20), b"{a: 1, a: 2}"]
)
def test_what_is_no_card_is_refused(data):
    """Neither bombs nor nonsense."""
    with pytest.raises(BundleError, match=CARD):
        read_card(data)


# --- keys


def test_the_devices_own_key_is_made_once(tmp_path):
    """It is private, stays the same, and is trusted on this machine."""
    first = keys.device_key(tmp_path)
    again = keys.device_key(tmp_path)

    assert keys.key_id(first.public_key()) == keys.key_id(again.public_key())
    assert stat.S_IMODE((tmp_path / "keys" / "device.pem").stat().st_mode) == 0o600
    assert keys.trusted(tmp_path, ()).names == {keys.key_id(first.public_key()): "device"}


def test_keys_come_from_folders_and_rubbish_is_remarked(tmp_path):
    """A file that holds no key is said, and does not hide the others."""
    (tmp_path / "vendor.pub").write_bytes(keys.public_pem(VENDOR.public_key()))
    (tmp_path / "broken.pub").write_bytes(b"-----BEGIN PUBLIC KEY-----\n")
    (tmp_path / "private.pub").write_bytes(keys.private_pem(VENDOR))
    (tmp_path / "readme.md").write_text("not a key")

    found = keys.trusted(None, (tmp_path, tmp_path / "missing"))

    assert found.names == {keys.key_id(VENDOR.public_key()): "vendor"}
    assert [remark.split(" is ")[0].rpartition("/")[2] for remark in found.remarks] == ["broken.pub", "private.pub"]


def test_a_damaged_device_key_is_not_replaced(tmp_path):
    """A new key would distrust everything calibrated here: a person decides."""
    keys.device_key(tmp_path)
    (tmp_path / "keys" / "device.pem").write_bytes(b"damaged")

    with pytest.raises(BundleError, match="no Ed25519 private key"):
        keys.device_key(tmp_path)


def test_the_manifest_is_what_it_says(files):
    """Anybody can check a signature with sha256sum and openssl."""
    first, *lines = bundle.manifest(files).decode().splitlines()

    assert first == "edge-agent bundle 1"
    assert [line.split(" ")[2] for line in lines] == ["card.yaml", "golden.npz", "pixel.onnx"]
    assert json.dumps(lines).count(str(len(files["pixel.onnx"]))) == 1
    assert golden_of() == files["golden.npz"]
