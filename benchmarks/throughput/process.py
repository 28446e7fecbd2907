"""A worker as its parent sees it."""

import json
import os
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

from benchmarks.throughput.cases import Case
from benchmarks.throughput.peers import Peer

ROOT = Path(__file__).parents[2]


class Gone(Exception):
    """A worker has no more to say; the message says why."""


class Worker:
    """A peer on a case in a process of its own.

    Args:
        peer: who.
        case: what.
        python: the interpreter.
        quick: whether it runs the small version of the case.
        limit: seconds that its answers may take in all.
    """

    def __init__(self, peer: Peer, case: Case, python: str, quick: bool, limit: float):
        self.peer, self.case, self._left = peer, case, limit
        self.row: dict[str, Any] = {"seconds": []}
        self.status = "ok"
        environment = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false", **dict(peer.environment)}
        self._process = subprocess.Popen(
            [
                python, "-m", "benchmarks.throughput.worker", peer.module, peer.variant, case.name,
                *(["--quick"] if quick else []),
            ],
            cwd=ROOT, env=os.environ | environment, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        )  # fmt: skip

    def ask(self, **command: Any) -> dict[str, Any]:
        """Its answer; raises Gone if there is none."""
        try:
            self._process.stdin.write(json.dumps(command) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise Gone(f"failed: ended with status {self._process.wait()}") from None
        return self.answer()

    def answer(self) -> dict[str, Any]:
        """The next line it says."""
        began = time.monotonic()
        timer = threading.Timer(max(self._left, 0), self._process.kill)
        timer.start()
        line = self._process.stdout.readline()
        timer.cancel()
        self._left -= time.monotonic() - began
        if not line and self._left <= 0:
            raise Gone("stopped: over the time limit")
        if not line:
            raise Gone(f"failed: ended with status {self._process.wait()}")
        answer = json.loads(line)
        for word in ("skipped", "failed"):
            if word in answer:
                raise Gone(f"{word}: {answer[word]}")
        return answer

    def end(self) -> None:
        """Ends the process."""
        self._process.kill()
        self._process.communicate()
