"""What commands show: a bar while they run, tables at the end."""

import contextlib
import sys
from collections.abc import Callable, Iterator, Sequence

from jaxsde.engine import Progress

LOSSES = ("optimizer.loss", "sde.loss")


@contextlib.contextmanager
def progress_bar(what: str = "") -> Iterator[Callable[[Progress], None]]:
    """A bar with the pace, the losses so far and the time left, moved by calls with `Progress`."""
    import rich.console
    import rich.progress

    console = rich.console.Console()
    columns = (
        rich.progress.TextColumn("{task.description}"),
        rich.progress.BarColumn(bar_width=12),
        rich.progress.TaskProgressColumn(),
        rich.progress.TextColumn("{task.fields[status]}"),
        rich.progress.TimeRemainingColumn(),
    )
    with rich.progress.Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(f"compiling {what}".rstrip(), total=None, status="")

        def show(progress: Progress) -> None:
            bar.update(
                task, description=f"simulating {what}".rstrip(), total=progress.total,
                completed=progress.done, status=status(progress, bar.tasks[0].speed),
            )  # fmt: skip

        yield show


def status(progress: Progress, speed: float | None) -> str:
    """Path-steps a second, of late if that is known, and the losses so far."""
    rate = progress.rate if speed is None else speed
    losses = [f"{progress.means[name]:.3g}" for name in LOSSES if name in progress.means]
    loss = [f"loss {' | '.join(losses)}"] if losses else []
    return ", ".join([f"{rate:,.0f} path-steps/s", *loss])


def peak_memory() -> int | None:
    """The most bytes of memory this process ever held; None where the system does not tell."""
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def say(*lines: str, wrap: bool = False) -> None:
    """Prints lines, broken at words to fit the terminal if they are to be wrapped."""
    import rich.console

    console = rich.console.Console(highlight=False, markup=False)
    for line in lines:
        console.print(line, soft_wrap=not wrap)


def table(columns: Sequence[tuple[str, Sequence[str]]]) -> None:
    """Prints columns of (header, cells), as wide as they are."""
    import rich.box
    import rich.console
    import rich.table

    drawn = rich.table.Table(box=rich.box.SIMPLE_HEAD, padding=(0, 1), collapse_padding=True)
    for header, _ in columns:
        drawn.add_column(header, justify="right", no_wrap=True)
    for cells in zip(*[cells for _, cells in columns], strict=True):
        drawn.add_row(*cells)
    wide = rich.console.Console(width=1000).measure(drawn).maximum
    width = max(rich.console.Console().width, wide)
    rich.console.Console(width=width).print(drawn)
