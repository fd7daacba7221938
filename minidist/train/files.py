"""The files of a run: what cannot be written is one line that names the file and the reason."""

import contextlib
from collections.abc import Iterator

from ..errors import UserError


@contextlib.contextmanager
def writing(name: object, failures: tuple[type[Exception], ...] = (OSError,)) -> Iterator[None]:
    """Around code that writes the file `name`: its failure (a full disk) becomes a UserError."""
    try:
        yield
    except UserError:
        raise
    except failures as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"'{name}' cannot be written: {reason}") from None
