import os
import pathlib
import subprocess
import sys

import jupytext
import pytest

FOLDER = pathlib.Path(__file__).parents[1] / "notebooks"
SCRIPTS = sorted(FOLDER.glob("*.py"))


def test_there_are_notebooks():
    assert SCRIPTS


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_runs_small_as_a_script(script, tmp_path):
    """Without a warning, and without a file left behind."""
    small = {"JAXSDE_SMALL": "1", "MPLBACKEND": "agg"}
    ran = subprocess.run(
        [sys.executable, "-W", "error", script], cwd=tmp_path, env=os.environ | small,
        capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_the_executed_notebook_is_of_this_script(script):
    """The same cells; every code cell was run, in order, and none wrote to stderr or failed."""
    executed = jupytext.read(script.with_suffix(".ipynb"))
    cells = [
        [(cell.cell_type, cell.source) for cell in notebook.cells]
        for notebook in (jupytext.read(script), executed)
    ]
    assert cells[0] == cells[1]
    code = [cell for cell in executed.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    outputs = [output for cell in code for output in cell.outputs]
    assert any("image/png" in output.get("data", {}) for output in outputs)
    assert not [output for output in outputs if output.output_type == "error"]
    assert not [output for output in outputs if output.get("name") == "stderr"]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_the_executed_notebook_is_small_and_names_no_machine(script):
    notebook = script.with_suffix(".ipynb")
    assert notebook.stat().st_size < 1_500_000
    assert jupytext.read(notebook).metadata.kernelspec.name == "python3"
    assert not [
        folder for folder in ("/home/", "/tmp/", "/root/") if folder in notebook.read_text()
    ]
