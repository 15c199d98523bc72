"""``edge-agent calibrate model``: which variant of a bundle is the fastest on this board, and decides as it should?"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Final

import typer

from edge_agent import readable
from edge_agent.clock import SystemClock, iso
from edge_agent.commands.bundles import TrustUnsigned, bundles_of_daemon, find_bundle, state_of
from edge_agent.commands.options import ConfigFile, Json, columns, plain, print_json, screen
from edge_agent.errors import EdgeAgentError, ModelError

if TYPE_CHECKING:
    from models.bundle import Bundle
    from models.choice import Choice, Measured

_THREADS: Final = (1, 2, 4)


def register(app: typer.Typer) -> None:
    @app.command(epilog="Example: edge-agent calibrate model pitting")
    def model(
        bundle: Annotated[str, typer.Argument(help="A bundle (folder or zip), or the name of an installed one.")],
        judgements: Annotated[int, typer.Option(min=10, max=100_000, help="How many are timed, at least.")] = 300,
        trust_unsigned: TrustUnsigned = False,
        config: ConfigFile = None,
        json_: Json = False,
    ) -> int:
        """Measure each variant on 1, 2 and 4 threads: time, memory, golden decisions. The best one is used from now on.

        Exit code 1: no variant decides as it should.
        """
        found, _ = find_bundle(bundle, config, trust_unsigned=trust_unsigned)
        from models import choice  # noqa: PLC0415 - only who deals with bundles pays for it

        measured = []
        for each in _measure(found, judgements):
            measured.append(each)
            if not json_:
                sys.stderr.write(f"{each.variant}, {each.threads} threads: {each.wrong or f'{each.p50_ms:g} ms'}\n")
        try:
            best = choice.choose(measured)
        except ModelError as error:
            _say(found, choice.Choice(measured=tuple(measured)), None, as_json=json_)
            sys.stderr.write(f"{error}\n")
            return 1
        at = iso(SystemClock().stamp().wall_ms)
        best = best.model_copy(update={"sha256": found.sha256, "at": at})
        state = state_of(config)
        kept = None
        if state is not None:
            try:
                choice.keep(state, found.card.name, best)
            except OSError as error:
                raise EdgeAgentError(f"cannot keep what was measured: {error}") from error
            kept = str(choice.path_of(state, found.card.name))
            bundles_of_daemon(state, changed=True)
        _say(found, best, kept, as_json=json_)
        return 0


def _measure(found: Bundle, judgements: int) -> Iterator[Measured]:
    """One after the other, so that they do not slow each other down."""
    from models import session, trial  # noqa: PLC0415 - as above
    from models.choice import Measured  # noqa: PLC0415 - as above

    cores = os.process_cpu_count() if hasattr(os, "process_cpu_count") else len(os.sched_getaffinity(0))
    for file in found.card.files:
        for threads in (count for count in _THREADS if count <= max(1, cores or 1)):
            nothing = {"variant": file.variant, "threads": threads, "p50_ms": 0, "p95_ms": 0, "rss_bytes": 0, "same": 0}
            if not session.is_installed(file.format):
                yield Measured.model_validate({**nothing, "wrong": f"no runtime for {file.format} is installed"})
                break
            try:
                proof = trial.prove(found, file.variant, threads, judgements=judgements)
            except ModelError as error:
                yield Measured.model_validate({**nothing, "wrong": str(error)})
                continue
            wrong = "" if proof.same == 1.0 else f"decides {1 - proof.same:.1%} of the golden samples wrongly"
            yield Measured(
                variant=file.variant,
                threads=threads,
                p50_ms=proof.p50_ms,
                p95_ms=proof.p95_ms,
                rss_bytes=proof.rss_bytes,
                same=proof.same,
                wrong=wrong,
            )


def _say(found: Bundle, best: Choice, kept: str | None, *, as_json: bool) -> None:
    card = found.card
    if as_json:
        print_json({"bundle": card.name, "version": card.version, **best.model_dump(), "kept": kept})
        return
    table = columns("variant", "threads", "half take", "95 % take", "memory", "golden decisions", "")
    for each in best.measured:
        mark = "[green]chosen[/]" if (each.variant, each.threads) == (best.variant, best.threads) else ""
        times = (f"{each.p50_ms:.3f} ms", f"{each.p95_ms:.3f} ms", readable.size(each.rss_bytes), f"{each.same:.1%}")
        cells = times if each.rss_bytes else ("", "", "", "")
        table.add_row(each.variant, str(each.threads), *cells, mark or plain(each.wrong))
    screen().print(table)
    if best.variant is not None:
        print(f"{card.name}@{card.version}: {best.variant} decides, {best.why}")
        print(f"kept in {kept}" if kept else "there is no config here: nothing was kept")
