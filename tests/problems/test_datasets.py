import builtins
import gzip
import struct
import sys

import numpy as np
import pytest

from jaxsde import InputError
from jaxsde.problems import characters, cifar10, digits, mnist, python_text, shakespeare
from jaxsde.problems import datasets as loaders

RNG = np.random.default_rng(8)
PIXELS = RNG.integers(0, 256, (5, 28, 28), dtype=np.uint8)
COLORS = RNG.integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
LABELS = np.array([3, 9, 0, 1, 1], np.uint8)
PLAY = "to be, or not to be,\nthat is the question"


def idx(values, magic=None):
    """The published format: 0, 0, 8 for bytes, the number of axes, then big-endian sizes."""
    magic = 0x800 + values.ndim if magic is None else magic
    return struct.pack(f">{1 + values.ndim}I", magic, *values.shape) + values.tobytes()


def write_mnist(folder, part="train", images=None, labels=None, zipped=False):
    folder.mkdir(exist_ok=True)
    for kind, data in (
        ("images-idx3", idx(PIXELS) if images is None else images),
        ("labels-idx1", idx(LABELS) if labels is None else labels),
    ):
        name = f"{part}-{kind}-ubyte"
        (folder / (f"{name}.gz" if zipped else name)).write_bytes(
            gzip.compress(data) if zipped else data
        )
    return folder


def cifar(pixels, labels):
    """A label, then all of red, all of green, all of blue, row by row."""
    return b"".join(
        bytes([label]) + b"".join(image[..., c].tobytes() for c in range(3))
        for image, label in zip(pixels, labels, strict=True)
    )


@pytest.fixture
def three_records(monkeypatch):
    monkeypatch.setattr(loaders, "RECORDS", 3)


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """The `datasets` library, its cache in the test's folder, and offline."""
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    datasets.disable_progress_bars()
    return datasets


def images_table(datasets, pixels=PIXELS, labels=LABELS, image="image", **names):
    from PIL import Image

    columns = {image: [Image.fromarray(one) for one in pixels], "label": labels.tolist()} | names
    features = {image: datasets.Image(), "label": datasets.Value("int64")}
    return datasets.Dataset.from_dict(columns, features=datasets.Features(features))


def check_images(data, pixels, labels, precision="float32"):
    n = len(pixels)
    assert data.images.shape == (n, *pixels.shape[1:3], 1 if pixels.ndim == 3 else 3)
    assert data.images.dtype == precision
    assert data.labels.dtype == np.int32
    np.testing.assert_array_equal(
        data.images.reshape(pixels.shape), (pixels / 255).astype(precision)
    )
    np.testing.assert_array_equal(data.labels, labels)


def test_digits_are_scaled_and_mixed(precision):
    images, labels = digits()
    assert images.shape == (1797, 8, 8, 1)
    assert (images.dtype, labels.dtype) == (precision, np.int32)
    assert (images.min(), images.max()) == (0, 1)
    zero = [[0, 0, 5, 13, 9, 1, 0, 0], [0, 0, 13, 15, 10, 15, 5, 0]]  # the first digit's first rows
    np.testing.assert_array_equal(images[0, :2, :, 0] * 16, zero)
    np.testing.assert_array_equal(labels[:10], np.arange(10))
    for first in (100, 256, 512):
        assert np.abs(np.bincount(labels[:first]) - first / 10).max() <= 2.5


