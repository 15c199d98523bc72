"""A long life under faults: kills, pauses, cut and dead cables, a broker that restarts, in a seeded order.

    python -m bench.soak_kill --minutes 10 --seed 1

An oracle beside the broker counts. Ends with one JSON object; exit code 1 when anything is missing, invented,
changed, or repeated without saying late, and also when the faults did not bite.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import sys
import tempfile
import time
from pathlib import Path

from tests.brokers import Ear, Mosquitto, Relay, until
from tests.daemon import Daemon, Oracle

BAD = ("missing", "invented", "changed", "unmarked", "disorder")


def kill(daemon: Daemon, _relay: Relay, chance: random.Random) -> None:
    daemon.kill()
    time.sleep(chance.uniform(0, 0.3))
    daemon.start()


def kill_while_starting(daemon: Daemon, relay: Relay, chance: random.Random) -> None:
    kill(daemon, relay, chance)
    time.sleep(chance.uniform(0, 0.8))
    kill(daemon, relay, chance)


def pause(daemon: Daemon, _relay: Relay, chance: random.Random) -> None:
    daemon.send(signal.SIGSTOP)
    time.sleep(chance.uniform(0.5, 8))
    daemon.send(signal.SIGCONT)


def cut(_daemon: Daemon, relay: Relay, chance: random.Random) -> None:
    relay.cut()
    time.sleep(chance.uniform(0, 5))
    relay.mend()


def dead_cable(_daemon: Daemon, relay: Relay, chance: random.Random) -> None:
    relay.go_dead()
    time.sleep(chance.uniform(0.5, 10))
    relay.cut()
    relay.mend()


def kill_during_outage(daemon: Daemon, relay: Relay, chance: random.Random) -> None:
    relay.cut()
    time.sleep(chance.uniform(0, 1))
    kill(daemon, relay, chance)
    time.sleep(chance.uniform(0, 4))
    relay.mend()


def terminate(daemon: Daemon, _relay: Relay, _chance: random.Random) -> None:
    daemon.end()
    daemon.start()


FAULTS = (kill, kill, kill_while_starting, pause, cut, dead_cable, kill_during_outage, terminate)


def soak(minutes: float, seed: int) -> dict[str, object]:
    chance = random.Random(seed)
    folder = Path(tempfile.mkdtemp(prefix="soak-"))
    done: dict[str, int] = {}
    with (
        Mosquitto(folder, "max_queued_messages 0") as broker,
        Ear(broker.port) as ear,
        Relay(broker.port) as relay,
        Daemon(folder, relay.url) as daemon,
    ):
        oracle = Oracle(ear)
        oracle.wait_for(5)
        ends = time.monotonic() + minutes * 60
        while time.monotonic() < ends:
            time.sleep(chance.uniform(0, 2))
            fault = chance.choice(FAULTS)
            done[fault.__name__] = done.get(fault.__name__, 0) + 1
            fault(daemon, relay, chance)
            if chance.random() < 0.8:
                oracle.wait_for(5, 90)
        until(lambda: daemon.waiting() < 20, "the backlog is drained", 120)
        daemon.end()
        left = daemon.waiting()
        found = oracle.judge(daemon.numbered())
    return {"seed": seed, "minutes": minutes, "faults": done, "starts": daemon.starts, "left": left, **found}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    found = soak(options.minutes, options.seed)
    print(json.dumps(found))
    bit = found["repeats"] and found["starts"] != 1
    return 0 if bit and not any(found[name] for name in BAD) else 1


if __name__ == "__main__":
    sys.exit(main())
