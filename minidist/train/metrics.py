"""metrics.jsonl: one object a line and step, flushed at once so that a crash loses nothing."""

from __future__ import annotations

import contextlib
import json
import math
import os
from pathlib import Path
from typing import Any


class MetricsFile:
    """Appends records; of a run that is taken up again it keeps those up to step `after`."""

    def __init__(self, path: Path, after: int = 0):
        kept = [r for r in read(path) if r["step"] <= after] if path.exists() else []
        self.path, draft = path, path.with_suffix(".part")
        draft.write_text("".join(map(_line, kept)), "utf-8")
        os.replace(draft, path)
        self.file = path.open("a", encoding="utf-8")

    def write(self, record: dict[str, Any]) -> None:
        self.file.write(_line(record))
        self.file.flush()

    def close(self) -> None:
        with contextlib.suppress(OSError):  # a full disk: `write` has already raised the error
            self.file.close()


def _line(record: dict[str, Any]) -> str:
    """Replace NaN and infinity (the norm of a skipped step), which JSON does not have, by null."""
    valid = {k: None if v is None or not math.isfinite(v) else v for k, v in record.items()}
    return json.dumps(valid, allow_nan=False) + "\n"


def read(path: Path) -> list[dict[str, Any]]:
    """All records; a line that a crash cut short or spoiled is left out, and those after it."""
    records = []
    for line in path.read_bytes().splitlines():
        try:
            record = json.loads(line)
        except ValueError:  # no JSON, or bytes that are no text
            break
        if not isinstance(record, dict) or "step" not in record:
            break
        records.append(record)
    return records
