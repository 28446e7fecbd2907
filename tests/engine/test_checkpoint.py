"""Runs that are interrupted and go on."""

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import optax
import pytest

from jaxsde import InputError, OptimizerProcess, SDEProcess, simulate, with_covariance
from jaxsde.engine import checkpoint, plan
from jaxsde.oracles import GaussianNoise
from jaxsde.problems import DoubleWell, Quadratic
from jaxsde.sdes import SGD

H = np.array([1.0, 2.0], np.float32)


def adam(scale):
    return OptimizerProcess(optax.adam, {"learning_rate": 0.1}, GaussianNoise(Quadratic(H), scale))


ADAM = adam(1.0)
DEFAULTS = {
    "steps": 60,
    "paths": 70,
    "key": jax.random.key(3),
    "records": [0, 7, 20, 21, 60],
    "chunk": 32,
}
OBSERVABLES = {"loss": lambda x: x @ (H * x) / 2, "both": with_covariance(lambda x: x)}


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch):
    """Some six blocks a chunk, each saved."""
    monkeypatch.setattr(plan, "BLOCK", 10 * 4 * 16)
    monkeypatch.setattr(checkpoint, "PAUSE", 0.0)
    monkeypatch.setattr(checkpoint, "SHARE", np.inf)


def run(process=ADAM, x0=H, **changes):
    return simulate(process, x0, **(DEFAULTS | {"observables": OBSERVABLES} | changes))


def same(a, b):
    """Whether two ensembles hold the same numbers, to the last bit."""
    assert jax.tree.structure(a.moments) == jax.tree.structure(b.moments)
    for one, other in zip(
        jax.tree.leaves((a.time, a.step, a.moments, a.sample)),
        jax.tree.leaves((b.time, b.step, b.moments, b.sample)),
        strict=True,
    ):
        np.testing.assert_array_equal(one, other)
        assert one.dtype == other.dtype
    return True


class Stop(Exception):
    """The interruption."""


def interrupted(file, after, **changes):
    """Runs until so many blocks are done and saved."""
    blocks = []

    def stop(progress):
        blocks.append(progress)
        if len(blocks) == after + 1:  # a block is saved after it was reported
            raise Stop

    with pytest.raises(Stop):
        run(checkpoint=file, progress=stop, **changes)


@pytest.fixture(scope="module")
def whole():
    return run()


def test_a_run_stopped_after_any_block_goes_on_to_the_same_numbers(tmp_path, whole):
    blocks = []
    assert same(run(checkpoint=tmp_path / "all", progress=blocks.append), whole)
    assert len(blocks) > 15
    for after in range(len(blocks)):
        file, left = tmp_path / f"{after}.ckpt", []
        interrupted(file, after)
        assert same(run(checkpoint=file, progress=left.append), whole)
        assert len(left) == len(blocks) - after
        assert left[-1].done == left[-1].total
        before = blocks[after - 1].done if after else 0
        assert {report.resumed for report in left} == {before}


def test_a_run_may_stop_many_times(tmp_path, whole):
    for _ in range(5):
        interrupted(tmp_path / "run", 3)
    assert same(run(checkpoint=tmp_path / "run"), whole)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["run"]


def test_a_run_that_ended_gives_its_numbers_at_once(tmp_path, whole):
    first, again = [], []
    run(checkpoint=tmp_path / "run", progress=first.append)
    assert same(run(checkpoint=tmp_path / "run", progress=again.append), whole)
    assert first
    assert not again


def test_diverged_paths_stay_counted(tmp_path):
    chain = OptimizerProcess(
        optax.sgd, {"learning_rate": 0.5}, GaussianNoise(DoubleWell(0.25), 1.0)
    )
    settings = {"process": chain, "x0": np.zeros(1, np.float32), "observables": None}
    known = run(**settings)
    assert 0 < known.used("loss")[-1] < 70
    interrupted(tmp_path / "run", 8, **settings)
    assert same(run(checkpoint=tmp_path / "run", **settings), known)


