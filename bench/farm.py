"""Modbus TCP meters in one process: ``python bench/farm.py BASE_PORT METERS``. Ends when its standard input does."""

import asyncio
import struct
import sys


async def meter(reader, writer):
    """Answer reads of up to 40 registers with changing float32 values."""
    count = 0
    try:
        while True:
            head = await reader.readexactly(12)
            tid, _, _, unit, fc, _, registers = struct.unpack(">HHHBBHH", head)
            count += 1
            values = struct.pack(f">{registers // 2}f", *(count + k * 1.1 for k in range(registers // 2)))
            writer.write(struct.pack(">HHHBBB", tid, 0, 3 + len(values), unit, fc, len(values)) + values)
    except (asyncio.IncompleteReadError, OSError):
        writer.close()


async def main(base, meters):
    for index in range(meters):
        await asyncio.start_server(meter, "127.0.0.1", base + index)
    print("ready", flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), int(sys.argv[2])))
