"""The command `jaxsde`: one module a part."""

import contextlib
import io
import re
import sys
import time
import warnings
from collections.abc import Callable
from typing import Any

from jaxsde import _checks
from jaxsde.cli._console import peak_memory
from jaxsde.cli._options import Options
from jaxsde.cli._stationary import Stationary, stationary
from jaxsde.cli._sweep import Sweep, sweep
from jaxsde.cli._track import Track, track
from jaxsde.cli._weak_order import WeakOrder, weak_order

COMMANDS: dict[str, tuple[type[Options], Callable[[Any], None]]] = {
    "track": (Track, track),
    "weak-order": (WeakOrder, weak_order),
    "stationary": (Stationary, stationary),
    "sweep": (Sweep, sweep),
}


def main(arguments: list[str] | None = None) -> None:
    """Runs the command; bad input ends with one line and exit code 2."""
    began = time.monotonic()
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _warn
            options = _parse(arguments)
            run = next(run for kind, run in COMMANDS.values() if type(options) is kind)
            run(options)
            print(_cost(time.monotonic() - began), file=sys.stderr)
    except (_checks.InputError, ImportError) as error:
        print(f"jaxsde: error: {error}", file=sys.stderr)
        sys.exit(2)


def _cost(seconds: float) -> str:
    peak = peak_memory()
    memory = "" if peak is None else f", {peak / 2**20:,.0f} MiB of memory at its peak"
    return f"took {seconds:,.0f} s{memory}"


def _warn(message: Warning | str, *_: object) -> None:
    print(f"jaxsde: warning: {message}", file=sys.stderr)


def _parse(arguments: list[str] | None) -> Options:
    """The options; what the parser says of wrong ones becomes one line."""
    tyro = _checks.extra("tyro", "cli")
    _checks.extra("rich", "cli")
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            return tyro.extras.subcommand_cli_from_dict(
                {name: kind for name, (kind, _) in COMMANDS.items()},
                prog="jaxsde",
                description="Does this SDE describe this optimizer?",
                args=arguments,
                config=(tyro.conf.PositionalRequiredArgs,),
            )
    except SystemExit as end:
        if not end.code:
            raise
        words = re.sub(r"[─│╭╮╰╯]", " ", complaint.getvalue()).split()
        text = " ".join(words).removeprefix("Parsing error ").removeprefix("Value error ")
        raise _checks.InputError(text or "the options cannot be read; see --help") from None
