"""Foreign text in plots: drawn without mathematics, in fonts that have its characters."""

from __future__ import annotations

from typing import Any

from .errors import visible


def plain(text: object, longest: int | None = None) -> tuple[str, dict[str, Any]]:
    """The text to draw, and the properties to draw it with.

    Matplotlib reads "$_^{$" as mathematics and fails, and its own font has no Chinese. So the text
    is drawn literally, in fonts of this machine that have its characters. A character that no font
    has is written as a Python escape ("\\u7ea2").
    """
    from matplotlib.font_manager import FontProperties, findfont, fontManager

    shown = visible(text, longest)
    usual = FontProperties()
    families, missing = usual.get_family(), _missing(findfont(usual), shown)
    of_boxes = lambda font: "lastresort" in font.name.replace(" ", "").lower()
    fonts = [font for font in fontManager.ttflist if not of_boxes(font)]
    regular = lambda font: (font.style != "normal", font.weight != 400, "Sans" not in font.name)
    while missing:
        best = min(fonts, key=lambda f: (len(_missing(f.fname, missing)), regular(f)))
        left = _missing(best.fname, missing)
        if left == missing:
            break
        families, missing = [*families, best.name], left
    shown = "".join(
        c.encode("unicode_escape").decode("ascii") if c in missing else c for c in shown
    )
    return shown, {"parse_math": False, "fontfamily": families}


def _missing(file: str, text: str) -> str:
    """The characters of a text that a font file lacks; all if matplotlib cannot use the file."""
    from matplotlib.font_manager import get_font

    try:
        font = get_font(file)
    except (OSError, RuntimeError):
        return text
    return "".join(c for c in text if not font.scalable or not font.get_char_index(ord(c)))