def other_program(x):
    return x @ x


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": 61}, "its steps is 60, this one's 61"),
        ({"paths": 71}, "its paths is 70, this one's 71"),
        ({"key": jax.random.key(4)}, r"its key is \[0, 3\], this one's \[0, 4\]"),
        ({"chunk": 64}, "its chunk is 32, this one's 64"),
        ({"devices": jax.devices()[:1]}, "its devices"),
        ({"records": [0, 60]}, "its records is"),
        ({"x0": H + 1}, "its x0"),
        ({"process": adam(2.0)}, "its process"),
        ({"process": SDEProcess(SGD(ADAM.oracle, 0.1), 0.1)}, "its process differs"),
        ({"observables": {"loss": OBSERVABLES["loss"]}}, "its program differs"),
        ({"observables": OBSERVABLES | {"loss": other_program}}, "its program differs"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_checkpoint_of_another_run_is_refused(tmp_path, changes, message):
    interrupted(tmp_path / "run", 2)
    before = (tmp_path / "run").read_bytes()
    with pytest.raises(InputError, match=rf"another run's: {message}.*remove .*run to start anew"):
        run(checkpoint=tmp_path / "run", **changes)
    assert (tmp_path / "run").read_bytes() == before


def test_the_digest_sees_constants_hidden_in_functions(tmp_path):
    def scaled(factor):
        return {"loss": lambda x: factor * (x @ x)}

    interrupted(tmp_path / "run", 2, observables=scaled(H[0]))
    with pytest.raises(InputError, match="its program differs"):
        run(checkpoint=tmp_path / "run", observables=scaled(H[1]))
    run(checkpoint=tmp_path / "run", observables=scaled(H[0]))


def test_a_damaged_or_foreign_file_is_refused(tmp_path):
    file = tmp_path / "run"
    interrupted(file, 2)
    good = file.read_bytes()
    flipped = bytearray(good)
    flipped[good.rindex(b"\x93NUMPY") + 130] ^= 1  # of the last array's data, behind its header
    np.save(tmp_path / "array.npy", H)
    np.savez(tmp_path / "pickled.npz", header=np.array({"format": checkpoint.FORMAT}, object))
    np.savez(tmp_path / "foreign.npz", a=H)
    np.savez(tmp_path / "json.npz", header=np.array(json.dumps([1])))
    foreign = [(tmp_path / name).read_bytes() for name in ("array.npy", "foreign.npz", "json.npz")]
    pickled = (tmp_path / "pickled.npz").read_bytes()
    cuts = [good[: len(good) * i // 7] for i in range(7)]
    for content in [*cuts, good[:-1], bytes(flipped), b"text", pickled, *foreign]:
        file.write_bytes(content)
        with pytest.raises(InputError, match="is damaged or no checkpoint of jaxsde: remove"):
            run(checkpoint=file)
        assert file.read_bytes() == content
    header = json.dumps({"format": "jaxsde checkpoint 0", "settings": {}})
    np.savez(tmp_path / "old.npz", header=np.array(header))
    with pytest.raises(InputError, match="is a 'jaxsde checkpoint 0', not a"):
        run(checkpoint=tmp_path / "old.npz")


def test_a_path_that_cannot_be_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="is a folder, not a file"):
        run(checkpoint=tmp_path)
    with pytest.raises(InputError, match="no checkpoint can be written at"):
        run(checkpoint=tmp_path / "file" / "run")


CHILD = """
import sys
import jax, numpy as np, optax
import jaxsde
from jaxsde.engine import checkpoint, plan

plan.BLOCK, checkpoint.PAUSE, checkpoint.SHARE = 400_000, 0.0, np.inf
oracle = jaxsde.oracles.GaussianNoise(jaxsde.problems.Quadratic(np.ones(4, np.float32)), 1.0)
process = jaxsde.OptimizerProcess(optax.adam, {"learning_rate": 0.1}, oracle)
ensemble = jaxsde.simulate(
    process, np.ones(4, np.float32), steps=20_000, paths=600, key=jax.random.key(1), chunk=256,
    checkpoint=sys.argv[1], progress=lambda _: print("block", flush=True),
)
np.savez(sys.argv[2], *jax.tree.leaves((ensemble.moments, ensemble.sample)))
"""


def child(folder: Path, kill_after: float | None, out="killed.npz") -> bool:
    """Runs the child, kills it so long after its first block; whether it lived to the end."""
    process = subprocess.Popen(
        [sys.executable, "-c", CHILD, folder / out.replace(".npz", ".ckpt"), folder / out],
        stdout=subprocess.PIPE,
    )
    try:
        if kill_after is not None and process.stdout.readline():
            time.sleep(kill_after)
            process.send_signal(signal.SIGKILL)
        process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode in (0, -signal.SIGKILL)
    return process.returncode == 0


@pytest.mark.slow
def test_a_process_killed_at_twenty_random_moments_goes_on_to_the_same_numbers(tmp_path):
    began = time.monotonic()
    assert child(tmp_path, None, "whole.npz")
    duration, kills, moments = time.monotonic() - began, 0, random.Random(20)
    while kills < 20:
        ended = child(tmp_path, moments.uniform(0, 0.2 * duration))
        kills += not ended
        if ended:
            (tmp_path / "killed.ckpt").unlink()
    child(tmp_path, None)
    with np.load(tmp_path / "whole.npz") as whole, np.load(tmp_path / "killed.npz") as killed:
        assert whole.files == killed.files
        for name in whole.files:
            np.testing.assert_array_equal(whole[name], killed[name])
    assert {p.suffix for p in tmp_path.iterdir()} == {".npz", ".ckpt"}
