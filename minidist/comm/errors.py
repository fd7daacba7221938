"""The errors that communication raises, all of them `CommError`."""


class CommError(RuntimeError):
    """Ranks could not exchange messages as they were told to."""


class DeadlockError(CommError):
    """No rank can go on, and not all of them have finished."""


class MismatchError(CommError):
    """Ranks do not call the same collective, or a message is not what `out` was made for."""


class DeadlineError(CommError):
    """A rank has waited for another one longer than it may."""


class UnmatchedError(CommError):
    """The ranks have finished and a message is still waiting for its other half."""


class MpiError(CommError):
    """The MPI library is missing, or cannot do what was asked of it."""
