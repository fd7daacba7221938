"""Writing the files of a run: a failure is an error of one line with the file and the reason."""

import contextlib
from collections.abc import Iterator

from ..errors import UserError


@contextlib.contextmanager
def writing(name: object, failures: tuple[type[Exception], ...] = (OSError,)) -> Iterator[None]:
    """Turn a failure of writing the file `name` (such as a full disk) into a UserError."""
    try:
        yield
    except UserError:
        raise
    except failures as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"'{name}' cannot be written: {reason}") from None
