"""Clean: no long paragraph twice. Done to the built-in corpora, and to a file on request."""

from __future__ import annotations

import re


def clean(content: bytes, shortest: int = 80) -> tuple[bytes, int]:
    """Leave out every paragraph of at least `shortest` characters that came before; and how many.

    A paragraph that stands both in the training text and in the held-out text would be
    learned by heart and then counted as understood. All other bytes stay as they are.
    """
    # Bytes that are not UTF-8 become characters that turn back into these bytes.
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
