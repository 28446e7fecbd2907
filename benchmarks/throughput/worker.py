"""One peer on one case in a process of its own: `... worker MODULE VARIANT CASE [--quick]`.

Commands come in on stdin and answers go out on stdout, one JSON object a line. The first line says
`{}` when the peer is ready, or `{"skipped": reason}`. A command `{"steps": n, "seed": s}` runs that
once; `{"report": true}` asks what the process is and used. What libraries print goes to stderr.
"""

import importlib
import importlib.metadata
import json
import os
import platform
import resource
import sys
import time
from pathlib import Path
from typing import Any


def main() -> None:
    """Answers until stdin ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def answer(message: dict[str, Any]) -> None:
        answers.write(json.dumps(message) + "\n")
        answers.flush()

    module_name, variant, case_name, *flags = sys.argv[1:]
    try:
        from benchmarks.throughput import cases

        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        return answer({"skipped": f"{error.name} is not installed"})
    case = cases.find(case_name, "--quick" in flags)
    bench = Bench(module, variant, case)
    answer({})
    for line in sys.stdin:
        try:
            answer(bench.do(json.loads(line)))
        except Exception as error:
            answer({"failed": f"{type(error).__name__}: {str(error).strip()[:200]}"})
            raise


class Bench:
    """A peer's module on a case; the run is built when it is first asked for."""

    def __init__(self, module: Any, variant: str, case: Any):
        self._module, self._variant, self._case = module, variant, case
        self._run, self._imported = None, peak_memory()

    def do(self, command: dict[str, Any]) -> dict[str, Any]:
        """The answer to a command."""
        return self._report() if "report" in command else self._timed(**command)

    def _timed(self, steps: int, seed: int) -> dict[str, Any]:
        began = time.perf_counter()
        if self._run is None:
            self._run = self._module.build(self._case, self._variant)
            if self._run is None:
                return {"skipped": "has no such case"}
        mean, variance = self._run(steps, seed)
        return {"seconds": time.perf_counter() - began, "mean": mean, "variance": variance}

    def _report(self) -> dict[str, Any]:
        device, device_peak = getattr(self._module, "device", lambda: ("cpu", None))()
        versions = {name: importlib.metadata.version(name) for name in self._module.PACKAGES}
        return {
            "device": device,
            "peak_memory_mb": peak_memory() / 2**20,
            "memory_above_imports_mb": (peak_memory() - self._imported) / 2**20,
            "device_peak_memory_mb": None if device_peak is None else device_peak / 2**20,
            "versions": {"python": platform.python_version(), **versions},
        }


def peak_memory() -> int:
    """The most bytes this process held in memory so far."""
    try:  # on Linux getrusage starts from what the parent held when it forked
        status = Path("/proc/self/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) * 1024
    except (OSError, IndexError):
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


if __name__ == "__main__":
    main()
