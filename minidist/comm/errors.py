"""The errors that communication raises, all of them `CommError`."""


class CommError(RuntimeError):
    """Ranks could not exchange messages as they were told to."""


class DeadlockError(CommError):
    """No rank can go on, and not all of them have finished."""


class MismatchError(CommError):
    """The message that arrived is not what `out` was made for."""


class UnmatchedError(CommError):
    """The ranks have finished and a message is still waiting for its other half."""


class MpiError(CommError):
    """The MPI library is missing, or cannot do what was asked of it."""
