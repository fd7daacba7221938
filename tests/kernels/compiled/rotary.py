"""How rotary embedding's kernel is compiled in tests: heads of 128 features that share angles."""

from minidist.kernels import rotary

D = 128
CASES = {
    f"rotary {layout} {way} {dtype}": {
        "kernel": rotary._rotary_kernel,
        "signature": {
            "x_ptr": f"*{dtype}", "y_ptr": f"*{dtype}",
            "turn_ptr": "*fp64" if dtype == "fp64" else "*fp32",
            **dict.fromkeys(("rows", "repeats", "inner", "d"), "i32"),
            **dict.fromkeys(("x_lead", "x_outer", "x_repeat", "x_inner"), "i32"),
            **({"outer": "i32"} if way == "middle" else {}),
        },
        "constants": {
            "INTERLEAVED": layout == "pairs", "BACK": way == "back", "DOUBLE": dtype == "fp64",
            "ROWS": rotary.TILE // D, "HALF": D // 2, "GROUP": rotary.GROUP,
            **({} if way == "middle" else {"outer": 1}),
        },
    }
    for layout in ("pairs", "halves")
    for way, dtype in (("forward", "fp32"), ("forward", "fp16"), ("forward", "fp64"),
                       ("back", "fp16"), ("middle", "fp16"))
}  # fmt: skip
