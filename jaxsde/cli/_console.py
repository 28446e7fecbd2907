"""What commands show: a bar while they run, tables at the end."""

import contextlib
from collections.abc import Callable, Iterator, Sequence

from jaxsde.engine import Progress


@contextlib.contextmanager
def progress_bar() -> Iterator[Callable[[Progress], None]]:
    """A bar with the time left, moved by calls with `Progress`."""
    import rich.progress

    columns = (
        rich.progress.TextColumn("{task.description}"),
        rich.progress.BarColumn(),
        rich.progress.TaskProgressColumn(),
        rich.progress.TimeRemainingColumn(),
    )
    with rich.progress.Progress(*columns, transient=True) as bar:
        task = bar.add_task("compiling", total=None)

        def show(progress: Progress) -> None:
            bar.update(
                task, description="simulating", total=progress.total, completed=progress.done
            )

        yield show


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
