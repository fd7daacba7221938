"""How the kernels of SGD, Adagrad, RMSprop and Lion are compiled in tests: all arrays, or few."""

from minidist.kernels import descent

KERNELS = {
    "sgd": (descent._sgd_kernel, {"REMEMBERS": False, "FIRST": False, "NESTEROV": False}),
    "sgd nesterov": (descent._sgd_kernel, {"REMEMBERS": True, "FIRST": False, "NESTEROV": True}),
    "adagrad": (descent._adagrad_kernel, {}),
    "rmsprop": (descent._rmsprop_kernel, {"CENTRED": False, "REMEMBERS": False}),
    "rmsprop centred": (descent._rmsprop_kernel, {"CENTRED": True, "REMEMBERS": True}),
    "lion": (descent._lion_kernel, {}),
}


def case(kernel, flags, gradient):
    names = kernel.function.__code__.co_varnames[: kernel.function.__code__.co_argcount]
    constants = {**flags, "DECAYS": True, "BLOCK": descent.BLOCK}
    types = {name: "*fp32" if name.endswith("_ptr") else "fp32" for name in names}
    types |= {"g_ptr": f"*{gradient}", "n": "i32"}
    return {
        "kernel": kernel,
        "signature": {name: kind for name, kind in types.items() if name not in constants},
        "constants": {name: value for name, value in constants.items() if name in names},
    }


CASES = {
    f"{name} {gradient}": case(kernel, flags, gradient)
    for name, (kernel, flags) in KERNELS.items()
    for gradient in ("fp32", "bf16")
}
