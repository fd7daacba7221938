"""Einstein summation: subscripts are read, then operands meet in pairs, each a matrix product."""

import string
from collections.abc import Sequence
from typing import Any

from ..kernels.contract import contract
from ..tensor.dtypes import is_floating
from ..tensor.tensor import Tensor
from .op import differentiable, want_numbers, want_one_dtype

LETTERS = string.ascii_uppercase + string.ascii_lowercase


def einsum(*args: Any) -> Tensor:
    """Products of operands, summed over the letters that are not in the output, as torch.einsum.

    Example: einsum("bij,bjk->bik", x, y). Without "->" the output has the letters that occur once,
    in alphabetical order; "..." is all other dimensions; "ii" is a diagonal; sizes of 1 broadcast.
    Numbers below 52 may replace letters: einsum(x, [0, 1, 2], y, [0, 2, 3], [0, 1, 3]).
    """
    if not args:
        raise ValueError("einsum(): want an equation and operands, or operands and sublists")
    equation, *operands = args if isinstance(args[0], str) else _from_sublists(args)
    if len(operands) == 1 and isinstance(operands[0], Sequence):
        operands = tuple(operands[0])
    for x in operands:
        if not isinstance(x, Tensor):
            raise TypeError(f"einsum '{equation}': an operand is {x!r}, not a tensor")
    want_one_dtype("einsum", *operands)
    terms, output = _read(equation.replace(" ", ""), operands)
    pairs = list(map(_diagonals, operands, terms))
    sizes = _sizes(equation, pairs)
    pairs = [_without_broadcast(x, term, sizes) for x, term in pairs]
    x, term = pairs[0]
    x, term = _alone(x, term, output + "".join(t for _, t in pairs[1:]))
    for i, (y, other) in enumerate(pairs[1:], 2):
        later = output + "".join(t for _, t in pairs[i:])
        y, other = _alone(y, other, term + later)
        x, y = _of_one_dtype(x, y)
        meet = "".join(dict.fromkeys(c for c in term + other if c in later))
        if set(term) & set(other) - set(meet):
            want_numbers("einsum", x)
        x, term = _contract(x, y, term, other, meet), meet
    return x.permute(*map(term.index, output))


# Reading


def _from_sublists(args):
    """(x, [0, 1], y, [1, 2], [0, 2]) -> ("AB,BC->AC", x, y)."""
    terms = ["".join(map(_letter, numbers)) for numbers in args[1::2]]
    output = f"->{''.join(map(_letter, args[-1]))}" if len(args) % 2 else ""
    return ",".join(terms) + output, *args[: len(args) // 2 * 2 : 2]


def _letter(number):
    if number is ...:
        return "..."
    if not 0 <= number < len(LETTERS):
        raise ValueError(f"einsum: {number} in a sublist: want 0 to {len(LETTERS) - 1}, or ...")
    return LETTERS[number]


def _read(equation, operands):
    """The letters of each operand's dimensions and of the output's; "..." becomes other letters."""
    left, arrow, output = equation.partition("->")
    terms = left.split(",")
    bad = set(equation.replace("...", "").replace("->", "")) - set(LETTERS + ",")
    if bad or any(t.count("...") > 1 for t in (*terms, output)):
        raise RuntimeError(f"einsum '{equation}': letters, one '...' a term, commas and one '->'")
    if len(terms) != len(operands):
        raise RuntimeError(f"einsum '{equation}': {len(terms)} terms for {len(operands)} operands")
    other = "".join(map(chr, range(0x3B1, 0x3FF)))  # Greek letters: no equation has them
    hidden = [x.ndim - len(t.replace("...", "")) for x, t in zip(operands, terms)]
    for x, term, n in zip(operands, terms, hidden):
        if n < 0 or (n and "..." not in term):
            raise RuntimeError(f"einsum '{equation}': subscripts '{term}' for shape {x.shape}")
    most = max((n for n, t in zip(hidden, terms) if "..." in t), default=0)
    terms = [t.replace("...", other[most - n : most]) for n, t in zip(hidden, terms)]
    every = "".join(terms)
    if not arrow:
        once = sorted(c for c in set(every) if every.count(c) == 1 and c in LETTERS)
        return terms, other[:most] + "".join(once)
    output = output.replace("...", other[:most])
    if len(set(output)) < len(output) or not set(output) <= set(every):
        raise RuntimeError(f"einsum '{equation}': each output letter once, and in some operand")
    return terms, output


def _sizes(equation, pairs):
    """The size of each letter; sizes of 1 give way."""
    sizes: dict[str, int] = {}
    for x, term in pairs:
        for c, n in zip(term, x.shape):
            if n != sizes.setdefault(c, n) and 1 not in (n, sizes[c]):
                raise RuntimeError(f"einsum '{equation}': sizes {sizes[c]} and {n} for '{c}'")
            sizes[c] = n if sizes[c] == 1 else sizes[c]
    return sizes


# Each operand by itself


def _diagonals(x, term):
    """x with each letter once: what stood twice is a diagonal."""
    for c in dict.fromkeys(term):
        while term.count(c) > 1:
            i = term.index(c)
            j = term.index(c, i + 1)
            if x.shape[i] != x.shape[j]:
                raise RuntimeError(f"einsum: '{c}' twice in '{term}' for shape {x.shape}")
            x, term = x.diagonal(0, i, j), term[:i] + term[i + 1 : j] + term[j + 1 :] + c
    return x, term


def _without_broadcast(x, term, sizes):
    """x without its dimensions of size 1 that are longer elsewhere: a product broadcasts them."""
    gone = [i for i, (c, n) in enumerate(zip(term, x.shape)) if n != sizes[c]]
    return x.squeeze(gone) if gone else x, "".join(c for i, c in enumerate(term) if i not in gone)


def _alone(x, term, others):
    """x summed over the letters that nothing else has."""
    gone = [i for i, c in enumerate(term) if c not in others]
    return x.sum(gone) if gone else x, "".join(c for c in term if c in others)


# Two operands


def _of_one_dtype(x, y):
    """Both operands in int64 if a sum made one of them int64 and the other has smaller integers."""
    if x.dtype == y.dtype or is_floating(x.data) or is_floating(y.data):
        return x, y
    return x.long(), y.long()


@differentiable(autocast="lower_precision_fp")
def _contract(x, y, a, b, out):
    """Its VJPs are contractions again: of the cotangent and the other operand."""
    z = contract(x, y, a, b, out)
    return z, lambda g: contract(g, y, out, b, a), lambda g: contract(g, x, out, a, b)
