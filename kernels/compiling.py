"""Triton kernels compiled for GPUs that are not here: registers, memory, spills, instructions."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from .launch import Kernel

MATRIX = {80: ("mma.sync",), 90: ("wgmma", "mma.sync")}


def compile_kernel(
    kernel: Kernel, arch: int, signature: dict[str, str], constants: dict[str, Any],
    aligned: bool = True, **options: int,
) -> dict[str, Any]:  # fmt: skip
    """What the compiled kernel needs: registers a thread, bytes of shared memory, bytes spilled,
    and which matrix instructions it uses.

    `signature` gives every argument's type in Triton's short names ("*fp32", "i32"), `constants`
    those that are constexpr; `aligned` says that pointers and integers are multiples of 16.
    """
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    function = kernel.compiled()
    types = {**signature, **dict.fromkeys(constants, "constexpr")}
    order = {name: types[name] for name in function.arg_names}
    hints = {
        (i,): [["tt.divisibility", 16]]
        for i, kind in enumerate(order.values())
        if aligned and (kind[0] == "*" or kind in ("i32", "i64"))
    }
    source = ASTSource(function, order, constants, hints)
    compiled = triton.compile(source, target=GPUTarget("cuda", arch, 32), options=options)
    usage = _resources(compiled.asm["cubin"])
    ptx = compiled.asm["ptx"]
    return {
        **usage,
        "shared": compiled.metadata.shared,
        "matrix": [name for name in MATRIX[arch] if name in ptx],
    }


def _resources(cubin: bytes) -> dict[str, int]:
    """Registers a thread, and bytes of local memory (the stack: what was spilled)."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.cubin"
        path.write_bytes(cubin)
        text = subprocess.run(
            [_cuobjdump(), "--dump-resource-usage", str(path)],
            capture_output=True, text=True, check=True,
        ).stdout  # fmt: skip
    found = dict(re.findall(r"(REG|STACK|LOCAL):(\d+)", text))
    return {"registers": int(found["REG"]), "spilled": int(found["STACK"]) + int(found["LOCAL"])}


def _cuobjdump() -> str:
    import triton

    own = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    return str(own) if own.exists() else shutil.which("cuobjdump") or "cuobjdump"
