"""Sizes and ages as people write them."""

import re
from argparse import ArgumentTypeError
from collections.abc import Mapping

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_BYTES = {"B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}


def seconds_of(text: str) -> float:
    """ "30d" -> 2592000.0. Raises ArgumentTypeError for anything else than a number and s, m, h, d or w."""
    return _parse(text, _SECONDS)


def bytes_of(text: str) -> int:
    """ "10GB" -> 10000000000. Raises ArgumentTypeError for anything else than a number and B, KB, MB, GB or TB."""
    return int(_parse(text, _BYTES))


def age(seconds: float) -> str:
    """The largest unit that fits: 93784 -> "26 h"."""
    for unit, limit in (("s", 120), ("m", 120), ("h", 48), ("d", float("inf"))):
        count = seconds / _SECONDS[unit]
        if count < limit:
            break
    return f"{count:.0f} {unit}"


def size(count: float) -> str:
    """Three digits and a unit: 5730000 -> "5.73 MB"."""
    for unit in _BYTES:
        scaled = count / _BYTES[unit]
        if scaled < 1000:
            break
    return f"{scaled:.3g} {unit}"


def took(seconds: float | None) -> str:
    """ "34.1 s", "?" where it is not known."""
    return "?" if seconds is None else f"{seconds:.1f} s"


def _parse(text: str, units: Mapping[str, int]) -> float:
    match = re.fullmatch(r"(\d+(?:\.\d+)?) ?([A-Za-z]+)", text)
    by_name = {unit.lower(): count for unit, count in units.items()}
    if match is None or match[2].lower() not in by_name:
        raise ArgumentTypeError(f"{text}: should be a number and one of {', '.join(units)}")
    return float(match[1]) * by_name[match[2].lower()]
