"""A helper's text in Triton's language: the same function, of a block of numbers.

    @helper()
    def sigmoid(x):
        e = exp(-abs(x))
        return (e if x < 0.0 else 1.0) / (1.0 + e)

becomes

    def sigmoid(x):
        e = exp(-tl.abs(x))
        return tl.div_rn(tl.where(x < 0.0, e, 1.0), 1.0 + e)

and so does exp, which it calls. What a helper may say is little, and so are the rules:

- `a if c else b` is tl.where(c, a, b): both are worked out, then one is selected.
- `a / b` of float32 is tl.div_rn: Triton's own division may be off by two units in the last place.
- A name outside the function is a number, whose value is put in its place, or another helper.
- An instruction (elementary.py) is one of the functions below, or one of Triton's.
- Float64 takes the functions that a helper names by `double=`.

There is a text for float32, which serves 16 bits too, and one for float64. Every operation rounds
once, as in the loop, so float32 has the loop's bits and the bounds of elementary.py.
"""

from __future__ import annotations

import ast
import functools
import inspect
import linecache
import math
import textwrap
import zlib
from typing import Any

from . import elementary
from .launch import Kernel, triton_kernel
from .loops import Helper

tl: Any = None  # Triton's language, once a kernel is launched

BLOCK = 1024  # elements a program: 8 a thread, so two loads of 16 bytes of float32
OPTIONS = {"BLOCK": BLOCK, "enable_fp_fusion": False}  # a · b + c in one instruction only in fma


# The instructions of elementary.py


@triton_kernel
def power_of_two(n):
    return ((n.to(tl.int32) + 127) << 23).to(tl.float32, bitcast=True)


@triton_kernel
def log_exponent(x):
    i = tl.sub(x.to(tl.int32, bitcast=True), 0x3F3504F3, sanitize_overflow=False)  # the bits of √½
    return (i >> 23).to(tl.float32)


@triton_kernel
def log_mantissa(x):
    i = tl.sub(x.to(tl.int32, bitcast=True), 0x3F3504F3, sanitize_overflow=False)
    return ((i & 0x7FFFFF) + 0x3F3504F3).to(tl.float32, bitcast=True)


# The C library's functions of float64 that Triton lacks, from exp and log


@triton_kernel
def log1p(x):
    """log(1 + x): 1 + x is rounded, and the second term puts that right."""
    u = 1.0 + x
    lost = (x - (u - 1.0)) / u
    lost = tl.where(lost == lost, lost, 0.0)  # NaN: u is 0 or inf
    return tl.where(x == 0.0, x, tl.log(u) + lost)  # -0 stays


@triton_kernel
def expm1(x):
    """eˣ - 1. Near 0 it is (u - 1) · x / log u with u = eˣ: the error of u cancels (Kahan)."""
    u = tl.exp(x)
    near = (u - 1.0) * x / tl.log(u)
    y = tl.where(tl.abs(x) < 1.0, near, u - 1.0)
    return tl.where(u == 1.0, x, y)  # -0 stays


@triton_kernel
def tanh(x):
    """t / (t + 2) with t = e²ᵃ - 1 and a = |x|, which is 1 from a = 22 on."""
    a = tl.where(tl.abs(x) > 22.0, 22.0, tl.abs(x))
    t = expm1(2.0 * a)
    y = t / (t + 2.0)
    y = tl.where(x < 0.0, -y, y)
    return tl.where(x == 0.0, x, y)  # -0 stays


# What Python, Numba and elementary.py call so: one of Triton's words, or a function above
WORDS: dict[Any, str | Kernel] = {
    abs: "tl.abs", elementary.fma: "tl.fma", math.exp: "tl.exp", math.log: "tl.log",
    math.erf: "tl.erf", math.log1p: log1p, math.expm1: expm1, math.tanh: tanh,
    elementary.power_of_two: power_of_two, elementary.log_exponent: log_exponent,
    elementary.log_mantissa: log_mantissa,
}  # fmt: skip
UNDERSTOOD = (
    ast.Assign, ast.Return, ast.Tuple, ast.Call, ast.Compare, ast.BinOp, ast.UnaryOp, ast.IfExp,
    ast.Name, ast.Constant, ast.arguments, ast.arg, ast.Load, ast.Store, ast.Add, ast.Sub,
    ast.Mult, ast.Div, ast.USub, ast.Lt, ast.LtE, ast.Gt, ast.GtE, ast.Eq, ast.NotEq,
)  # fmt: skip


@functools.cache
def translated(f: Helper, double: bool) -> str | Kernel:
    """What a kernel's text calls for the helper: a word of Triton's, or a function."""
    if f in WORDS:
        return WORDS[f]
    if not double or f.double is None:
        return Translation(f, double).function()
    if isinstance(f.double, Helper):
        return translated(f.double, double)
    if f.double not in WORDS:
        raise NotImplementedError(f"{f.__name__} of float64: Triton's text has no {f.double}")
    return WORDS[f.double]


