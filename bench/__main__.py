"""The agent and a bare loop on the same meters at the same time: ``python -m bench [--meters 100] [--seconds 60]``.

Prints processor time, memory and the ratio as one JSON line. Absolute times mean little on a shared
machine; both run at once, so the ratio does.
"""

import argparse
import contextlib
import json
import socket
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

from bench.adapter import EdgeAgent

HERE = Path(__file__).parent


def free_ports(count):
    """``count`` ports in a row that nobody has."""
    for base in range(21000, 60000, count + 7):
        with contextlib.ExitStack() as stack:
            try:
                for port in range(base, base + count):
                    stack.enter_context(socket.socket()).bind(("127.0.0.1", port))
            except OSError:
                continue
            return base
    raise SystemExit("no free ports")


def cpu_s(pid):
    """Processor seconds of every thread so far, from the scheduler."""
    return sum(int(task.read_text().split()[0]) for task in Path(f"/proc/{pid}/task").glob("*/schedstat")) / 1e9


def rss_mb(pid):
    status = Path(f"/proc/{pid}/status").read_text()
    return round(int(status.split("VmRSS:")[1].split()[0]) / 1024, 1)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--meters", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=60)
    options = parser.parse_args()
    base = free_ports(options.meters + 1)
    broker_port = base + options.meters
    pause = threading.Event()
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:

        def start(*argv, **more):
            process = subprocess.Popen(argv, stdin=subprocess.PIPE, cwd=folder, **more)
            stack.callback(process.wait, 15)
            stack.callback(process.terminate)
            return process

        mosquitto = Path(folder, "mosquitto.conf")
        mosquitto.write_text(f"listener {broker_port} 127.0.0.1\nallow_anonymous true\nmax_inflight_messages 0\n")
        start("/usr/sbin/mosquitto", "-c", str(mosquitto), stderr=subprocess.DEVNULL)
        farm = start(sys.executable, str(HERE / "farm.py"), str(base), str(options.meters), stdout=subprocess.PIPE)
        farm.stdout.readline()
        argv, _, _ = EdgeAgent().prepare(folder, options.meters, lambda index: (base + index, 1), broker_port, 1.0)
        agent = start(*argv, stderr=subprocess.DEVNULL)
        bare = start(sys.executable, str(HERE / "bare_loop.py"), str(base), str(options.meters), str(broker_port))
        pause.wait(8)
        before = cpu_s(agent.pid), cpu_s(bare.pid)
        pause.wait(options.seconds)
        used = [round((after - began) / options.seconds * 60, 3) for after, began in
                zip((cpu_s(agent.pid), cpu_s(bare.pid)), before, strict=True)]  # fmt: skip
        found = {
            "meters": options.meters,
            "agent_cpu_s_per_60": used[0],
            "bare_cpu_s_per_60": used[1],
            "ratio": round(used[0] / used[1], 2),
            "agent_rss_mb": rss_mb(agent.pid),
            "bare_rss_mb": rss_mb(bare.pid),
        }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
