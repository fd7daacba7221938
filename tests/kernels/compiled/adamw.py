"""How Adam's kernel is compiled in tests."""

from minidist.kernels import adamw

ARRAYS = ("p_ptr", "m_ptr", "v_ptr", "highest_ptr")
NUMBERS = ("scale", "beta1", "beta2", "rest1", "rest2", "eps", "decay")
CASES = {
    f"{'adamw' if decoupled else 'adam'}{' amsgrad' if amsgrad else ''} {gradient}": {
        "kernel": adamw._adam_kernel,
        "signature": {**dict.fromkeys(ARRAYS, "*fp32"), "g_ptr": f"*{gradient}", "n": "i32",
                      **dict.fromkeys(NUMBERS, "fp32")},
        "constants": {"DECOUPLED": decoupled, "AMSGRAD": amsgrad, "BLOCK": adamw.BLOCK},
    }
    for decoupled, amsgrad, gradient in (
        (True, False, "fp32"), (True, False, "fp16"), (False, False, "fp32"),
        (True, True, "fp32"), (False, True, "fp16"),
    )
}  # fmt: skip
