"""A model bundle: a folder, or its zip, with ``card.yaml``, model files, ``golden.npz`` and a detached signature.

::

    read once (archive) ─▶ signature over all hashes ─▶ card, with lines ─▶ hash of each model file ─▶ Bundle
                                                                                                         │ bytes in
    … then, and only with these bytes: guard ─▶ session ─▶ golden decisions (models.judge) ◀─────────────┘ memory

Whoever makes one: ``draft`` from a card and model files, then :func:`models.golden.record` with the judge that
:func:`models.judge.build` makes of it, then ``complete``, which signs.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from edge_agent.errors import BundleError
from models import archive, keys
from models.archive import Files
from models.card import CARD, Card, read_card
from models.releases import SHIPPED

GOLDEN: Final = "golden.npz"
SIGNATURE: Final = "bundle.sig"
_HEAD: Final = b"edge-agent bundle 1\n"
_TEXTS: Final = (".md", ".txt")  # licences and attributions
_SIGNED: Final = re.compile(rb"ed25519 ([0-9a-f]{16}) ([A-Za-z0-9+/]{86}==)\n")


@dataclass(frozen=True, slots=True)
class Bundle:
    """A bundle in memory; nobody opens its files again.

    ``signed_by``: id of the key, None where a person vouches for it. ``sha256``: of everything in it but the signature.
    """

    card: Card
    files: Mapping[str, bytes]
    sha256: str
    signed_by: str | None = None

    @property
    def golden(self) -> bytes:
        """Raises BundleError where there is none: a draft."""
        try:
            return self.files[GOLDEN]
        except KeyError:
            raise BundleError(f"has no {GOLDEN}") from None


def load(path: Path, trusted: keys.Keys, *, trust_unsigned: bool = False) -> Bundle:
    """Read a folder or zip once and verify it. Raises BundleError that says what is wrong with it.

    ``trust_unsigned``: a person vouches for one without signature or of an unknown signer; one that was
    changed after a known signer signed it is refused even so.
    """
    return verify(archive.read(path), trusted, trust_unsigned=trust_unsigned)


def shipped(name: str) -> Bundle | None:
    """The one of that name that comes with the product; None: there is none that could decide anything."""
    path = SHIPPED / name
    try:
        found = load(path, keys.trusted(folders=[keys.SHIPPED])) if path.is_dir() else None
    except BundleError:
        return None
    return found if found is not None and found.card.name == name else None


def verify(files: Mapping[str, bytes], trusted: keys.Keys, *, trust_unsigned: bool = False) -> Bundle:
    """As :func:`load`, from bytes."""
    signer = _signer(files, trusted, trust_unsigned=trust_unsigned)
    card = _card(files)
    _check_files(card, files)
    if GOLDEN not in files:
        raise BundleError(f"has no {GOLDEN}: nobody could tell whether it decides as it should")
    return Bundle(card, dict(files), digest(files), signer)


def manifest(files: Mapping[str, bytes]) -> bytes:
    """What is signed: one line for each file, in the order of names: SHA-256, bytes, name."""
    lines = (
        f"{hashlib.sha256(files[name]).hexdigest()} {len(files[name])} {name}\n"
        for name in sorted(files)
        if name != SIGNATURE
    )
    return _HEAD + "".join(lines).encode()


def digest(files: Mapping[str, bytes]) -> str:
    """SHA-256 of the manifest: two bundles with the same digest are the same."""
    return hashlib.sha256(manifest(files)).hexdigest()


def sign(files: Mapping[str, bytes], key: Ed25519PrivateKey) -> Files:
    """The same files with a new signature."""
    signature = base64.b64encode(key.sign(manifest(files))).decode()
    line = f"ed25519 {keys.key_id(key.public_key())} {signature}\n"
    return {**{name: files[name] for name in files if name != SIGNATURE}, SIGNATURE: line.encode()}


def draft(card: Mapping[str, Any], models: Mapping[str, bytes]) -> Bundle:
    """A bundle in the making. ``card``: as in ``card.yaml``; the ``sha256`` of its files is filled in here.

    ``models``: the model files, and texts such as licences. Raises BundleError, as a reader would.
    """
    entries = [
        {**entry, "sha256": hashlib.sha256(models[entry["name"]]).hexdigest()} for entry in card.get("files", ())
    ]
    text = yaml.safe_dump({**card, "files": entries}, sort_keys=False, allow_unicode=True, width=110)
    files = {**models, CARD: text.encode()}
    checked = _card(files)
    _check_files(checked, files)
    return Bundle(checked, files, digest(files))


def complete(drafted: Bundle, golden: bytes, key: Ed25519PrivateKey) -> Files:
    """The signed files of a draft, to be zipped, placed or installed."""
    return sign({**drafted.files, GOLDEN: golden}, key)


def _signer(files: Mapping[str, bytes], trusted: keys.Keys, *, trust_unsigned: bool) -> str | None:
    if SIGNATURE not in files:
        if trust_unsigned:
            return None
        raise BundleError("is not signed", hint="use a signed bundle, or vouch for this one with --trust-unsigned")
    match = _SIGNED.fullmatch(files[SIGNATURE])
    if match is None:
        raise BundleError(f"its {SIGNATURE} is damaged")
    signer = match[1].decode()
    if trust_unsigned and signer not in trusted.trusted:
        return None
    trusted.check(signer, manifest(files), base64.b64decode(match[2]))
    return signer


def _card(files: Mapping[str, bytes]) -> Card:
    if CARD not in files:
        raise BundleError(f"has no {CARD}: is it a model bundle?")
    return read_card(files[CARD])


def _check_files(card: Card, files: Mapping[str, bytes]) -> None:
    for file in card.files:
        if file.name in (CARD, GOLDEN, SIGNATURE):
            raise BundleError(f"{file.name} is no model file")
        if file.name not in files:
            raise BundleError(f"has no {file.name}, which its card names")
        if hashlib.sha256(files[file.name]).hexdigest() != file.sha256:
            raise BundleError(f"{file.name} is not the file that the card names: its sha256 differs")
    known = {CARD, GOLDEN, SIGNATURE, *(file.name for file in card.files)}
    strange = sorted(name for name in files if name not in known and not name.endswith(_TEXTS))
    if strange:
        raise BundleError(f"has {', '.join(strange)}, which its card does not name")
