"""The parts of `make gpu`, each in a process of its own, so that one cannot break another."""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from .checks import Entry, told
from .machine import Machine


class Part(NamedTuple):
    module: str
    seconds: float  # at most
    alone: bool = False  # on the GPU, because it is timed
    shares: int = 1  # processes: most of a check's time is Triton's, to compile


PARTS = {
    "products": Part("products", 180, shares=3),
    "attention": Part("attention", 180, shares=4),
    "rows": Part("rows", 180, shares=4),
    "pointwise": Part("pointwise", 180, shares=2),
    "operations": Part("operations", 180, shares=6),
    "training": Part("training", 180),
    "speed-products": Part("speed_products", 80, True),
    "speed-rows": Part("speed_rows", 80, True),
    "speed-attention": Part("speed_attention", 140, True),
    "speed-step": Part("speed_step", 260, True),
    "speed-pointwise": Part("speed_pointwise", 60, True),
    "graph": Part("speed_graph", 120, True),
}
END = {"kind": "end"}
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
FOLDER = Path(__file__).parent


def work(name: str, share: int, device: str, lines: Path) -> None:
    """Do one part, or a share of it, and write each entry as soon as it is known."""
    part = PARTS[name]
    with lines.open("a", encoding="utf-8") as file:

        def put(entry: Entry) -> None:
            file.write(json.dumps(entry) + "\n")
            file.flush()

        try:
            module = importlib.import_module(f".{part.module}", __package__)
            for entry in module.run(Machine(device, share, part.shares)):
                put(entry)
        except Exception as problem:
            put({"kind": "check", "name": f"the part {name}", "ok": False, **told(problem)})
        put(END)


class Running:
    """A share of a part that was started in a process group of its own."""

    def __init__(self, name: str, share: int, device: str, deadline: float, folder: Path):
        self.name, self.start = name, time.monotonic()
        self.deadline = min(deadline, self.start + PARTS[name].seconds)
        self.lines, self.log = (folder / f"{name}-{share}.{kind}" for kind in ("lines", "log"))
        command = [sys.executable, str(FOLDER), "--device", device, "--worker", name]
        command += ["--share", str(share), "--lines", str(self.lines)]
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                command, stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
                env=os.environ | (ONE_THREAD if PARTS[name].shares > 1 else {}),
            )  # fmt: skip

    def over(self) -> bool:
        """Whether it has ended; past its deadline it is made to."""
        if self.process.poll() is None and time.monotonic() > self.deadline:
            self.stop()
        return self.process.poll() is not None

    def stop(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def result(self) -> dict[str, Any]:
        """Seconds, and the entries; a part that did not come to its end has a failure more."""
        entries = _read(self.lines)
        if END in entries:
            entries.remove(END)
        else:
            entries.append({"kind": "check", "name": f"the part {self.name}", "ok": False,
                            "message": self._why(), "log": self._last_lines()})  # fmt: skip
        return {"seconds": round(time.monotonic() - self.start, 1), "entries": entries}

    def _why(self) -> str:
        if time.monotonic() > self.deadline:
            return f"stopped after {self.deadline - self.start:.0f} s: its time was over"
        return f"ended with exit code {self.process.returncode}: {self._last_lines()[-1:]}"

    def _last_lines(self) -> list[str]:
        return self.log.read_text("utf-8", "replace").splitlines()[-15:]


def _read(lines: Path) -> list[Entry]:
    """What was written; the last line may be half a line."""
    found = []
    for line in lines.read_text("utf-8").splitlines() if lines.exists() else []:
        with contextlib.suppress(json.JSONDecodeError):
            found.append(json.loads(line))
    return found


def run(
    names: list[str], device: str, seconds: float, done: Callable[[str, dict[str, Any]], None]
) -> None:
    """Those that are not timed side by side, then the others one by one; done(name, result)."""
    deadline, running = time.monotonic() + seconds, list[Running]()
    waiting = [(name, share) for name in names for share in range(PARTS[name].shares)]
    with tempfile.TemporaryDirectory(prefix="minidist-gpu-") as folder:
        try:
            while waiting or running:
                while waiting and _may_start(waiting[0][0], running):
                    running.append(Running(*waiting.pop(0), device, deadline, Path(folder)))
                time.sleep(0.05)
                for part in [p for p in running if p.over()]:
                    running.remove(part)
                    done(part.name, part.result())
        finally:
            for part in running:
                part.stop()


def _may_start(name: str, running: list[Running]) -> bool:
    if PARTS[name].alone:
        return not running
    return len(running) < (os.cpu_count() or 1) and not any(PARTS[p.name].alone for p in running)
