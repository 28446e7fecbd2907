import ast
import pathlib
import subprocess
import sys

import pytest

import jaxsde

PACKAGE = pathlib.Path(jaxsde.__file__).parent
ALLOWED = {  # room: the rooms of ours it may import; everyone may use _checks and _files
    "problems": set(),
    "oracles": {"problems", "engine"},
    "optimizers": set(),
    "sdes": {"problems", "oracles", "engine"},
    "theory": {"problems"},
    "engine": set(),
    "processes": {"oracles", "sdes", "engine"},
    "analysis": {"problems", "oracles", "optimizers", "sdes", "engine", "processes", "theory"},
    "_checks": set(),
    "_files": set(),
}
ABOVE = {"__init__", "families", "plotting", "cli"}  # may import everything


def room_of(file):
    return file.relative_to(PACKAGE).with_suffix("").parts[0]


def rooms_imported(file):
    """The rooms of the package that a file imports, wherever in it."""
    rooms = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file} imports relatively"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        rooms |= {name.split(".")[1] for name in names if name.startswith("jaxsde.")}
    return rooms


FILES = sorted(PACKAGE.rglob("*.py"))


def test_every_file_is_in_a_room():
    assert {room_of(file) for file in FILES} <= set(ALLOWED) | ABOVE


@pytest.mark.parametrize("room", ALLOWED)
def test_a_room_imports_only_what_lies_below_it(room):
    for file in FILES:
        if room_of(file) == room:
            foreign = rooms_imported(file) - ALLOWED[room] - {room, "_checks", "_files"}
            assert not foreign, f"{file.relative_to(PACKAGE)} imports {foreign}"


CHILD = """
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {blocked}:
            raise ImportError(name + " is blocked")

sys.meta_path.insert(0, Blocked())
import jax
before = dict(jax.config.values)
import jaxsde
changed = [k for k, v in jax.config.values.items() if k in before and before[k] != v]
assert not changed, changed
jax.config.update("jax_num_cpu_devices", 3)  # an error once the backend has started
assert len(jax.devices("cpu")) == 3
loaded = {blocked} & set(name.split(".")[0] for name in sys.modules)
assert not loaded, loaded
jaxsde.problems.Quadratic([1.0])
try:
    jaxsde.problems.breast_cancer()
except ImportError as error:
    assert "pip install 'jaxsde[data]'" in str(error), error
else:
    raise AssertionError("scikit-learn was not blocked")
print("fine")
"""


def test_importing_needs_no_extra_and_changes_nothing():
    blocked = {"sklearn", "xarray", "h5netcdf", "h5py", "matplotlib", "tyro", "rich"}
    code = CHILD.replace("{blocked}", repr(blocked))
    child = subprocess.run(
        [sys.executable, "-c", code],
        cwd=PACKAGE.parent, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert child.stdout == "fine\n", child.stderr
