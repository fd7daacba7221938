"""One BLAS thread a rank: the same bits in every world, and ranks do not compete for cores."""

from threadpoolctl import threadpool_limits


def one_blas_thread() -> threadpool_limits:
    """Limit BLAS from now on; as a `with` block, until its end."""
    return threadpool_limits(limits=1, user_api="blas")
