r"""How text from outside (names of files, ids, cells of a table) is written down, so that it can be read back.

A file's name may hold anything but ``/`` and NUL: bytes that are not UTF-8 (Python shows each as a lone surrogate),
line ends, marks that change the direction of writing. A spreadsheet runs a cell that begins with ``=``. Every file,
message and log of ours writes such text in one way:

- `shown`: a backslash escape for every character that would break a line or an encoding: ``\n``, ``\r``, ``\t``,
  ``\xfc`` (a byte that is not UTF-8, or a control character), ``\u2028`` (any other), and ``\\`` for a backslash in
  the same text.
- `escape`: for tables and JSON, where text is read back: the same after an apostrophe, which spreadsheets take for
  "this is text". Text that needs no escape is not changed. `unescape` reverses `escape`, and leaves all other text
  alone, such as words that merely begin with an apostrophe.
"""

from __future__ import annotations

import codecs
import re

_MARKS = r"\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff"  # a fixed list: Unicode's own grows with Python
_CONTROLS = rf"[\x00-\x1f\x7f-\x9f{_MARKS}\ud800-\udfff]"
_UNSAFE = re.compile(_CONTROLS)
_SURROGATE = re.compile(r"[\ud800-\udfff]")
_FORMULA = r"\s*[=+\-@\uff1d\uff0b\uff0d\uff20]"
_SPLIT = re.compile(rf";(?={_FORMULA})")  # where a semicolon separates cells, a cell would begin there
_NEEDED = re.compile(rf"\A(?:'|{_FORMULA})|;{_FORMULA}|{_CONTROLS}")
_NUMBER = re.compile(r"-(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?|-inf")
_SHORT = {"\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"}
_LONG = {short: char for char, short in _SHORT.items()}
_CODE = re.compile(r"\\(?:x([0-9a-f]{2})|u([0-9a-f]{4})|[\\nrt])")


def shown(name: object) -> str:
    r"""A name for a message, a log or a page: on one line, and in any encoding.

    Example:
        >>> shown("chest 1.dcm"), shown("M\udcfcller.dcm"), shown("a\nb.dcm")
        ('chest 1.dcm', 'M\\xfcller.dcm', 'a\\nb.dcm')
    """
    text = str(name)
    return _escaped(text) if _UNSAFE.search(text) else text


def escape(text: str) -> str:
    r"""Text as a cell of a table, or in JSON: no spreadsheet runs it, any encoding has it, `unescape` reverses it.

    Negative numbers are not changed.

    Example:
        >>> [escape(text) for text in ("a.png", "=1+1", "-0.5", "'", "M\udcfcller.dcm")]
        ['a.png', "'=1+1", '-0.5', "''", "'M\\xfcller.dcm"]
    """
    return "'" + _escaped(text) if _NEEDED.search(text) and not _NUMBER.fullmatch(text) else text


def unescape(cell: str) -> str:
    r"""The text that `escape` was given; a cell that `escape` cannot have written is returned as it is.

    Example:
        >>> unescape("'M\\xfcller.dcm") == "M\udcfcller.dcm", unescape("'s-Hertogenbosch")
        (True, "'s-Hertogenbosch")
    """

    def character(match: re.Match[str]) -> str:
        if match[1]:
            byte = int(match[1], 16)
            return chr(byte if byte < 0x80 else 0xDC00 + byte)
        return chr(int(match[2], 16)) if match[2] else _LONG[match[0]]

    if not cell.startswith("'"):
        return cell
    text = _CODE.sub(character, cell[1:])
    return text if escape(text) == cell else cell


def encodable(text: str) -> str:
    """Text without lone surrogates, which no encoding has: those alone are escaped."""
    return _SURROGATE.sub(_code, text)


def register_escapes() -> str:
    """Register `shown`'s escapes as an error handler of codecs, for streams such as stdout, and return its name."""

    def replace(error: UnicodeError) -> tuple[str, int]:
        if not isinstance(error, UnicodeEncodeError):
            raise error
        return "".join(map(_code, error.object[error.start : error.end])), error.end

    codecs.register_error(__name__, replace)
    return __name__


def encode_name(text: str) -> bytes:
    """UTF-8 of any text, for checksums: a name that is not UTF-8 has one too."""
    return text.encode("utf-8", "surrogatepass")


def _escaped(text: str) -> str:
    return _SPLIT.sub(r"\\x3b", _UNSAFE.sub(_code, text.replace("\\", "\\\\")))


def _code(char: str | re.Match[str]) -> str:
    """The escape of a character, or of a match of one."""
    char = char[0]
    code = ord(char)
    if char in _SHORT:
        return _SHORT[char]
    if 0xDC80 <= code <= 0xDCFF:  # how Python shows the byte 0x80 to 0xff of a name that is not UTF-8
        return f"\\x{code - 0xDC00:02x}"
    return f"\\x{code:02x}" if code < 0x80 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
