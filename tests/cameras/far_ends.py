"""Cameras on the network for tests: small servers on 127.0.0.1 that send what they are told to."""

from __future__ import annotations

import base64
import contextlib
import socket
import struct
import threading
from collections.abc import Callable, Iterator


class Server:
    """One TCP server; every connection is served by ``talk`` in a thread of its own. Ends with the test."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.stop = threading.Event()
        self.connections = 0
        self._open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def talk(self, connection: socket.socket) -> None:
        raise NotImplementedError

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                self.connections += 1
                self._open.append(connection)
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError), connection:
            self.talk(connection)

    def hang_up(self) -> None:
        """Close every connection, as a camera that restarts."""
        for connection in self._open:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self._open.clear()

    def close(self) -> None:
        self.stop.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # or the thread would take one more connection
        self._listener.close()
        self.hang_up()


def read_head(connection: socket.socket) -> str:
    """A request up to its empty line."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        byte = connection.recv(1)
        if not byte:
            raise ConnectionError
        head += byte
    return head.decode()


class HttpCamera(Server):
    """Answers every request with ``answer()``, a sequence of byte strings sent as they come."""

    def __init__(self, answer: Callable[[], Iterator[bytes]], login: str | None = None) -> None:
        self.answer = answer
        self.login = login
        self.requests: list[str] = []
        super().__init__()

    def talk(self, connection: socket.socket) -> None:
        head = read_head(connection)
        self.requests.append(head)
        if self.login is not None and f"Basic {base64.b64encode(self.login.encode()).decode()}" not in head:
            refusal = b'HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic realm="cam"\r\nContent-Length: 0\r\n\r\n'
            connection.sendall(refusal)
            return
        for data in self.answer():
            if self.stop.is_set():
                return
            connection.sendall(data)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/video"


def stream_head(boundary: str = "frame") -> bytes:
    return f"HTTP/1.1 200 OK\r\nContent-Type: multipart/x-mixed-replace; boundary={boundary}\r\n\r\n".encode()


def part(picture: bytes, boundary: str = "frame", length: int | None = None) -> bytes:
    """One part of the stream; ``length``: what it claims, if not the truth."""
    claimed = len(picture) if length is None else length
    return f"--{boundary}\r\nContent-Type: image/jpeg\r\nContent-Length: {claimed}\r\n\r\n".encode() + picture + b"\r\n"


def page(body: bytes, kind: str = "image/jpeg") -> bytes:
    return f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


class RtspCamera(Server):
    """Motion JPEG over RTP (RFC 2435), interleaved in the RTSP connection (RFC 2326, section 10.12)."""

    def __init__(self, pictures: Callable[[], Iterator[bytes | None]], login: str | None = None) -> None:
        """``pictures``: JPEGs to send, 25 per second; None: nothing more comes, the connection stays."""
        self.pictures = pictures
        self.login = login
        super().__init__()

    @property
    def url(self) -> str:
        return f"rtsp://127.0.0.1:{self.port}/stream"

    def talk(self, connection: socket.socket) -> None:
        while True:
            head = read_head(connection)
            method = head.split(" ", 1)[0]
            sequence = next(line.split(":")[1].strip() for line in head.splitlines() if line.startswith("CSeq"))
            status, extra, body = self._reply(method, head)
            fields = f"CSeq: {sequence}\r\nSession: 1\r\n{extra}Content-Length: {len(body)}\r\n\r\n"
            connection.sendall(f"RTSP/1.0 {status}\r\n{fields}{body}".encode())
            if method == "PLAY":
                self._play(connection)

    def _reply(self, method: str, head: str) -> tuple[str, str, str]:
        if self.login and f"Basic {base64.b64encode(self.login.encode()).decode()}" not in head and method != "OPTIONS":
            return "401 Unauthorized", 'WWW-Authenticate: Basic realm="cam"\r\n', ""
        if method == "DESCRIBE":
            body = "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=cam\r\nt=0 0\r\nm=video 0 RTP/AVP 26\r\na=control:track1\r\n"
            return "200 OK", "Content-Type: application/sdp\r\n", body
        if method == "SETUP":
            if "TCP" not in head:
                return "461 Unsupported Transport", "", ""
            return "200 OK", "Transport: RTP/AVP/TCP;unicast;interleaved=0-1\r\n", ""
        return "200 OK", "Public: DESCRIBE, SETUP, PLAY, TEARDOWN\r\n", ""

    def _play(self, connection: socket.socket) -> None:
        number = 0
        for index, picture in enumerate(self.pictures()):
            if picture is None:
                self.stop.wait(60)
                return
            for last, payload in _rtp_jpeg(picture):
                stamp = (index * 3600) & 0xFFFFFFFF
                packet = struct.pack(">BBHII", 0x80, 26 | (0x80 if last else 0), number & 0xFFFF, stamp, 7) + payload
                connection.sendall(struct.pack(">cBH", b"$", 0, len(packet)) + packet)
                number += 1
            if self.stop.wait(0.04):
                return


def _rtp_jpeg(picture: bytes) -> Iterator[tuple[bool, bytes]]:
    """The payloads of one baseline 4:2:0 JPEG with the usual Huffman tables."""
    at, tables, size = 2, b"", (0, 0)
    while picture[at + 1] != 0xDA:
        length = int.from_bytes(picture[at + 2 : at + 4])
        segment = picture[at + 4 : at + 2 + length]
        if picture[at + 1] == 0xDB:
            while segment:
                tables, segment = tables + segment[1:65], segment[65:]
        elif picture[at + 1] == 0xC0:
            size = (int.from_bytes(segment[3:5]), int.from_bytes(segment[1:3]))
        at += 2 + length
    scan = picture[at + 2 + int.from_bytes(picture[at + 2 : at + 4]) : -2]
    for offset in range(0, len(scan), 1200):
        head = struct.pack(">BBHBBBB", 0, offset >> 16, offset & 0xFFFF, 1, 255, size[0] // 8, size[1] // 8)
        if offset == 0:
            head += struct.pack(">BBH", 0, 0, len(tables)) + tables
        yield offset + 1200 >= len(scan), head + scan[offset : offset + 1200]
