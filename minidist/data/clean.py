"""Clean: drop long paragraphs that occurred before (in built-in corpora; in files on request)."""

from __future__ import annotations

import re


def clean(content: bytes, shortest: int = 80) -> tuple[bytes, int]:
    """The content without long paragraphs that occurred before, and the number of these.

    A paragraph is long if it has `shortest` characters. If it were in the training text and in the
    held-out text, the model would learn it by heart, and the held-out loss would be too low. All
    other bytes stay unchanged.
    """
    # Bytes that are not UTF-8 become surrogates, which are turned back into the same bytes.
    text = content.decode("utf-8", errors="surrogateescape")
    first, *rest = re.split(r"(\r?\n\r?\n)", text)
    seen: set[str] = set()
    kept, dropped = [], 0
    for gap, paragraph in [("", first), *zip(rest[::2], rest[1::2])]:
        key = " ".join(paragraph.split())
        if len(key) >= shortest and key in seen:
            dropped += 1
            continue
        seen.add(key)
        kept.append(gap + paragraph)
    return "".join(kept).encode("utf-8", errors="surrogateescape"), dropped
