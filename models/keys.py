"""Who may sign a model: Ed25519 public keys in folders, one PEM file each.

A key is known by its id, the first 16 hexadecimal digits of the SHA-256 of its 32 bytes. The machine has a key of
its own, made when it is first needed: what is calibrated here is signed here, and trusted here only.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from edge_agent.errors import BundleError
from models.archive import give, replace, sync_folder

SHIPPED: Final = Path(__file__).parent / "trusted"
SITE: Final = Path("/etc/edge-agent/keys")
DEVICE_KEY: Final = "device.pem"
DEVICE_PUBLIC: Final = "device.pub"
_LARGEST: Final = 16 << 10


@dataclass(frozen=True, slots=True)
class Keys:
    """Trusted public keys by id, with the file that each came from; ``remarks``: files that hold no such key."""

    trusted: Mapping[str, Ed25519PublicKey] = field(default_factory=dict)
    names: Mapping[str, str] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()

    def check(self, key_id: str, message: bytes, signature: bytes) -> None:
        """Raises BundleError: unknown key, or a signature that does not fit."""
        key = self.trusted.get(key_id)
        if key is None:
            known = ", ".join(f"{each} ({name})" for each, name in self.names.items()) or "none"
            raise BundleError(
                f"is signed with the unknown key {key_id}",
                hint=f"known here: {known}; put the signer's public key into {SITE} if you trust it",
            )
        try:
            key.verify(signature, message)
        except InvalidSignature:
            signer = self.names[key_id]
            raise BundleError(
                f"its signature is wrong: it was changed after {signer} signed it", hint=f"get it anew from {signer}"
            ) from None


def trusted(state_dir: Path | None = None, folders: Iterable[Path] = (SHIPPED, SITE)) -> Keys:
    """Every ``*.pub`` in the folders and in ``state_dir/keys``. What cannot be read is remarked and trusted less."""
    found: dict[str, Ed25519PublicKey] = {}
    names: dict[str, str] = {}
    remarks: list[str] = []
    for folder in (*folders, *((state_dir / "keys",) if state_dir else ())):
        for path in sorted(folder.glob("*.pub")):
            try:
                key = _public(_read(path))
            except (OSError, ValueError, UnsupportedAlgorithm) as error:
                remarks.append(f"{path} is no Ed25519 public key: {error}")
                continue
            found.setdefault(key_id(key), key)
            names.setdefault(key_id(key), path.stem)
    return Keys(found, names, tuple(remarks))


def key_id(key: Ed25519PublicKey) -> str:
    return hashlib.sha256(key.public_bytes_raw()).hexdigest()[:16]


def device_key(state_dir: Path) -> Ed25519PrivateKey:
    """The machine's own key, made on first use. Raises OSError, and BundleError where the file is damaged."""
    folder = state_dir / "keys"
    path = folder / DEVICE_KEY
    if not path.exists():
        if not folder.is_dir():
            folder.mkdir(mode=0o750, parents=True)
            give(folder, state_dir.stat())
            sync_folder(state_dir)
        replace(path, private_pem(Ed25519PrivateKey.generate()), mode=0o600)
    key = signing_key(path)
    public = public_pem(key.public_key())
    if not (folder / DEVICE_PUBLIC).exists() or _read(folder / DEVICE_PUBLIC) != public:
        replace(folder / DEVICE_PUBLIC, public, mode=0o644)
    return key


def signing_key(path: Path) -> Ed25519PrivateKey:
    """A private key from its PEM file. Raises OSError and BundleError."""
    try:
        key = serialization.load_pem_private_key(_read(path), None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise BundleError(f"{path} is no Ed25519 private key: {error}") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise BundleError(f"{path} is no Ed25519 private key")
    return key


def private_pem(key: Ed25519PrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def public_pem(key: Ed25519PublicKey) -> bytes:
    return key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def _public(data: bytes) -> Ed25519PublicKey:
    key = serialization.load_pem_public_key(data)
    if not isinstance(key, Ed25519PublicKey):
        raise ValueError("it is of another kind")
    return key


def _read(path: Path) -> bytes:
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
        return file.read(_LARGEST)