@pytest.mark.parametrize("zipped", [False, True])
def test_mnist_from_its_four_files(tmp_path, zipped, precision):
    write_mnist(tmp_path, "train", zipped=zipped)
    write_mnist(tmp_path, "t10k", idx(PIXELS[:2]), idx(LABELS[:2]), zipped)
    check_images(mnist(tmp_path), PIXELS, LABELS, precision)
    check_images(mnist(str(tmp_path), "test"), PIXELS[:2], LABELS[:2], precision)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"images": idx(PIXELS)[:-1]}, "images-idx3-ubyte must hold 3920 values.*got 3919"),
        ({"images": idx(PIXELS) + b"0"}, "images-idx3-ubyte must hold 3920 values.*got 3921"),
        (
            {"images": idx(PIXELS)[:15]},
            "images-idx3-ubyte must start with the magic number 0x0+803",
        ),
        ({"images": b""}, "magic number 0x00000803 of bytes in 3 axes"),
        ({"images": idx(PIXELS, 0x801)}, "magic number 0x00000803.*got 0x00000801"),
        ({"images": idx(PIXELS, 0xD03)}, "magic number 0x00000803.*got 0x00000d03"),
        ({"images": idx(PIXELS[:, :27])}, r"images-idx3-ubyte must hold \(n, 28, 28\) bytes"),
        ({"images": idx(PIXELS[:0])}, "must hold 0 values, at least 1"),
        ({"images": idx(PIXELS[:4])}, "labels-idx1-ubyte holds 5 labels for the 4 images"),
        ({"labels": idx(LABELS)[:-2]}, "labels-idx1-ubyte must hold 5 values.*got 3"),
        ({"labels": idx(PIXELS)}, "labels-idx1-ubyte must start with the magic number 0x00000801"),
        ({"labels": idx(LABELS + 1)}, "labels-idx1-ubyte must be whole numbers in 0 ... 9, got 1"),
    ],
)
def test_bad_files_of_mnist_are_refused(tmp_path, files, message):
    with pytest.raises(InputError, match=message):
        mnist(write_mnist(tmp_path, **files))


def test_a_cut_or_false_gzip_file_is_refused(tmp_path):
    write_mnist(tmp_path, zipped=True)
    file = tmp_path / "train-images-idx3-ubyte.gz"
    whole = file.read_bytes()
    for data in (whole[:-10], whole[:500], idx(PIXELS), b"", whole[:20] + b"?" * 20 + whole[40:]):
        file.write_bytes(data)
        with pytest.raises(InputError, match=r"images-idx3-ubyte.gz (is no complete|must start)"):
            mnist(tmp_path)


def test_cifar_from_its_binary_version(tmp_path, three_records, precision):
    for k in range(1, 6):
        (tmp_path / f"data_batch_{k}.bin").write_bytes(cifar(COLORS + k, [k, 0, 9]))
    (tmp_path / "test_batch.bin").write_bytes(cifar(COLORS, [7, 8, 9]))
    check_images(cifar10(tmp_path, "test"), COLORS, [7, 8, 9], precision)
    every = np.concatenate([COLORS + k for k in range(1, 6)])
    labels = np.ravel([[k, 0, 9] for k in range(1, 6)])
    check_images(cifar10(tmp_path), every, labels, precision)


def test_bad_files_of_cifar_are_refused(tmp_path, three_records):
    file = tmp_path / "test_batch.bin"
    whole = cifar(COLORS, [7, 8, 9])
    for data in (whole[:-1], whole[:-3073], whole + whole, b""):
        file.write_bytes(data)
        with pytest.raises(InputError, match=r"test_batch.bin must hold 3 records of 3073 bytes"):
            cifar10(tmp_path, "test")
    file.write_bytes(cifar(COLORS, [7, 10, 9]))
    with pytest.raises(InputError, match=r"test_batch.bin must be whole numbers in 0 ... 9, got 7"):
        cifar10(tmp_path, "test")
    with pytest.raises(InputError, match=r"there is no .*data_batch_1.bin"):
        cifar10(tmp_path)


def test_cifar_has_ten_thousand_records_a_file(tmp_path):
    (tmp_path / "test_batch.bin").write_bytes(cifar(COLORS, [7, 8, 9]))
    with pytest.raises(InputError, match="10000 records of 3073 bytes, 30730000 in all, got 9219"):
        cifar10(tmp_path, "test")


