"""Collect: the bytes of a corpus, embedded in every Python or from a file."""

from __future__ import annotations

import stat
import sysconfig
from pathlib import Path

from ..errors import UserError

SKIP = {"site-packages", "dist-packages", "test", "tests", "idle_test", "__pycache__", "pydoc_data"}


def docs() -> str:
    """The Python language reference as pydoc carries it: about 465 kB of English."""
    from pydoc_data.topics import topics

    return "\n\n".join(topics[name] for name in sorted(topics))


def stdlib() -> str:
    """The source of the standard library, without its tests: about 12 MB."""
    root = Path(sysconfig.get_paths()["stdlib"])
    files = [p for p in sorted(root.rglob("*.py")) if not SKIP & set(p.relative_to(root).parts)]
    return "\n\n".join(p.read_text("utf-8", errors="replace") for p in files)


def from_file(path: Path) -> bytes:
    """The unchanged bytes of a file; raises a UserError if it cannot be read."""
    try:
        content = path.read_bytes() if stat.S_ISREG(path.stat().st_mode) else None
    except (FileNotFoundError, NotADirectoryError):
        content = None
    except (OSError, ValueError) as error:  # ValueError: a path with a NUL
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"data '{path}' cannot be read: {reason}") from None
    if content is None:
        raise UserError(
            f"data '{path}' is no file: give the path of a text file, or one of "
            f"{', '.join(sorted(CORPORA))}"
        )
    if not content.strip():
        raise UserError(f"data '{path}' is empty: give a file with text in it")
    return content


CORPORA = {"docs": docs, "stdlib": stdlib}


def collect(name: str) -> bytes:
    """The bytes of a built-in corpus (in UTF-8), or of the file at this path."""
    return CORPORA[name]().encode() if name in CORPORA else from_file(Path(name))
