"""``edge-agent probe`` without a kind of bus: what is plugged in."""

from __future__ import annotations

from edge_agent.commands.options import columns, print_json, screen


def list_ports(*, as_json: bool) -> int:
    """Serial ports, I2C buses and cameras by the names that survive re-plugging."""
    from drivers.i2c import numbers  # noqa: PLC0415
    from drivers.ports import cameras, serial_ports  # noqa: PLC0415

    answer = {
        "serial": [place._asdict() for place in serial_ports()],
        "i2c": numbers(),
        "cameras": [place._asdict() for place in cameras()],
    }
    if as_json:
        print_json(answer)
        return 0
    table = columns("what", "name for the config", "is now")
    for kind, places in (("serial port", serial_ports()), ("camera", cameras())):
        for place in places:
            table.add_row(kind, place.name, place.device)
    for number in numbers():
        table.add_row("I2C bus", f"number: {number}", f"/dev/i2c-{number}")
    if table.row_count:
        screen().print(table)
    else:
        print("no serial port, I2C bus or camera is there")
    return 0
