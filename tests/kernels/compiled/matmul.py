"""How products are compiled in tests: every tile; the largest ones in all orders, and fused."""

from __future__ import annotations

import functools
from typing import Any

from minidist.kernels import matmul, matmul_tma
from minidist.kernels.matmul_plan import TILES, Tile
from minidist.kernels.matmul_tiles import GROUP

TYPES = {"tma": "bf16", "mma": "fp16", "odd": "fp16"}  # of the others, fp32
ITEMSIZE = {"bf16": 2, "fp16": 2, "fp32": 4}
INTEGERS = ("a_step", "lda", "b_step", "ldb", "c_step", "ldc", "pre_step", "ldp", "m", "n", "k")


def shared_constants(tile: Tile, orders: str, activation: str | None) -> dict[str, Any]:
    return {
        "A_T": orders[0] == "t", "B_T": orders[1] == "t", "ACTIVATION": activation,
        "WIDEN": False, "BM": tile.BM, "BN": tile.BN, "BK": tile.BK, "GROUP": GROUP,
        "PARTS": tile.parts,
    }  # fmt: skip


def by_pointers(kind: str, tile: Tile, orders: str, activation: str | None) -> dict[str, Any]:
    """With an activation: in the middle of k, which is no multiple of BK, and z is kept."""
    dtype = TYPES.get(kind, "fp32")
    vector = 1 if kind == "odd" else 16 // ITEMSIZE[dtype]
    pointers = dict.fromkeys(("a_ptr", "b_ptr", "bias_ptr", "c_ptr", "pre_ptr"), f"*{dtype}")
    kept = {} if activation else {"pre_ptr": None}
    instruction = {80: "mma.sync", 90: "wgmma"}
    return {
        "kernel": matmul._matmul_kernel,
        "signature": {**pointers, **dict.fromkeys(INTEGERS, "i32")},
        "constants": {
            **shared_constants(tile, orders, activation), **kept,
            "A_VECTOR": vector, "B_VECTOR": vector, "C_VECTOR": vector, "K_VECTOR": vector,
            "EVEN_K": not activation, "PRECISION": kind if dtype == "fp32" else "ieee",
        },
        "options": {
            "num_warps": tile.num_warps, "num_stages": tile.num_stages, "aligned": vector > 1,
        },
        "expect": {} if kind == "ieee" else instruction,
    }  # fmt: skip


def by_tma(
    tile: Tile, orders: str, activation: str | None, out: str | None = None
) -> dict[str, Any]:
    """With an activation z is kept; what goes to float32 is a slice of k."""
    dtype = TYPES["tma"]
    out, width = out or dtype, tile.BN // tile.parts
    a, b = (tile.BM, tile.BK), (tile.BK, tile.BN)
    a, b = (side[:: -1 if order == "t" else 1] for side, order in zip((a, b), orders))
    return {
        "kernel": matmul_tma._matmul_tma_kernel,
        "signature": {
            "a": box(dtype, *a), "b": box(dtype, *b), "bias_ptr": f"*{dtype}",
            "c": box(out, tile.BM, width), "pre": box(out, tile.BM, width),
            **dict.fromkeys(("batches", "m", "n", "k"), "i32"),
        },
        "constants": {
            **shared_constants(tile, orders, activation),
            **({} if activation else {"pre": None}), **({} if out == dtype else {"bias_ptr": None}),
        },
        "options": {
            "num_warps": tile.num_warps,
            "num_stages": matmul_tma.stages(tile, ITEMSIZE[out]),
        },
        "expect": {90: "wgmma"},
        "gpus": (90,),
    }  # fmt: skip


def box(dtype: str, rows: int, cols: int) -> str:
    return f"tensordesc<{dtype}[1,{rows},{cols}]>"


def summing(dtype: str) -> dict[str, Any]:
    return {
        "kernel": matmul._sum_kernel,
        "signature": {
            "slices_ptr": "*fp32",
            **dict.fromkeys(("bias_ptr", "c_ptr", "pre_ptr"), f"*{dtype}"),
            **dict.fromkeys(("ldc", "ldp", "slices", "n", "size"), "i32"),
        },
        "constants": {"ACTIVATION": "gelu", "BLOCK": 1024},
    }


def case(kind: str, tile: Tile, orders: str, activation: str | None) -> dict[str, Any]:
    make = by_tma if kind == "tma" else functools.partial(by_pointers, kind)
    return make(tile, orders, activation)


ORDERS = ("nt", "nn", "tn")  # y = x Wᵀ, dx = g W, dW = gᵀ x
LARGEST = {kind: tiles[0] for kind, tiles in TILES.items()}
CASES = {
    **{
        f"matmul {kind} {tile.BM}x{tile.BN} {orders}": case(kind, tile, orders, None)
        for kind in TILES for tile in TILES[kind]
        for orders in ORDERS[: 3 if tile == LARGEST[kind] and kind in ("tma", "mma", "ieee") else 1]
    },
    **{
        f"matmul {kind} {tile.BM}x{tile.BN} gelu": case(kind, tile, "nt", "gelu")
        for kind, tile in LARGEST.items()
    },
    "matmul tma 128x256 slices": by_tma(LARGEST["tma"], "tn", None, "fp32"),
    **{f"matmul sum {dtype}": summing(dtype) for dtype in ("fp32", "fp16")},
}  # fmt: skip