@pytest.mark.parametrize("loader", [mnist, cifar10, shakespeare])
def test_a_source_is_one_and_there(tmp_path, loader):
    for arguments in ({}, {"path": tmp_path, "hub": "someone/data"}):
        with pytest.raises(InputError, match=r"either the path .* or hub="):
            loader(**arguments)
    with pytest.raises(InputError, match=r"there is no .*nowhere"):
        loader(tmp_path / "nowhere")
    with pytest.raises(InputError, match="unknown split 'tset'; did you mean test"):
        loader(tmp_path, "tset")


def test_a_folder_of_something_else_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("nothing")
    for path in (tmp_path, tmp_path / "notes.txt"):
        with pytest.raises(InputError, match=r"must hold train-images-idx3-ubyte or .*gz"):
            mnist(path)
        with pytest.raises(InputError, match="must hold the binary version of CIFAR-10"):
            cifar10(path)


def test_saved_datasets_are_read(tmp_path, hub):
    train, test = images_table(hub), images_table(hub, PIXELS[:2], LABELS[:2])
    hub.DatasetDict(train=train, test=test).save_to_disk(tmp_path / "both")
    check_images(mnist(tmp_path / "both"), PIXELS, LABELS)
    check_images(mnist(tmp_path / "both", "test"), PIXELS[:2], LABELS[:2])
    train.save_to_disk(tmp_path / "one")  # of no split
    check_images(mnist(tmp_path / "one", "test"), PIXELS, LABELS)
    images_table(hub, COLORS, LABELS[:3], "img").save_to_disk(tmp_path / "colors")
    check_images(cifar10(tmp_path / "colors"), COLORS, LABELS[:3])
    hub.DatasetDict(train=train).save_to_disk(tmp_path / "part")
    with pytest.raises(InputError, match=r"reads no split 'test' from .*part"):
        mnist(tmp_path / "part", "test")


def test_parquet_files_are_read(tmp_path, hub):
    folder = tmp_path / "mnist"
    folder.mkdir()
    images_table(hub).to_parquet(folder / "train-00000-of-00001.parquet")
    images_table(hub, PIXELS[:2], LABELS[:2]).to_parquet(folder / "test-00000-of-00001.parquet")
    check_images(mnist(folder), PIXELS, LABELS)
    check_images(mnist(folder, "test"), PIXELS[:2], LABELS[:2])
    hub.load_dataset(str(folder), split="test").save_to_disk(tmp_path / "test")
    check_images(mnist(tmp_path / "test", "test"), PIXELS[:2], LABELS[:2])
    with pytest.raises(InputError, match="holds the split test, not train"):
        mnist(tmp_path / "test")
    (folder / "train-00000-of-00001.parquet").write_bytes(b"PAR1 cut short")
    with pytest.raises(InputError, match=r"reads no split 'train' from .*mnist"):
        mnist(folder)


def test_other_tables_are_refused(tmp_path, hub):
    floats = {"image": [[[0.5] * 28] * 28], "label": [1]}
    for number, (table, message) in enumerate(
        [
            (images_table(hub, image="picture"), r"must have a column image or img, got \['pict"),
            (
                images_table(hub, COLORS, LABELS[:3]),
                r"must hold \(n, 28, 28, 1\) bytes, got \(3, 32",
            ),
            (images_table(hub, labels=LABELS + 1), "column label must be whole numbers in 0 ... 9"),
            (hub.Dataset.from_dict(floats), "images must be whole numbers in 0 ... 255, got 0.5"),
            (hub.Dataset.from_dict({"image": floats["image"]}), "must have a column label"),
        ]
    ):
        table.save_to_disk(tmp_path / str(number))
        with pytest.raises(InputError, match=message):
            mnist(tmp_path / str(number))


