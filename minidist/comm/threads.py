"""One BLAS thread a rank: the same bits in every world, and no ranks fighting for cores."""

from threadpoolctl import threadpool_limits


def one_blas_thread() -> threadpool_limits:
    """Limit BLAS at once; a `with` block restores the old number of threads at its end."""
    return threadpool_limits(limits=1, user_api="blas")
