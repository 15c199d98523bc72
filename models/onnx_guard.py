"""Before ONNX Runtime sees a file: it must be plain ONNX that refers to nothing outside of itself.

The protobuf wire format is read here, with bounds, so that every tensor is looked at wherever it hides: initializers,
sparse initializers, constants in attributes, bodies of If, Loop and Scan, functions. What is not needed to
decide (training information) is refused altogether.

Source: onnx.proto of ONNX 1.19 (field numbers), protobuf encoding (wire types).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from edge_agent.errors import BundleError

OLDEST_OPSET: Final = 7
NEWEST_OPSET: Final = 26
_MOST_FIELDS: Final = 1_000_000
_DEEPEST: Final = 32
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5

# Message → field → message inside it. What is not named here is not looked into.
_INSIDE: Final[dict[str, dict[int, str]]] = {
    "model": {7: "graph", 8: "opset", 25: "function"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "function": {7: "node", 9: "opset", 11: "attribute"},
    "tensor": {},
}
_TRAINING: Final = ("model", 20)
_EXTERNAL_DATA: Final = 13  # of a tensor: where its data is, file by file
_DATA_LOCATION: Final = 14  # of a tensor: 0 is here
_OPSET_DOMAIN, _OPSET_VERSION = 1, 2


def check(data: bytes) -> None:
    """Raises BundleError."""
    if data[4:8] == b"ORTM":
        raise BundleError("is a model in ONNX Runtime's own format, not ONNX")
    _Scan(data).message("model", 0, len(data), 0)


class _Scan:
    def __init__(self, data: bytes) -> None:
        self._data = data
        self._left = _MOST_FIELDS

    def message(self, kind: str, start: int, end: int, depth: int) -> None:
        """Look at one message; every occurrence of a field counts, as protobuf merges them."""
        if depth > _DEEPEST:
            raise BundleError("is ONNX nested too deeply")
        if kind == "opset":
            self._opset(start, end)
            return
        for field, first, last in self._fields(start, end):
            if kind == "tensor" and (field == _EXTERNAL_DATA or (field == _DATA_LOCATION and last)):
                raise BundleError("keeps data of the model in another file", hint="save the model with all data inside")
            if (kind, field) == _TRAINING:
                raise BundleError("carries training information, which nobody needs who decides")
            if field in _INSIDE[kind]:
                if first < 0:
                    raise BundleError("is damaged ONNX: a number where a message belongs")
                self.message(_INSIDE[kind][field], first, last, depth + 1)

    def _opset(self, start: int, end: int) -> None:
        domain, version = b"", 0
        for field, first, last in self._fields(start, end):
            if field == _OPSET_DOMAIN and first >= 0:
                domain = self._data[first:last]
            elif field == _OPSET_VERSION and first < 0:
                version = last
        if domain in (b"", b"ai.onnx") and not OLDEST_OPSET <= version <= NEWEST_OPSET:
            raise BundleError(
                f"is made for ONNX opset {version}", hint=f"export it for {OLDEST_OPSET} to {NEWEST_OPSET}"
            )

    def _fields(self, start: int, end: int) -> Iterator[tuple[int, int, int]]:
        """Number of each field with the borders of its bytes, or with −1 and its value."""
        at = start
        while at < end:
            self._left -= 1
            if self._left < 0:
                raise BundleError("is ONNX of too many parts")
            tag, at = self._varint(at, end)
            field, wire = tag >> 3, tag & 7
            if field == 0 or tag >= 1 << 32:  # protobuf would read only the lower 32 bits
                raise BundleError("is damaged ONNX: an impossible field")
            if wire == _VARINT:
                value, at = self._varint(at, end)
                yield field, -1, value
                continue
            if wire == _BYTES:
                size, at = self._varint(at, end)
            elif wire in (_FIXED32, _FIXED64):
                size = 4 if wire == _FIXED32 else 8
            else:
                raise BundleError("is damaged ONNX: an unknown kind of field")
            if size > end - at:
                raise BundleError("is damaged ONNX: it ends too early")
            yield field, at, at + size
            at += size

    def _varint(self, at: int, end: int) -> tuple[int, int]:
        value = shift = 0
        while at < end and shift < 64:
            byte = self._data[at]
            at += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value, at
            shift += 7
        raise BundleError("is damaged ONNX: it ends too early")
