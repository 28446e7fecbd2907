import jax
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxsde import OptimizerProcess
from jaxsde.engine import plan
from jaxsde.engine.devices import paths_mesh
from jaxsde.oracles import GaussianNoise
from jaxsde.problems import Quadratic


@settings(max_examples=200, derandomize=True, deadline=None)
@given(
    records=st.sets(st.integers(0, 500), min_size=1, max_size=40).map(sorted).map(np.array),
    block=st.integers(1, 600),
)
def test_segments_follow_on_one_another_and_keep_the_records(records, block):
    segments = plan.cut(records, block)
    at, kept = 0, []
    for segment in segments:
        assert segment.first == at
        assert np.all(np.diff(segment.stops) >= 0)
        assert segment.stops[0] >= at
        kept += segment.stops[segment.kept].tolist()
        at = segment.stops[-1]
    assert at == records[-1]
    np.testing.assert_array_equal(kept, records)
    assert len({len(segment.stops) for segment in segments}) == 1
    stops = np.unique([0, *(stop for segment in segments for stop in segment.stops)])
    assert np.max(np.diff(stops), initial=0) <= block + 2  # rounded to even
    assert len(segments) <= np.ceil(records[-1] / block) + 1
    asked = np.isin(stops, [0, *records])
    assert np.all(stops[~asked] % 2 == 0)


def test_one_record_of_a_long_run_still_has_many_blocks():
    segments = plan.cut(np.array([0, 10_000]), 100)
    assert len(segments) == 100
    assert max(segment.stops[-1] - segment.first for segment in segments) <= 102


def make(dimension, paths, chunk=None, devices=2):
    oracle = GaussianNoise(Quadratic(np.ones(dimension)), 1.0)
    process = OptimizerProcess(optax.adam, {"learning_rate": 0.1}, oracle)
    x0 = jax.ShapeDtypeStruct((dimension,), np.float32)
    mesh = paths_mesh(jax.devices()[:devices])
    return plan.Plan.of(process, x0, np.float32, np.array([0, 8]), paths, chunk, mesh)


@pytest.mark.parametrize("dimension", [1, 10, 1000, 10**6])
@pytest.mark.parametrize("paths", [1, 100, 10**6])
def test_chunks_fill_the_cache_in_whole_vectors_and_cover_all_paths(dimension, paths):
    cut = make(dimension, paths)
    assert cut.size % 16 == 0
    assert cut.chunk == 2 * cut.size
    assert (cut.size - 16) * 2 * dimension <= plan.CPU_COORDINATES  # x and the draw
    assert cut.chunks[-1] < paths <= cut.chunks[-1] + cut.chunk
    assert cut.size <= -(-paths // 32) * 16


def test_a_chunk_is_rounded_up():
    assert make(3, 1000, chunk=50).chunk == 64
    assert make(3, 1000, chunk=50, devices=1).chunk == 64
    assert make(3, 10, chunk=50).chunk == 32
