"""What a folder or a zip holds, as bytes, read once and bounded: nothing in it is believed before it is measured.

Flat, plain names only: no folder, link, device, absolute path or ``..`` can even be written down.
"""

from __future__ import annotations

import errno
import io
import os
import shutil
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from edge_agent.errors import BundleError
from models.card import FILE_NAME

MOST_FILES: Final = 32
LARGEST_FILE_BYTES: Final = 64 << 20
LARGEST_BYTES: Final = 128 << 20

Files = dict[str, bytes]
"""Name → content."""

_DIRECTORY: Final = 64 << 10  # bytes of a zip's table of contents: 32 files need 5 kB
_END: Final = struct.Struct("<4s4H2LH")
_METHODS: Final = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_LONG_AGO: Final = (1980, 1, 1, 0, 0, 0)  # the same content is the same zip
_DAMAGE: Final = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    OSError,
    ValueError,
    KeyError,
    IndexError,
    OverflowError,
    RuntimeError,
)


def read(path: Path) -> Files:
    """A folder or a zip. Raises BundleError; what is a link inside it is refused, not followed."""
    try:
        if path.is_dir():
            return _read_folder(path)
        return unzip(_read_file(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), path.name, LARGEST_BYTES))
    except OSError as error:
        raise BundleError(f"cannot read {path}: {error.strerror or error}") from error


def _read_folder(path: Path) -> Files:
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with os.scandir(folder) as entries:
            names = _checked(entry.name for entry in entries)
        files: Files = {}
        for name in names:
            # Never a link, and never waiting for the other end of a pipe.
            try:
                file = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
            except OSError as error:
                if error.errno != errno.ELOOP:
                    raise
                raise BundleError(f"{name!r} is a link; only plain files belong into a bundle") from None
            files[name] = _read_file(file, name, min(LARGEST_FILE_BYTES, LARGEST_BYTES - _size(files)))
        return files
    finally:
        os.close(folder)


def _read_file(number: int, name: str, limit: int) -> bytes:
    with os.fdopen(number, "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise BundleError(f"{name!r} is not a plain file")
        data = file.read(limit + 1)
    return _within(name, data, limit)


def _within(name: str, content: bytes, limit: int) -> bytes:
    if len(content) > limit:
        raise BundleError(f"{name!r} is too large; {limit} bytes would be allowed")
    return content


def unzip(data: bytes, largest_bytes: int = LARGEST_BYTES) -> Files:
    """The files in a zip, never more than ``largest_bytes`` of them together. Raises BundleError."""
    _check_directory(data)
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            entries = archive.infolist()
            _checked(entry.orig_filename for entry in entries)
            files: Files = {}
            for entry in entries:
                _check_entry(entry)
                limit = min(LARGEST_FILE_BYTES, largest_bytes - _size(files))
                with archive.open(entry) as file:
                    content = file.read(limit + 1)
                files[entry.filename] = _within(entry.filename, content, limit)
    except BundleError:
        raise
    except _DAMAGE as error:
        raise BundleError(f"the zip is damaged: {str(error) or type(error).__name__}") from error
    return files


def _check_directory(data: bytes) -> None:
    """The end of a zip says how large its table of contents is: refuse before anybody builds objects of it."""
    if len(data) < _END.size or data[-_END.size :][:4] != b"PK\5\6":
        raise BundleError("is neither a folder nor a zip (without a comment)", hint="a bundle is one or the other")
    _, disk, first_disk, here, count, size, _, comment = _END.unpack(data[-_END.size :])
    is_zip64 = data[-_END.size - 20 :][:4] == b"PK\6\7"
    if is_zip64 or disk or first_disk or comment or here != count or count > MOST_FILES or size > _DIRECTORY:
        raise BundleError(f"is no plain zip of at most {MOST_FILES} files")


def _check_entry(entry: zipfile.ZipInfo) -> None:
    kind = stat.S_IFMT(entry.external_attr >> 16)
    if kind not in (0, stat.S_IFREG):
        raise BundleError(f"{entry.filename!r} is not a plain file")
    if entry.flag_bits & 0x1:
        raise BundleError(f"{entry.filename!r} is encrypted")
    if entry.compress_type not in _METHODS:
        raise BundleError(f"{entry.filename!r} is packed in a way that is not allowed")


def _checked(names: Iterable[str]) -> list[str]:
    """The names, if each is plain and no two would be the same file anywhere. Raises BundleError."""
    found: dict[str, str] = {}
    for name in names:
        if not FILE_NAME.fullmatch(name):
            raise BundleError(f"{name[:100]!r} is not allowed in a bundle: plain files only, no folders")
        if name.casefold() in found:
            raise BundleError(f"{name!r} is there twice")
        found[name.casefold()] = name
        if len(found) > MOST_FILES:
            raise BundleError(f"has more than {MOST_FILES} files")
    return sorted(found.values())


def _size(files: Mapping[str, bytes]) -> int:
    return sum(len(content) for content in files.values())


def zipped(files: Mapping[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    """As one zip; the same files always give the same bytes."""
    _checked(files)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name in sorted(files):
            entry = zipfile.ZipInfo(name, _LONG_AGO)
            entry.external_attr = (stat.S_IFREG | 0o644) << 16
            entry.compress_type = method
            archive.writestr(entry, files[name])
    return buffer.getvalue()


def place(files: Mapping[str, bytes], target: Path) -> None:
    """Write them as a folder that is complete and on the disk, or not there. Raises OSError; ``target`` must be new.

    New files belong to whom the folder around belongs to: root may install for the daemon.
    """
    _checked(files)
    fresh = target.with_name(f".{target.name}.{os.getpid()}")
    discard(fresh)
    owner = target.parent.stat()
    try:
        fresh.mkdir(mode=0o750)
        for name, content in sorted(files.items()):
            write(fresh / name, content, owner)
        give(fresh, owner)
        sync_folder(fresh)
        fresh.rename(target)
    except OSError:
        discard(fresh)
        raise
    sync_folder(target.parent)


def write(path: Path, content: bytes, owner: os.stat_result, mode: int = 0o640) -> None:
    """A file of that content, on the disk when this returns."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, mode), "wb") as file:
        give(path, owner)
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def replace(path: Path, content: bytes, mode: int = 0o640) -> None:
    """The file has the old content or the new, whenever the power goes."""
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    write(fresh, content, path.parent.stat(), mode)
    fresh.replace(path)
    sync_folder(path.parent)


def give(path: Path, owner: os.stat_result) -> None:
    """To whom the folder around it belongs, where we may."""
    if os.geteuid() == 0:
        os.chown(path, owner.st_uid, owner.st_gid, follow_symlinks=False)


def sync_folder(path: Path) -> None:
    """What was created, renamed or removed in it is on the disk when this returns."""
    number = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def discard(folder: Path) -> None:
    """Remove a folder, as far as that is possible; never what a link leads to."""
    shutil.rmtree(folder, ignore_errors=True)
