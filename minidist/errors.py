"""The error of a user's input: one line that names the value and the remedy."""

import contextlib
from collections.abc import Iterator


class UserError(ValueError):
    """Something given was wrong; the command line prints it alone and exits with code 2."""


@contextlib.contextmanager
def writing(name: object, errors: tuple[type[Exception], ...] = (OSError,)) -> Iterator[None]:
    """Around code that writes the file `name`: its failure (a full disk) becomes a UserError."""
    try:
        yield
    except errors as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"'{name}' cannot be written: {reason}") from None
