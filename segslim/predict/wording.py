"""Values and errors of others, made fit for one line on a terminal."""

import reprlib
from typing import Any

LONGEST = 120


def shown(value: Any) -> str:
    """The value as Python writes it, cut short; of nested lists that grow without end, too, in little time."""
    short = reprlib.Repr()
    short.maxlevel = 2
    return _cut(short.repr(value))


def one_line(error: BaseException) -> str:
    """What the error says, or its type where it says nothing."""
    return _cut(" ".join(str(error).split()) or type(error).__name__)


def printable(text: str) -> str:
    """The text without what would move the cursor or ring the bell: names of files are not ours."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST else text[:LONGEST] + "..."
