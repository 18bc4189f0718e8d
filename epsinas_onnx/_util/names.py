"""Names of files as text that can be written anywhere, and back: the one escaping of every format but JSON."""

from __future__ import annotations

import re

from epsinas_onnx._util.text import output_line, printable

_WHOLE = re.compile(r"(?:[^\\]|\\\\|\\x[0-9a-f]{2}|\\u[0-9a-f]{4}|\\U[0-9a-f]{8})*", re.DOTALL)
_ESCAPE = re.compile(r"\\(?:\\|x[0-9a-f]{2}|u[0-9a-f]{4}|U[0-9a-f]{8})")
_BYTES = 0xDC00  # what stands for a byte that is no UTF-8: os.fsdecode


def escaped(name: str) -> str:
    r"""Return the name on one line, in characters that have a glyph; `unescaped` gives it back.

    A name that holds only such characters stays as it is. In any other, `\xNN` is a byte below 80 (a control character)
    or one that is no UTF-8 where it stands, `\uNNNN` and `\UNNNNNNNN` are other characters without a glyph, and `\\` is
    a backslash. What a CI runner would obey is escaped too: see `printable` and `output_line`.

    >>> escaped("caf\udce9\n.onnx")
    'caf\\xe9\\x0a.onnx'
    >>> escaped("models\\resnet.onnx")
    'models\\resnet.onnx'
    """
    if unescaped(name) == name == output_line(printable(name)):
        return name
    return output_line(printable("".join(map(_written, name))))


def unescaped(text: str) -> str:
    r"""Return the name that `escaped` wrote so; text that it writes for no name is the name itself.

    >>> unescaped("caf\\xe9\\x0a.onnx")
    'caf\udce9\n.onnx'
    """
    if "\\" not in text or not _WHOLE.fullmatch(text):
        return text
    try:
        return _ESCAPE.sub(lambda match: _read(match[0]), text)
    except ValueError:  # beyond the last character
        return text


def _written(character: str) -> str:
    if character == "\\":
        return "\\\\"
    if character.isprintable():
        return character
    code = ord(character)
    if code < 0x80 or _BYTES + 0x80 <= code < _BYTES + 0x100:
        return f"\\x{code & 0xFF:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _read(escape: str) -> str:
    if escape == "\\\\":
        return "\\"
    code = int(escape[2:], 16)
    return chr(code + _BYTES if escape[1] == "x" and code >= 0x80 else code)
