"""Data for networks: digits that ship with scikit-learn, files on disk, and text.

Images are `(n, h, w, c)`, channels last, floats in [0, 1] in the precision that JAX is set to;
labels are `(n,)` of int32. Nothing is downloaded, unless a loader is given the name of a data set
on the Hugging Face hub.
"""

import gzip
import math
import zlib
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from jaxsde import _checks

UNKNOWN = "\N{REPLACEMENT CHARACTER}"
PARTS = {"train": "train", "test": "t10k"}  # of MNIST's files
BATCHES = {"train": [f"data_batch_{k}.bin" for k in range(1, 6)], "test": ["test_batch.bin"]}
RECORDS = 10_000  # images in each file of CIFAR-10


class Images(NamedTuple):
    """Images `(n, h, w, c)` in [0, 1] and their labels `(n,)`."""

    images: Float[np.ndarray, "n h w c"]
    labels: Int[np.ndarray, " n"]


class Characters(NamedTuple):
    """Symbols, those that follow them, and the alphabet: symbol k is alphabet[k]."""

    inputs: Int[np.ndarray, "n T"]
    targets: Int[np.ndarray, "n T"]
    alphabet: str


def digits() -> Images:
    """The 1,797 handwritten digits that ship with scikit-learn, `(1797, 8, 8, 1)`.

    The classes are mixed, so the first so many are a sample of all ten.

    Raises:
        ImportError: scikit-learn is missing (pip install 'jaxsde[data]').
    """
    pixels, labels = _checks.extra("sklearn.datasets", "data").load_digits(return_X_y=True)
    return as_images(pixels.reshape(-1, 8, 8, 1), labels, 16)


def mnist(
    path: str | Path | None = None, split: str = "train", *, hub: str | None = None
) -> Images:
    """MNIST, `(60000, 28, 28, 1)` for training and `(10000, 28, 28, 1)` for testing.

    Args:
        path: a folder with the four files that MNIST is published as, train-images-idx3-ubyte,
            train-labels-idx1-ubyte and the same of t10k, as they are or as .gz. Or a folder of the
            `datasets` library, saved by `save_to_disk` or holding Parquet files, with columns
            image and label.
        split: "train" or "test".
        hub: instead of a path, a name on the Hugging Face hub, such as "ylecun/mnist". This
            downloads.

    Returns:
        `Images`. Other data of the same format, such as Fashion-MNIST, are read too.

    Raises:
        InputError: neither or both of path and hub, an unknown split, or files that are missing,
            cut short or something else.
        ImportError: `datasets` is needed and missing (pip install 'jaxsde[hub]').
    """
    folder = source(path, split, hub)
    if folder is None or of_datasets(folder):
        return images_of(table(folder, split, hub), (28, 28, 1))
    pixels_file = idx_file(folder, f"{PARTS[split]}-images-idx3-ubyte")
    labels_file = idx_file(folder, f"{PARTS[split]}-labels-idx1-ubyte")
    pixels, labels = read_idx(pixels_file, 3), read_idx(labels_file, 1)
    if pixels.shape[1:] != (28, 28):
        raise _checks.InputError(f"{pixels_file} must hold (n, 28, 28) bytes, got {pixels.shape}")
    if len(pixels) != len(labels):
        raise _checks.InputError(
            f"{labels_file} holds {len(labels)} labels for the {len(pixels)} images of "
            f"{pixels_file.name}"
        )
    check_labels(labels_file, labels)
    return as_images(pixels[..., None], labels, 255)


def cifar10(
    path: str | Path | None = None, split: str = "train", *, hub: str | None = None
) -> Images:
    """CIFAR-10, `(50000, 32, 32, 3)` for training and `(10000, 32, 32, 3)` for testing.

    Args:
        path: a folder with the binary version, data_batch_1.bin ... data_batch_5.bin and
            test_batch.bin. Or a folder of the `datasets` library, saved by `save_to_disk` or
            holding Parquet files, with columns img (or image) and label.
        split: "train" or "test".
        hub: instead of a path, a name on the Hugging Face hub, such as "uoft-cs/cifar10". This
            downloads.

    Returns:
        `Images`.

    Raises:
        InputError: neither or both of path and hub, an unknown split, or files that are missing,
            cut short or something else.
        ImportError: `datasets` is needed and missing (pip install 'jaxsde[hub]').
    """
    folder = source(path, split, hub)
    if folder is None or of_datasets(folder):
        return images_of(table(folder, split, hub), (32, 32, 3))
    batches = [read_cifar(folder / name) for name in BATCHES[split]]
    pixels, labels = (np.concatenate(own) for own in zip(*batches, strict=True))
    return as_images(pixels, labels, 255)


