"""How Adam's kernel is compiled in tests."""

from minidist.kernels import adamw

ARRAYS = ("p_ptr", "m_ptr", "v_ptr", "highest_ptr", "factors_ptr")
NUMBERS = ("scale", "beta1", "beta2", "rest1", "rest2", "eps", "decay")
CASES = {
    f"{'adamw' if decoupled else 'adam'}{' amsgrad' if amsgrad else ''}"
    f"{' capturable' if there else ''} {gradient}": {
        "kernel": adamw._adam_kernel,
        "signature": {**dict.fromkeys(ARRAYS, "*fp32"), "g_ptr": f"*{gradient}", "n": "i32",
                      **dict.fromkeys(NUMBERS, "fp32")},
        "constants": {"DECOUPLED": decoupled, "AMSGRAD": amsgrad, "THERE": there,
                      "BLOCK": adamw.BLOCK},
    }
    for decoupled, amsgrad, gradient, there in (
        (True, False, "fp32", False), (True, False, "fp16", False), (False, False, "fp32", False),
        (True, True, "fp32", False), (False, True, "fp16", False), (True, False, "fp32", True),
    )
}  # fmt: skip
CASES |= {
    f"adam's count, lr {'there' if there else 'a number'}": {
        "kernel": adamw._count_kernel,
        "signature": {"step_ptr": "*i64", "lr_ptr": "*fp32", "factors_ptr": "*fp32",
                      **dict.fromkeys(("lr", "log1", "log2", "eps", "weight_decay"), "fp64")},
        "constants": {"LR_THERE": there, "DECOUPLED": True},
        "options": {"num_warps": 1},
    }
    for there in (False, True)
}  # fmt: skip
