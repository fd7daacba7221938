"""The errors that communication raises, all of them `CommError`."""


class CommError(RuntimeError):
    """Ranks could not exchange messages as the program asked."""


class DeadlockError(CommError):
    """No rank can go on, and not all of them have finished."""


class MismatchError(CommError):
    """Ranks call different collectives, or a message does not fit the receive buffer."""


class DeadlineError(CommError):
    """A rank has waited for another one longer than the limit."""


class UnmatchedError(CommError):
    """The ranks have finished, but a send has no receive or a receive no send."""


class MpiError(CommError):
    """The MPI library is missing, or cannot do what was asked of it."""
