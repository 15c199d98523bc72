"""A small broker in a process of its own: ``python -m edge_agent.demo.broker PORT DOOR``. An outage is a real one.

Listeners come in at PORT. The agent comes in at DOOR, which opens once the parent writes a line: so that
nobody publishes before somebody listens, which the broker would take and nobody would have.
The only file that knows amqtt.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import sys

from amqtt.broker import Broker


async def serve(port: int, door: int) -> None:
    """Listen on 127.0.0.1 until SIGTERM, or until the parent is gone."""
    broker = Broker(
        {
            "listeners": {"default": {"type": "tcp", "bind": f"127.0.0.1:{port}"}},
            "plugins": {"amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}},
        }
    )
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    await broker.start()
    parent = asyncio.create_task(_follow_parent(port, door, ended))
    await ended.wait()
    parent.cancel()
    await broker.shutdown()


async def _follow_parent(port: int, door: int, ended: asyncio.Event) -> None:
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    if await reader.readline():
        async with await asyncio.start_server(lambda *agent: _through(port, *agent), "127.0.0.1", door):
            await reader.read()
    ended.set()


async def _through(port: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", port)
    await asyncio.gather(_pump(reader, inner_writer), _pump(inner_reader, writer))


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.close()


if __name__ == "__main__":
    logging.disable(logging.CRITICAL)
    asyncio.run(serve(int(sys.argv[1]), int(sys.argv[2])))
