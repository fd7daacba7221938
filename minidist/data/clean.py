"""Clean: one kind of line end, and no long paragraph twice."""

from __future__ import annotations


def clean(text: str, shortest: int = 80) -> str:
    """Drop every paragraph of at least `shortest` characters that came before.

    A paragraph that stands both in the training text and in the held-out text would be
    learned by heart and then counted as understood.
    """
    seen: set[str] = set()
    kept = []
    for paragraph in text.replace("\r\n", "\n").split("\n\n"):
        key = " ".join(paragraph.split())
        if len(key) >= shortest and key in seen:
            continue
        seen.add(key)
        kept.append(paragraph)
    return "\n\n".join(kept)