def test_only_a_name_on_the_hub_is_downloaded(monkeypatch, hub):
    asked = []

    def load_dataset(name, split):
        asked.append((name, split))
        return images_table(hub) if "mnist" in name else hub.Dataset.from_dict({"text": [PLAY]})

    monkeypatch.setattr(hub, "load_dataset", load_dataset)
    check_images(mnist(hub="ylecun/mnist", split="test"), PIXELS, LABELS)
    assert shakespeare(hub="someone/plays") == PLAY
    assert asked == [("ylecun/mnist", "test"), ("someone/plays", "train")]


def test_the_datasets_library_is_an_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    (tmp_path / "train.parquet").write_bytes(b"")
    for arguments in ({"path": tmp_path}, {"hub": "ylecun/mnist"}):
        with pytest.raises(ImportError, match=r"pip install 'jaxsde\[hub\]'"):
            mnist(**arguments)


def test_shakespeare_is_a_text(tmp_path, hub):
    file = tmp_path / "play.txt"
    file.write_text(PLAY, encoding="utf-8")
    assert shakespeare(file) == PLAY
    hub.Dataset.from_dict({"text": PLAY.split("\n")}).save_to_disk(tmp_path / "lines")
    assert shakespeare(tmp_path / "lines") == PLAY
    file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match=r"play.txt is no text in UTF-8"):
        shakespeare(file)


def test_python_comes_with_a_text(monkeypatch):
    text = python_text()
    assert len(text) > 400_000
    assert text == text.lower()
    assert text.index('the "assert" statement') < text.index('the "while" statement')
    real = builtins.__import__

    def without(name, *rest):
        if name.startswith("pydoc_data"):
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImportError, match="take a text of your own"):
        python_text()


def test_sequences_are_spread_and_followed_by_their_next():
    text = "abcdefghijklmnopqrstuvwxyz"
    inputs, targets, alphabet = characters(text, length=4, sequences=3)
    assert alphabet == text
    assert inputs.dtype == targets.dtype == np.int32
    said = ["".join(alphabet[k] for k in row) for row in (*inputs, *targets)]
    assert said == ["abcd", "ijkl", "qrst", "bcde", "jklm", "rstu"]  # s = ⌊25/3⌋ = 8


def test_every_character_but_the_last_is_an_input_where_they_just_fit():
    inputs, targets, alphabet = characters("hello, you", length=3, sequences=3)
    assert alphabet == " ,ehlouy"
    assert "".join(alphabet[k] for k in inputs.ravel()) == "hello, yo"
    assert "".join(alphabet[k] for k in targets.ravel()) == "ello, you"


def test_rare_characters_become_one():
    """c three times, a and b twice, d, e and the unknown itself once: four symbols keep c, a, b."""
    text = "ccc" + "bbaa" + "ed�"
    inputs, targets, alphabet = characters(text, length=9, sequences=1, symbols=4)
    assert alphabet == "abc�"
    np.testing.assert_array_equal(inputs, [[2, 2, 2, 1, 1, 0, 0, 3, 3]])
    np.testing.assert_array_equal(targets[0, -1], 3)
    assert characters(text, 9, 1, symbols=3).alphabet == "ac�"  # a before b, which is as frequent
    assert characters(text, 9, 1, symbols=6).alphabet == "abcde�"
    assert characters("abab", 3, 1, symbols=2).alphabet == "ab"
    assert characters("���aabc", 3, 1, symbols=3).alphabet == "ab�"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((PLAY[:40], 8, 5), "5 sequences of 8 characters need a text of 41 or more, got 40"),
        (("", 1, 1), "need a text of 2 or more, got 0"),
        ((b"bytes", 1, 1), "text must be a string, got bytes"),
        ((PLAY, 0, 1), "length must be a whole number"),
        ((PLAY, 1, 0), "sequences must be a whole number"),
        ((PLAY, 1, 1, 1), "symbols must be a whole number of at least 2"),
    ],
)
def test_bad_cuts_are_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        characters(*arguments)
