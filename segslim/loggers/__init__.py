"""Where a run's numbers go as they come: one file a logger, none by default. No fingerprint knows of it.

A logger is what `logger.writer` in the config names; it is made with the run's folder as `folder`. It takes tags and
numbers, and must not know what they mean.
"""

from typing import Protocol


class Logger(Protocol):
    """Takes numbers, each with a tag like "retrain/loss", and the iteration that it belongs to."""

    def scalar(self, tag: str, value: float, step: int) -> None: ...

    def close(self) -> None:
        """Writes what is not written yet."""
