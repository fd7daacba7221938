"""Guess the encoding of a file, and find what is unusual in it. Nothing is changed."""

from __future__ import annotations

import codecs
from collections.abc import Iterator

SAMPLE = 1 << 16  # number of bytes that are examined
MARKS = {  # byte order marks; a mark comes after longer marks that start with it
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF32_LE: "utf-32-le",
    codecs.BOM_UTF32_BE: "utf-32-be",
    codecs.BOM_UTF16_LE: "utf-16-le",
    codecs.BOM_UTF16_BE: "utf-16-be",
}
WIDE = ("utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be")  # two or four bytes a character
CHINESE = "的一是不了在人有我他中上大和地到以要就出可也你生能而子那得下之其天年心，。"
KANA = "のにはをたがでてとしれさいるなかっらもうすりこだまきめくあけど"
CYRILLIC = "оеаинтсрвл"
COMMON = {  # frequent characters of the texts that use an encoding
    "gb18030": CHINESE + "这个们来为国说时会对于着后过还",
    "big5": CHINESE + "這個們來為國說時會對於著後過還",
    "shift_jis": KANA,
    "euc_jp": KANA,
    "euc_kr": "이다는을의에가고하로지도사한기를은어리나",
    "cp1252": "éèàçêñüöäåøáíóú",
    "cp1251": CYRILLIC,
    "koi8-r": CYRILLIC,
}
LETTERS = set("".join(COMMON.values()))


def guess(content: bytes) -> str | None:
    """The likely encoding of these bytes; None if they fit no encoding that is known here."""
    for mark, encoding in MARKS.items():
        if content.startswith(mark):
            return encoding
    at = first_error(content, "utf-8")
    if at is None and 0 not in content:
        return "utf-8"
    for encoding in WIDE:  # without a mark; English in UTF-16 is UTF-8 too, with a NUL a letter
        if _is_wide(content[:SAMPLE], encoding):
            return encoding
    if at is None:
        return "utf-8"
    start = content.rfind(b"\n", 0, at) + 1  # start of a line, so that no character is cut
    sample = content[start : start + SAMPLE]
    text = sample.decode("utf-8", errors="replace")
    wrong = text.count("\ufffd")
    if sum(c > "\x7f" for c in text) > 2 * wrong:
        return "utf-8"  # most characters outside ASCII are valid: only a few bytes are damaged
    shares = {encoding: _share(sample, encoding) for encoding in COMMON}
    # Almost all bytes can be decoded as these three, so common letters must be frequent.
    least = lambda encoding: 0.3 if encoding in ("cp1252", "cp1251", "koi8-r") else 0.01
    likely = {encoding: share for encoding, share in shares.items() if share >= least(encoding)}
    return max(likely, key=lambda encoding: likely[encoding], default=None)


def _is_wide(sample: bytes, encoding: str) -> bool:
    """Whether these bytes read as text in one of WIDE: hardly a control character or an error."""
    text = codecs.getincrementaldecoder(encoding)("replace").decode(sample)  # the end may be cut
    others = [c for c in text if c > "\x7f"]
    odd = sum(c == "\ufffd" or (c < " " and not c.isspace()) for c in text)
    return odd <= 0.02 * len(text) > 0 and sum(c in LETTERS for c in others) >= 0.1 * len(others)


def _share(sample: bytes, encoding: str) -> float:
    """The share of common characters among those outside ASCII; 0 if many bytes are invalid."""
    text = codecs.getincrementaldecoder(encoding)("replace").decode(sample)  # may cut the end
    others = [c for c in text if c > "\x7f"]
    if others.count("\ufffd") > 0.02 * len(others):
        return 0.0
    return sum(c in COMMON[encoding] for c in others) / max(len(others), 1)


def first_error(content: bytes, encoding: str) -> int | None:
    """The offset of the first byte that is invalid in this encoding; None if all are valid."""
    try:
        content.decode(encoding)
    except UnicodeError as error:  # some encodings do not say where
        return getattr(error, "start", 0)
    return None


def unusual(content: bytes, encoding: str | None) -> Iterator[str]:
    """Remarks about the bytes of a file that probably has this encoding."""
    at = first_error(content, "utf-8")
    wrong = at if encoding in (None, "utf-8") else first_error(content, encoding)
    if at is not None:
        errors = "" if wrong is None else " with errors"
        like = "no known encoding" if encoding is None else encoding + errors
        yield f"not UTF-8 (byte {at:,} is 0x{content[at]:02X}), looks like {like}"
    elif wrong is not None:
        yield f"not {encoding} (byte {wrong:,} is 0x{content[wrong]:02X})"
    elif encoding in WIDE:
        yield f"looks like {encoding}"
    if content.startswith(tuple(MARKS)):
        yield "begins with a byte order mark"
    if ends := content.count(b"\r\n"):
        yield f"{ends:,} CRLF line ends"
    if (nuls := content.count(0)) and encoding not in WIDE:
        yield f"{nuls:,} NUL bytes"