def shakespeare(
    path: str | Path | None = None, split: str = "train", *, hub: str | None = None
) -> str:
    """Tiny Shakespeare, or any other text.

    Args:
        path: a text file in UTF-8, all of which is read. Or a folder of the `datasets` library,
            saved by `save_to_disk` or holding Parquet files, with a column text, whose rows are
            joined as lines.
        split: "train" or "test", of such a folder or of the hub.
        hub: instead of a path, a name on the Hugging Face hub. This downloads.

    Raises:
        InputError: neither or both of path and hub, an unknown split, a file that is missing or no
            text, or a folder without such rows.
        ImportError: `datasets` is needed and missing (pip install 'jaxsde[hub]').
    """
    file = source(path, split, hub)
    if file is None or file.is_dir():
        return "\n".join(column(table(file, split, hub), "text"))
    try:
        return file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise _checks.InputError(f"{file} is no text in UTF-8: {error}") from error


def python_text() -> str:
    """The topics of Python's own help in alphabetical order, in lower case.

    Half a million characters of English and code. They differ a little between Python's versions.

    Raises:
        ImportError: this Python came without pydoc_data.
    """
    try:
        from pydoc_data.topics import topics
    except ImportError as error:
        raise ImportError(
            "this Python came without pydoc_data, its help; take a text of your own"
        ) from error
    return "".join(topics[name] for name in sorted(topics)).lower()


def characters(text: str, length: int = 32, sequences: int = 256, symbols: int = 65) -> Characters:
    """Sequences of a text's characters, each with the characters that follow.

    With s = ⌊(characters - 1)/n⌋, sequence i is T characters from s i on, and its targets are the
    T from s i + 1 on. So sequences do not overlap and are spread over the whole text.

    Args:
        text: what to cut up.
        length: T.
        sequences: n.
        symbols: the most symbols an alphabet may have; tiny Shakespeare has 65 characters. Of a
            text with more, the symbols - 1 most frequent are kept, and all others become one, �.

    Returns:
        Inputs and targets `(n, T)` of int32, and the alphabet, sorted but for � at its end.

    Raises:
        InputError: a text with fewer than n T + 1 characters, or an argument out of its range.
    """
    n, T = _checks.at_least("sequences", sequences, 1), _checks.at_least("length", length, 1)
    symbols = _checks.at_least("symbols", symbols, 2)
    if not isinstance(text, str):
        raise _checks.InputError(f"text must be a string, got {type(text).__name__}")
    if len(text) < n * T + 1:
        raise _checks.InputError(
            f"{n} sequences of {T} characters need a text of {n * T + 1} or more, got {len(text)}"
        )
    alphabet = alphabet_of(text, symbols)
    number = {character: k for k, character in enumerate(alphabet)}
    codes = np.array([number.get(character, len(alphabet) - 1) for character in text], np.int32)
    stride = (len(text) - 1) // n
    rows = stride * np.arange(n)[:, None] + np.arange(T)
    return Characters(codes[rows], codes[rows + 1], alphabet)


def alphabet_of(text: str, symbols: int) -> str:
    """The characters sorted; if there are too many, the most frequent and �."""
    frequency = Counter(text)
    if len(frequency) <= symbols:
        return "".join(sorted(frequency))
    del frequency[UNKNOWN]
    frequent = sorted(frequency, key=lambda character: (-frequency[character], character))
    return "".join(sorted(frequent[: symbols - 1])) + UNKNOWN


def as_images(pixels: np.ndarray, labels: np.ndarray, white: int) -> Images:
    """Pixels in 0 ... white as floats in [0, 1]."""
    dtype = jnp.result_type(float)
    return Images(pixels.astype(dtype) / dtype.type(white), labels.astype(np.int32))


def source(path: str | Path | None, split: str, hub: str | None) -> Path | None:
    """The path, or None for the hub; refuses what is neither, both, or not there."""
    _checks.known("split", split, PARTS)
    if (path is None) == (hub is None):
        raise _checks.InputError(
            "give either the path of a data set on disk, or hub=, a name on the Hugging Face hub"
        )
    if path is None:
        return None
    if not Path(path).exists():
        raise _checks.InputError(f"there is no {path}")
    return Path(path)


def idx_file(folder: Path, name: str) -> Path:
    """The file of that name or of that name and .gz."""
    for file in (folder / name, folder / f"{name}.gz"):
        if file.is_file():
            return file
    raise _checks.InputError(
        f"{folder} must hold {name} or {name}.gz, or be a folder of the datasets library"
    )