class Translation(ast.NodeTransformer):
    """The walk through a helper's text; `scope` holds the functions that the new text calls."""

    def __init__(self, f: Helper, double: bool):
        self.f, self.kind = f, "float64" if double else "float32"
        self.scope: dict[str, Any] = {}

    def function(self) -> Kernel:
        tree = ast.parse(textwrap.dedent(inspect.getsource(self.f.function)))
        text = ast.unparse(ast.fix_missing_locations(self.visit(tree.body[0])))
        return function_from(text, self.f, self.kind, self.scope)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.FunctionDef:
        has_words = ast.get_docstring(node) is not None
        node.decorator_list, node.body = [], node.body[has_words:]
        return super().generic_visit(node)  # type: ignore[return-value]

    def visit_arg(self, node: ast.arg) -> ast.arg:
        return ast.arg(node.arg)

    def visit_IfExp(self, node: ast.IfExp) -> ast.AST:
        condition, yes, no = map(self.visit, (node.test, node.body, node.orelse))
        return self.call("tl.where", condition, self.typed(yes) if number(no) else yes, no)

    def visit_BinOp(self, node: ast.BinOp) -> ast.AST:
        self.generic_visit(node)
        if isinstance(node.op, ast.Div) and self.kind == "float32":
            return self.call("tl.div_rn", node.left, node.right)
        return node

    def visit_Compare(self, node: ast.Compare) -> ast.AST:
        if len(node.ops) > 1:
            raise self.refusal(node)
        return self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> ast.AST:
        name = node.func.id if isinstance(node.func, ast.Name) else ""
        meant: Any = abs if name == "abs" else self.f.function.__globals__.get(name)
        if node.keywords or not (meant is abs or isinstance(meant, Helper)):
            raise self.refusal(node)
        called = WORDS[abs] if meant is abs else translated(meant, self.kind == "float64")
        arguments = [self.visit(a) for a in node.args]
        if isinstance(called, str):
            return self.call(called, *arguments)
        self.scope[name] = called
        return self.call(name, *map(self.typed, arguments))

    def visit_Assign(self, node: ast.Assign) -> ast.AST:
        return ast.Assign([*map(self.visit, node.targets)], self.typed(self.visit(node.value)))

    def visit_Name(self, node: ast.Name) -> ast.AST:
        if node.id in self.f.function.__code__.co_varnames:
            return node
        value = self.f.function.__globals__.get(node.id)
        if type(value) is not float:
            raise self.refusal(node)
        return word(repr(value) if math.isfinite(value) else f'float("{value}")')

    def visit_Constant(self, node: ast.Constant) -> ast.AST:
        if type(node.value) is not float:
            raise self.refusal(node)
        return node

    def generic_visit(self, node: ast.AST) -> ast.AST:
        if not isinstance(node, UNDERSTOOD):
            raise self.refusal(node)
        return super().generic_visit(node)

    def typed(self, node: ast.AST) -> Any:
        """A number that has no array beside it would be of float32, whatever it is needed for."""
        kind = word(f"tl.{self.kind}")
        return self.call("tl.full", word("[]"), node, kind) if number(node) else node

    def call(self, name: str, *arguments: Any) -> ast.Call:
        return ast.Call(word(name), list(arguments), [])

    def refusal(self, node: ast.AST) -> NotImplementedError:
        code = self.f.function.__code__
        line = code.co_firstlineno + getattr(node, "lineno", 1) - 1
        text = ast.unparse(node).partition("\n")[0] or type(node).__name__
        return NotImplementedError(
            f"{code.co_filename}:{line}: {self.f.__name__}: {text!r} is nothing that the "
            "translation to Triton understands (kernels/each_triton.py says what is)"
        )


def number(node: ast.AST) -> bool:
    """Whether it is a number alone, also with a sign."""
    node = node.operand if isinstance(node, ast.UnaryOp) else node
    return isinstance(node, ast.Constant) or ast.unparse(node).startswith("float(")


def word(text: str) -> ast.expr:
    return ast.parse(text, mode="eval").body


def function_from(text: str, f: Helper, kind: str, scope: dict[str, Any]) -> Kernel:
    """The function of that text, which Triton, and a traceback, find where Python keeps files."""
    name, stamp = text[4 : text.index("(")], zlib.crc32(text.encode())
    file = f"<{f.function.__module__}.{name} of {kind}, {stamp:08x}>"
    linecache.cache[file] = len(text), None, text.splitlines(keepends=True), file
    scope = {**scope, "__name__": f.function.__module__}
    exec(compile(text, file, "exec"), scope)
    return Kernel(scope[name])


@functools.cache
def kernel_of(f: Helper, name: str, double: bool) -> Kernel:
    """The tile program out[i] = f(a[i], b[i], …, numbers), as each.loop_of makes the loop."""
    kind, called = "float64" if double else "float32", translated(f, double)
    code, number = f.function.__code__, f.function.__annotations__
    names = code.co_varnames[: code.co_argcount]
    declared = ", ".join(f"{n}: tl.float64" if n in number else f"{n}_ptr" for n in names)
    lines = "".join(
        f"    {n} = tl.full([], {n}, tl.{kind})\n" if n in number
        else f"    {n} = tl.load({n}_ptr + at, at < size).to(tl.{kind})\n"
        for n in names
    )  # fmt: skip
    text = f"""\
def {name}_kernel({declared}, out_ptr, size, BLOCK: tl.constexpr):
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
{lines}\
    out = {called if isinstance(called, str) else f.__name__}({", ".join(names)})
    tl.store(out_ptr + at, out.to(out_ptr.dtype.element_ty), at < size)
"""
    return function_from(text, f, kind, {f.__name__: called})
