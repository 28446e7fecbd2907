"""Checkpoints: a run's state between blocks, in one NumPy archive that is whole or absent."""

import json
import os
import time
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from jaxsde import _checks, _files

FORMAT = "jaxsde checkpoint 1"
PAUSE = 1.0  # seconds between writes, at least
SHARE = 0.05  # of the time, at most, goes into writing


class Checkpoint:
    """A file that holds how far one run is.

    Args:
        path: of the file.
        settings: what makes the run; a file with others is refused. JSON values by name.

    Raises:
        InputError: the path cannot be a file's.
    """

    def __init__(self, path: str | os.PathLike, settings: dict[str, Any]):
        self.path = Path(path)
        self.settings = json.loads(json.dumps(settings))
        self.next = 0.0
        if self.path.is_dir():
            raise _checks.InputError(f"the checkpoint {self.path} is a folder, not a file")
        try:
            _files.sweep(self.path)
        except OSError as error:
            raise _checks.InputError(
                f"no checkpoint can be written at {self.path}: {error}"
            ) from error

    def load(self) -> dict[str, np.ndarray] | None:
        """What was saved last; nothing if there is no file yet.

        Raises:
            InputError: the file is damaged, no checkpoint, or another run's.
        """
        if not self.path.exists():
            return None
        other = f"remove {self.path} to start anew, or name another file"
        try:
            with self.path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
                arrays = {name: archive[name] for name in archive.files}
            header = json.loads(str(arrays.pop("header")))
            made, settings = header["format"], header["settings"]
        except (OSError, EOFError, KeyError, TypeError, ValueError, zipfile.BadZipFile) as error:
            raise _checks.InputError(
                f"{self.path} is damaged or no checkpoint of jaxsde: {other}"
            ) from error
        if made != FORMAT:
            raise _checks.InputError(f"{self.path} is a {made!r}, not a {FORMAT!r}: {other}")
        for name in self.settings | settings:
            if settings.get(name) != self.settings.get(name):
                raise _checks.InputError(
                    f"{self.path} is another run's: {_difference(name, settings, self.settings)}; "
                    f"{other}"
                )
        return arrays

    def due(self) -> bool:
        """Whether it is time to save."""
        return time.monotonic() >= self.next

    def save(self, arrays: dict[str, np.ndarray]) -> None:
        """Replaces the file."""
        began = time.monotonic()
        header = json.dumps({"format": FORMAT, "settings": self.settings})
        with _files.atomic(self.path) as temporary, temporary.open("wb") as file:
            np.savez(file, **(arrays | {"header": np.array(header)}))  # pyright: ignore[reportArgumentType]
        took = time.monotonic() - began
        self.next = time.monotonic() + max(PAUSE, took / SHARE)


def _difference(name: str, theirs: dict[str, Any], ours: dict[str, Any]) -> str:
    texts = [str(settings.get(name, "not set")) for settings in (theirs, ours)]
    if max(map(len, texts)) > 60:
        return f"its {name} differs from this one's"
    return f"its {name} is {texts[0]}, this one's {texts[1]}"