def read_idx(file: Path, axes: int) -> np.ndarray:
    """The bytes of an IDX file: 0, 0, 8, the number of axes, big-endian sizes, then the values."""
    data = file.read_bytes()
    if file.suffix == ".gz":
        try:
            data = gzip.decompress(data)
        except (OSError, EOFError, zlib.error) as error:
            raise _checks.InputError(f"{file} is no complete gzip file: {error}") from error
    head = 4 + 4 * axes
    if len(data) < head or data[:4] != bytes([0, 0, 8, axes]):
        raise _checks.InputError(
            f"{file} must start with the magic number 0x{0x800 + axes:08x} of bytes in {axes} axes "
            f"and {axes} sizes, got 0x{data[:head].hex()}"
        )
    shape = tuple(np.frombuffer(data, ">u4", axes, 4).tolist())
    if math.prod(shape) == 0 or len(data) - head != math.prod(shape):
        raise _checks.InputError(
            f"{file} must hold {math.prod(shape)} values, at least 1, for its sizes {shape}, "
            f"got {len(data) - head}"
        )
    return np.frombuffer(data, np.uint8, offset=head).reshape(shape)


def read_cifar(file: Path) -> tuple[np.ndarray, np.ndarray]:
    """10,000 records: a label, then 32 x 32 bytes of red, of green and of blue."""
    if not file.is_file():
        raise _checks.InputError(
            f"there is no {file}: a folder must hold the binary version of CIFAR-10, or be one of "
            "the datasets library"
        )
    data, size = np.fromfile(file, np.uint8), RECORDS * 3073
    if data.size != size:
        raise _checks.InputError(
            f"{file} must hold {RECORDS} records of 3073 bytes, {size} in all, got {data.size}"
        )
    records = data.reshape(RECORDS, 3073)
    check_labels(file, records[:, 0])
    return records[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), records[:, 0]


def check_labels(where: Any, labels: np.ndarray) -> None:
    """Refuses labels other than 0 ... 9."""
    if not np.issubdtype(labels.dtype, np.integer) or labels.min() < 0 or labels.max() > 9:
        raise _checks.InputError(
            f"labels of {where} must be whole numbers in 0 ... 9, got {labels.min()} ... "
            f"{labels.max()} of {labels.dtype}"
        )


def of_datasets(folder: Path) -> bool:
    """Whether the `datasets` library reads this folder."""
    return is_saved(folder) or any(folder.rglob("*.parquet"))


def is_saved(folder: Path) -> bool:
    """Whether `save_to_disk` of the `datasets` library made it."""
    return any((folder / name).is_file() for name in ("dataset_dict.json", "state.json"))


def table(folder: Path | None, split: str, hub: str | None) -> Any:
    """That split of a folder or of a name on the hub, by the `datasets` library."""
    datasets = _checks.extra("datasets", "hub")
    if folder is None:
        return datasets.load_dataset(hub, split=split)
    try:
        if not is_saved(folder):
            return datasets.load_dataset(str(folder), split=split)
        saved = datasets.load_from_disk(str(folder))
        rows = saved[split] if isinstance(saved, dict) else saved
    except Exception as error:
        raise _checks.InputError(
            f"the datasets library reads no split {split!r} from {folder}: {error}"
        ) from error
    if not str(rows.split or split).startswith(split):
        raise _checks.InputError(f"{folder} holds the split {rows.split}, not {split}")
    return rows


def column(rows: Any, *names: str) -> Any:
    """The first column with one of these names."""
    for name in names:
        if name in rows.column_names:
            return rows.select_columns(name)[:][name]
    raise _checks.InputError(
        f"the data set must have a column {' or '.join(names)}, got {rows.column_names}"
    )


def images_of(rows: Any, shape: tuple[int, int, int]) -> Images:
    """The images and labels of a table; the images are bytes of that shape."""
    rows = rows.with_format("numpy")
    pixels, labels = column(rows, "image", "img"), column(rows, "label")
    if pixels.shape not in [(len(labels), *shape), (len(labels), *shape[:-1])] or len(labels) == 0:
        raise _checks.InputError(
            f"the data set must hold (n, {', '.join(map(str, shape))}) bytes, got {pixels.shape}"
        )
    if not np.issubdtype(pixels.dtype, np.integer) or pixels.min() < 0 or pixels.max() > 255:
        raise _checks.InputError(
            f"images must be whole numbers in 0 ... 255, got {pixels.min()} ... {pixels.max()} "
            f"of {pixels.dtype}"
        )
    check_labels("column label", labels)
    return as_images(pixels.reshape(-1, *shape), labels, 255)
