"""How many parameters a GPT has."""

from ..models.gpt import GPTConfig


def gpt_parameters(c: GPTConfig) -> int:
    """(V + s)h + L(12h² + 13h) + 2h (Narayanan et al. 2021, 5.1, with the final norm exact).

    A layer: QKV 3h² + 3h, projection h² + h, MLP 8h² + 5h, two norms 4h.
    """
    h = c.hidden
    return (c.vocab + c.positions) * h + c.layers * (12 * h * h + 13 * h) + 2 * h
