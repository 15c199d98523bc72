"""A network camera over HTTP: a Motion JPEG stream, or one picture per request.

The pictures stay as they came: FFmpeg would conceal a damaged one, our own decoder refuses it.
"""

from __future__ import annotations

import re
from email.message import Message
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import Final
from urllib import request
from urllib.error import HTTPError

from pydantic import Field, field_validator

from drivers.cameras.stream import checked_address, first_line
from edge_agent.camera_settings import CameraSection
from edge_agent.clock import Clock
from edge_agent.contracts import Frame
from edge_agent.errors import CameraError, PictureError
from edge_agent.vocabulary import NOT_A_PICTURE, NOTHING_THERE, PERMISSION, TIMEOUT, TOO_LARGE, WIRE

_PATIENCE = 0.8  # as in stream.py
_LARGEST: Final = 32 * 2**20  # bytes of one picture
_CHUNK = 65_536


class HttpSettings(CameraSection):
    """A network camera over HTTP."""

    source: str = Field(description="The address: `http://10.0.0.9/video.mjpg`, without a password.")
    user: str | None = Field(default=None, description="The user that the camera asks for (basic or digest).")
    password_file: Path | None = Field(default=None, description="A file whose first line is the password.")

    @field_validator("source")
    @classmethod
    def _is_http(cls, source: str) -> str:
        return checked_address(source, "http", "https")


class Multipart:
    """Takes a ``multipart/x-mixed-replace`` body in pieces of any size and gives back its parts.

    A part ends where its Content-Length says if a JPEG ends there, otherwise at the next boundary: a part
    that was cut short thus costs only itself. Raises PictureError for one without end; it goes on after that.
    """

    def __init__(self, boundary: bytes, largest: int = _LARGEST) -> None:
        self._mark = b"--" + boundary.removeprefix(b"--")
        self._largest = largest
        self._buffer = bytearray()
        self._length: int | None = None
        self._in_part = False

    def feed(self, data: bytes) -> None:
        self._buffer += data

    def next(self) -> bytes | None:
        """The next whole part, or None: more is needed."""
        if not self._in_part and not self._begin():
            return None
        end = self._length
        if end is None or self._buffer[max(0, end - 2) : end] != b"\xff\xd9":
            end = self._buffer.find(self._mark)
        if end < 0:
            if len(self._buffer) > self._largest:
                self._in_part = False
                self._buffer.clear()
                raise PictureError(TOO_LARGE, f"a part of more than {self._largest} bytes")
            return None
        part = bytes(self._buffer[:end])
        del self._buffer[:end]
        self._in_part = False
        return part.removesuffix(b"\n").removesuffix(b"\r")

    def _begin(self) -> bool:
        """Skip to the boundary and over the header of the next part."""
        start = self._buffer.find(self._mark)
        if start < 0:
            del self._buffer[: -len(self._mark)]
            return False
        del self._buffer[:start]
        header = re.compile(rb"\r?\n\r?\n").search(self._buffer)
        if header is None:
            if len(self._buffer) > _CHUNK:
                del self._buffer[: len(self._mark)]
                raise PictureError(TOO_LARGE, "a part with an endless header")
            return False
        length = re.search(rb"(?i)\ncontent-length:[ \t]*(\d{1,9})[ \t]*\r?\n", self._buffer[: header.end()])
        self._length = int(length[1]) if length else None
        del self._buffer[: header.end()]
        self._in_part = True
        return True


class Http:
    """A network camera; a stream if it sends one, otherwise a request per picture."""

    Settings = HttpSettings

    def __init__(self, name: str, settings: HttpSettings, clock: Clock, since_ns: int) -> None:
        del name, since_ns
        self._settings = settings
        self._clock = clock
        self._response: HTTPResponse | None = None
        self._parts: Multipart | None = None
        self._opener: request.OpenerDirector | None = None

    @property
    def streams(self) -> bool:
        return self._parts is not None

    def open(self) -> None:
        if self._opener is not None:
            return
        # No proxy of the office network stands between a camera and its line.
        doors: list[request.BaseHandler] = [request.ProxyHandler({})]
        if self._settings.user is not None:
            keys = request.HTTPPasswordMgrWithDefaultRealm()
            password = first_line(self._settings.password_file)
            keys.add_password(None, self._settings.source, self._settings.user, password)
            doors += [request.HTTPDigestAuthHandler(keys), request.HTTPBasicAuthHandler(keys)]
        self._opener = request.build_opener(*doors)
        self._response = self._ask()
        boundary = _boundary(self._response.headers)
        self._parts = Multipart(boundary) if boundary is not None else None

    def _ask(self) -> HTTPResponse:
        if self._opener is None:
            raise CameraError(WIRE, "not open")
        try:
            response: HTTPResponse = self._opener.open(
                self._settings.source, timeout=self._settings.deadline * _PATIENCE
            )
            return response
        except HTTPError as error:
            error.close()
            refused = error.code in (401, 403)
            raise CameraError(
                PERMISSION if refused else NOTHING_THERE,
                f"{self._settings.source} answers {error.code}",
                hint="set user and password_file" if refused else "check the path with a browser",
            ) from error
        except (OSError, HTTPException, ValueError) as error:
            raise self._broken(error) from error

    def _broken(self, error: Exception) -> CameraError:
        cause = getattr(error, "reason", error)
        reason = TIMEOUT if isinstance(cause, TimeoutError) else WIRE
        return CameraError(reason, f"{self._settings.source}: {cause or type(cause).__name__}")

    def grab(self) -> Frame | None:
        picture = self._snapshot() if self._parts is None else self._next_part(self._parts)
        return Frame(self._clock.stamp(), encoded=picture)

    def _next_part(self, parts: Multipart) -> bytes:
        while (picture := parts.next()) is None:
            parts.feed(self._read())
        return picture

    def _read(self) -> bytes:
        if self._response is None:
            raise CameraError(WIRE, "not open")
        try:
            data = self._response.read1(_CHUNK)
        except (OSError, HTTPException, ValueError) as error:
            raise self._broken(error) from error
        if not data:
            raise CameraError(WIRE, f"{self._settings.source} ended the stream")
        return data

    def _snapshot(self) -> bytes:
        """One picture: the first came with ``open``, every other is asked for anew."""
        response, self._response = self._response or self._ask(), None
        with response:
            try:
                data = response.read(_LARGEST + 1)
            except (OSError, HTTPException, ValueError) as error:
                raise self._broken(error) from error
            if len(data) > _LARGEST:
                raise PictureError(TOO_LARGE, f"a picture of more than {_LARGEST} bytes")
            kind = response.headers.get_content_type()
        if not kind.startswith("image/") and not data.startswith((b"\xff\xd8", b"\x89PNG")):
            raise PictureError(NOT_A_PICTURE, f"{self._settings.source} sends {kind}", hint="check the path")
        return data

    def remarks(self) -> tuple[str, ...]:
        return ()

    def close(self) -> None:
        if self._response is not None:
            self._response.close()
        self._response = None
        self._parts = None
        self._opener = None


def _boundary(headers: Message) -> bytes | None:
    if headers.get_content_maintype() != "multipart":
        return None
    boundary = headers.get_boundary() or "boundary"
    return boundary.encode("latin-1", "replace")
