"""make gpu: is what the GPU computes right, and how fast is it beside PyTorch? Under ten minutes.

Without a GPU, --device cpu does the same checks at tiny sizes in Triton's interpreter; it times
nothing.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
from pathlib import Path

if not __package__:  # started as a folder: python benchmarks/gpu
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from gpu import parts
from gpu.machine import Machine, missing
from gpu.record import Record, line_of, text

RESULTS = Path(__file__).resolve().parent.parent / "results"


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="gpu", description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--device", choices=["cuda", "cpu"], default="cuda", help="cpu: dry, nothing is timed")
    add("--only", action="append", choices=parts.PARTS, metavar="NAME",
        help=f"do this part alone (repeatable): {', '.join(parts.PARTS)}")  # fmt: skip
    add("--seconds", type=float, default=540, help="for all parts together (default: 540)")
    add("--out", type=Path, help=f"folder for the JSON (default: {RESULTS}; of cpu: none)")
    add("--worker", choices=parts.PARTS, help=argparse.SUPPRESS)
    add("--share", type=int, default=0, help=argparse.SUPPRESS)
    add("--lines", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args(argv)


def chosen(only: list[str] | None) -> list[str]:
    """The parts to do; without PyTorch those not beside it, and a line about the others."""
    names = only or list(parts.PARTS)
    beside = [name for name in names if parts.PARTS[name].module.startswith("speed_")]
    if not beside or importlib.util.find_spec("torch"):
        return names
    print(f"PyTorch, to compare with, is not installed: left out: {', '.join(beside)}", flush=True)
    return [name for name in names if name not in beside]


def main() -> int:
    args = arguments()
    if args.worker:
        parts.work(args.worker, args.share, args.device, args.lines)
        return 0
    reason = missing(args.device)
    if reason:
        print(f"make gpu: {' '.join(reason.split())}", file=sys.stderr)
        return 2
    names = chosen(args.only)
    if not names:
        return 2
    folder = args.out or (RESULTS if args.device == "cuda" else None)
    record = Record(Machine(args.device), folder)
    print(f"{record.about['device']}: {', '.join(names)}", flush=True)

    def done(name: str, result: dict) -> None:
        record.add(name, result)
        print(line_of(name, result), flush=True)

    parts.run(names, args.device, args.seconds, done)
    print("\n" + text(record))
    return 1 if record.failures() else 0


if __name__ == "__main__":
    sys.exit(main())
