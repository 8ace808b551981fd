"""What is said on the standard streams: these may be closed or full, and text that is not ours is made harmless."""

import io
import logging
import os
import re
import sys
import unicodedata
from contextlib import suppress
from pathlib import Path
from typing import Any, TextIO

# Categories of what moves the cursor, rings the bell, turns the direction of writing or is no character at all
_HARMFUL = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})


def printable(text: str) -> str:
    """The text with control characters, and bytes that are not UTF-8, as `\\x1b`: names of files may be anybody's."""
    if text.isprintable():
        return text
    return "".join(
        letter if letter in "\n\t" or unicodedata.category(letter) not in _HARMFUL else _escaped(letter)
        for letter in text
    )


def printable_line(text: str) -> str:
    """The same without line breaks: of what should be one line, no second one can be forged."""
    return printable(text).replace("\n", "\\n").replace("\t", "\\t")


def complain(text: object) -> None:
    """Writes one line to the standard error."""
    with suppress(OSError):  # in a process that was started by a library nobody has prepared them
        print(printable_line(str(text)), file=sys.stderr, flush=True)


def _escaped(letter: str) -> str:
    code = ord(letter)
    byte = code - 0xDC00 if 0xDC80 <= code <= 0xDCFF else code  # how Python holds a byte that it could not decode
    return f"\\x{byte:02x}" if byte < 0x100 else f"\\u{byte:04x}"


class _Forgiving(io.FileIO):
    """Loses what nobody takes: a reader that has gone (`| head`), a full disk. The work behind it goes on."""

    def write(self, content: Any) -> int:
        try:
            return super().write(content)
        except OSError:
            return len(content)


def stream(descriptor: int, owned: bool = False) -> TextIO:
    """Text to a descriptor, a line at a time, in UTF-8. Where it is `owned`, closing the one closes the other."""
    raw = io.BufferedWriter(_Forgiving(descriptor, "w", closefd=owned))
    return io.TextIOWrapper(raw, encoding="utf-8", errors="backslashreplace", line_buffering=True)


def prepare() -> None:
    """To be called first in a program: from then on it can write to its standard streams whatever they are.

    A closed one is opened on nothing: otherwise the next file would get its number, and what is said be written there.
    """
    posix_locale = sys.getfilesystemencoding() != "utf-8" and sys.platform != "win32"  # yet names and files are UTF-8
    if posix_locale or sys.flags.optimize:
        _start_again(utf8=posix_locale)
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    if sys.platform == "win32":  # its console reads what is written in the code page of its country otherwise
        import ctypes

        ctypes.windll.kernel32.SetConsoleOutputCP(65001)
    sys.stdout, sys.stderr = stream(1), stream(2)
    logging.raiseExceptions = False  # a log that cannot be written is no reason for a traceback a line
    for text in (*sys.argv, _current_folder()):
        try:
            text.encode()
        except UnicodeEncodeError:
            complain(f"error: {text}: is not in UTF-8: rename it")
            sys.exit(2)


def _start_again(utf8: bool) -> None:
    """The same program, in UTF-8, and with the assertions that -O leaves out: libraries check what they are given by
    them, and Hydra's parser reads on in them.
    """
    first = len(sys.orig_argv) - len(sys.argv)  # of what is not Python's own options
    flags = [re.sub("O", "", one) if re.fullmatch("-[bBdEiIOPqsSuvx]+", one) else one for one in sys.orig_argv[1:first]]
    os.environ.pop("PYTHONOPTIMIZE", None)
    if utf8:
        os.environ["PYTHONUTF8"] = "1"
        flags = ["-X", "utf8", *flags]
    os.execv(sys.executable, [sys.executable, *(one for one in flags if one != "-"), *sys.orig_argv[first:]])


def _current_folder() -> str:
    try:
        return str(Path.cwd())
    except OSError as error:
        complain(f"error: the current folder cannot be used ({error.strerror}): change to another")
        sys.exit(2)
