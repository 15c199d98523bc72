"""The bare loop: pymodbus, json and paho, nothing kept: ``python bench/bare_loop.py BASE_PORT METERS MQTT_PORT``."""

import asyncio
import json
import struct
import sys
import time

import paho.mqtt.client as mqtt
from pymodbus.client import AsyncModbusTcpClient


async def poll(client, publish, topic):
    await client.connect()
    due = time.monotonic()
    while True:
        reply = await client.read_input_registers(0, count=40, device_id=1)
        if not reply.isError():
            values = struct.unpack(">20f", struct.pack(">40H", *reply.registers))
            publish(topic, json.dumps({"ts": time.time_ns() // 1_000_000, "v": values}), qos=1)
        due += 1.0
        await asyncio.sleep(max(0.0, due - time.monotonic()))


async def main(base, meters, port):
    broker = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id="bare-loop")
    broker.max_inflight_messages_set(1000)
    broker.connect("127.0.0.1", port)
    broker.loop_start()
    clients = [AsyncModbusTcpClient("127.0.0.1", port=base + index, timeout=1) for index in range(meters)]
    await asyncio.gather(*(poll(client, broker.publish, f"bare/{n}") for n, client in enumerate(clients)))


if __name__ == "__main__":
    asyncio.run(main(*map(int, sys.argv[1:4])))
