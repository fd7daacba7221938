"""Newton-Schulz: the nearest (semi-)orthogonal matrix, about, by matrix products alone."""

from . import arrays as xp


def naive(g: xp.ndarray, coefficients: tuple[float, float, float], steps: int, eps: float):
    """The same by singular values: each σ / |g| goes through the polynomial, U and V stay."""
    u, sigma, vt = xp.linalg.svd(g, full_matrices=False)
    a, b, c = coefficients
    x = sigma / max(xp.linalg.norm(sigma), eps)
    for _ in range(steps):
        x = a * x + b * x**3 + c * x**5
    return u * x @ vt


def orthogonalized(
    g: xp.ndarray, coefficients: tuple[float, float, float], steps: int, eps: float
) -> xp.ndarray:
    """Of (n, m): X ← g / |g|, then X ← a X + (b A + c A²) X with A = X Xᵀ, `steps` times.

    Jordan et al. 2024 (Muon). Every step takes all singular values nearer to 1 at once. Temporary
    memory: two arrays like g, and two of its smaller side squared.
    """
    a, b, c = coefficients
    tall = g.shape[0] > g.shape[1]
    x = g.T if tall else g  # X Xᵀ is the smaller of the two products
    x = x / xp.maximum(xp.sqrt((x * x).sum()), eps)
    for _ in range(steps):
        gram = xp.matmul(x, x.T)
        factor = xp.matmul(gram, gram)
        factor *= c
        gram *= b
        factor += gram
        y = xp.matmul(factor, x)
        x *= a
        x += y
    return x.T if tall else x
