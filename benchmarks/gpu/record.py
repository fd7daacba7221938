"""What was found, as JSON that is written after each part, and in words."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .bench import OURS, TORCH
from .checks import Entry
from .machine import Machine, versions


class Record:
    """All entries by part, with date, device and versions; kept in a file if there is a folder."""

    def __init__(self, machine: Machine, folder: Path | None):
        self.parts: dict[str, dict[str, Any]] = {}
        device, now = machine.name(), time.localtime()
        self.about = {
            "date": time.strftime("%Y-%m-%d %H:%M:%S %z", now), "device": device,
            "versions": versions(machine), "peak FLOP/s, bfloat16": machine.peak(),
            "dry": machine.tiny,
        }  # fmt: skip
        slug = re.sub(r"[^a-z0-9]+", "-", device.lower()).strip("-")
        name = f"gpu-{slug}-{time.strftime('%Y-%m-%d-%H%M', now)}.json"
        self.path = None if folder is None else folder / name
        self.save()

    def add(self, name: str, result: dict[str, Any]) -> None:
        """Of a part, or of one more share of it."""
        part = self.parts.setdefault(name, {"seconds": 0.0, "entries": []})
        part["seconds"] = max(part["seconds"], result["seconds"])
        part["entries"] += result["entries"]
        self.save()

    def save(self) -> None:
        if self.path is None:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps({**self.about, "parts": self.parts}, indent=1)
        draft = self.path.with_suffix(".part")
        draft.write_text(text + "\n", "utf-8")
        draft.replace(self.path)

    def entries(self, kind: str) -> list[Entry]:
        return [e for part in self.parts.values() for e in part["entries"] if e["kind"] == kind]

    def failures(self) -> list[Entry]:
        return [e for e in self.entries("check") if not e["ok"]]


# In words


def line_of(name: str, result: dict[str, Any]) -> str:
    """A part in a line: how many checks held."""
    checks = [e for e in result["entries"] if e["kind"] == "check"]
    right = sum(e["ok"] for e in checks)
    times = len(result["entries"]) - len(checks)
    timed = f", {times} timed" if times else ""
    return f"{name:16}{right:5} of {len(checks)} checks hold{timed}  ({result['seconds']:.0f} s)"


def text(record: Record) -> str:
    blocks = [_failures(record), _speeds(record), _training(record), _ending(record)]
    return "\n\n".join(block for block in blocks if block)


def _failures(record: Record) -> str:
    lines = []
    for name, part in record.parts.items():
        for e in part["entries"]:
            if e["kind"] == "check" and not e["ok"]:
                said = e.get("message") or f"off by {e['error']:.3g}, bound {e['bound']:.3g}"
                lines.append(f"  {name}: {e['name']}: {said}")
    return "\n".join(["WRONG:", *lines]) if lines else ""


def _speeds(record: Record) -> str:
    speeds = record.entries("speed")
    if not speeds:
        return ""
    third = "copy, cuDNN"
    title = f"{'':46}{OURS:>10}{TORCH:>10}{third:>12}  {'unit':13}{'ratio':>6}  of         goal"
    return "\n".join([title, *map(_speed, speeds)])


def _speed(e: Entry) -> str:
    own = [e["figures"].get(name) for name in (OURS, TORCH)]
    third = [x for name, x in e["figures"].items() if name not in (OURS, TORCH)] or [None]
    figures = zip((*own, third[0]), (10, 10, 12))
    columns = "".join(f"{f'{x:.1f}' if x else '':>{w}}" for x, w in figures)
    goal = "" if e["goal"] is None else f"{e['goal']} {'met' if e['met'] else 'NOT met'}"
    return f"{e['name']:46}{columns}  {e['unit']:13}{e['ratio']:6.2f}  {e['beside']:9}  {goal}"


def _training(record: Record) -> str:
    runs = record.entries("training")
    if not runs:
        return ""
    lines, first = [], runs[0]
    sizes = " ".join(f"{k} {v}" for k, v in first["sizes"].items())
    lines.append(f"training step of GPT-2: {sizes}; AdamW, bfloat16 by autocast")
    peak = first["peak FLOP/s"]
    rate = "unknown" if peak is None else f"{peak / 1e12:.0f} TFLOP/s (dense bfloat16)"
    lines.append(f"MFU: {first['formula']}; the GPU's peak: {rate}")
    lines += list(_runs(runs))
    return "\n".join(lines)


def _runs(runs: list[Entry]) -> Iterator[str]:
    eager = next((r["tokens/s"] for r in runs if r["name"] == f"{TORCH} eager"), None)
    for r in runs:
        mfu = "" if r["MFU"] is None else f", MFU {r['MFU']:.1%}"
        ratio = "" if eager is None else f", {r['tokens/s'] / eager:.2f} of {TORCH} eager"
        yield (
            f"{r['name']:18}{r['ms']:8.1f} ms a step, {r['tokens/s']:9.0f} tokens/s{mfu}{ratio}, "
            f"{r['peak bytes'] / 2**30:.1f} GiB in arrays, {r['held bytes'] / 2**30:.1f} held"
        )


def _ending(record: Record) -> str:
    checks, wrong = record.entries("check"), record.failures()
    goals = [e["met"] for e in record.entries("speed") if e["goal"] is not None]
    about = ", ".join(f"{k} {v}" for k, v in record.about["versions"].items())
    lines = [f"{record.about['device']}; {about}"]
    lines.append(f"{len(checks) - len(wrong)} of {len(checks)} checks hold")
    lines[-1] += f"; {sum(goals)} of {len(goals)} goals met" if goals else ""
    lines[-1] += f"; written to {record.path}" if record.path else ""
    return "\n".join(lines)
