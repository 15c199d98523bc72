"""Random register layouts of meters that nobody has a table of."""

from __future__ import annotations

WORDS = {"u16": 1, "s16": 1, "u32": 2, "s32": 2, "f32": 2, "u64": 4, "s64": 4, "f64": 4}
BASES = (0, 1, 0x100, 256, 300, 1000, 2999, 3000, 3027, 4096, 0x2000, 0x5000, 0x5B00, 19000, 20480, 40000, 50000)


def random_layout(rng):  # noqa: PLR0912 - one choice after the other
    """(layout for the peer, rows that must be found: quantity → row)."""
    style = rng.choice(["f32", "f32", "f32", "int32", "int32", "int16", "mixed"])
    kilo = style == "f32" and rng.random() < 0.3
    kinds = ("voltage", "current", "power", "factor", "frequency", "energy")
    types = dict(zip(kinds, {
        "f32": ("f32",) * 6,
        "int32": ("u32", "u32", "s32", "s16", "u16", "u32"),
        "int16": ("u16", "u16", "s16", "s16", "u16", "u32"),
        "mixed": ("u16", "u32", "s32", "s16", "u16", "u32"),
    }[style], strict=True))  # fmt: skip
    whole = style != "f32"
    amps, watts = rng.choice([(0.001, 0.1), (0.01, 1.0), (0.001, 1.0), (0.01, 0.1)])
    if style == "int16":
        amps, watts = 0.01, 10.0
    gains = {
        "voltage": rng.choice([0.1, 0.01]) if whole else 1.0,
        "current": amps if whole else 1.0,
        "power": watts if whole else 1000.0 if kilo else 1.0,
        "factor": rng.choice([0.001, 0.001, 0.01]) if whole else 1.0,
        "frequency": rng.choice([0.1, 0.01]) if whole else 1.0,
        "energy": rng.choice([10.0, 100.0]) if whole else 1000.0,
    }
    fc = rng.choice([3, 4])
    blocks = [("voltage", "voltage"), ("current", "current"), ("active_power", "power")]
    blocks += [(name, kind) for name, kind, share in (
        ("apparent_power", "power", 0.6), ("reactive_power", "power", 0.7), ("power_factor", "factor", 0.8),
    ) if rng.random() < share]  # fmt: skip
    if not {"apparent_power", "power_factor"} & {name for name, _ in blocks}:
        blocks.append(("power_factor", "factor"))
    if rng.random() < 0.5:
        blocks.insert(1, ("line", "voltage"))
    if rng.random() < 0.3:
        blocks[1:] = rng.sample(blocks[1:], len(blocks) - 1)
        names = [name for name, _ in blocks]
        if "power_factor" not in names and "reactive_power" in names:
            # Nobody could tell the two from each other but by their order.
            active, other = sorted((names.index("active_power"), names.index("reactive_power")))
            blocks[active], blocks[other] = ("active_power", "power"), ("reactive_power", "power")
    at = rng.choice(BASES) if rng.random() < 0.5 else rng.randrange(0, 0xF800)
    rows, wanted, decoys = [], {}, []

    def put(quantity, kind, name):
        nonlocal at
        row = {"quantity": quantity, "at": at, "fc": fc, "type": types[kind], "gain": gains[kind]}
        rows.append(row)
        at += WORDS[row["type"]]
        if name:
            wanted[quantity] = row

    def fill(words):
        nonlocal at
        decoys.append({"fc": fc, "at": at, "words": words})
        at += len(words)

    if rng.random() < 0.5:
        fill([rng.choice([0, 1, 5, 40, 9600, 65535, rng.randrange(65536)]) for _ in range(rng.choice([2, 4, 6]))])
    by_phase = rng.random() < 0.2
    if by_phase:
        for phase in ("l1", "l2", "l3"):
            for name, kind in blocks:
                if name != "line":
                    put(f"{name}_{phase}", kind, name=True)
    else:
        for name, kind in blocks:
            if name == "line":
                for pair in ("l1_l2", "l2_l3", "l3_l1"):
                    put(f"voltage_{pair}", kind, name=False)
            else:
                for phase in ("l1", "l2", "l3"):
                    put(f"{name}_{phase}", kind, name=True)
                if name.endswith("power") and rng.random() < 0.7:
                    put(name, kind, name="active" in name)
            if rng.random() < 0.25:
                fill([0] * rng.choice([2, 4, 8]))
    put("frequency", "frequency", name=True)
    for quantity in ("energy_import", "energy_export"):
        put(quantity, "energy", name=False)
    fill([rng.randrange(2000) for _ in range(rng.choice([6, 10, 20]))])
    layout = {
        "unit": 1, "rows": rows, "decoys": decoys, "max": rng.choice([125, 125, 64, 50]),
        "strict": style == "f32" and rng.random() < 0.3, "fcs": rng.choice([[3, 4], [fc]]),
        "word_order": rng.choice(["big", "big", "little"]), "byte_order": "big" if rng.random() < 0.9 else "little",
    }  # fmt: skip
    return layout, wanted
