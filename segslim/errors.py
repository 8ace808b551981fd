"""The exceptions that reach a user: what is wrong, where, and what to do, in one line; and that a run was stopped."""

import signal
import sys
from collections.abc import Callable


class UserError(Exception):
    """Raised where a fact that the user can mend is known; the command prints it as one line and exits with code 2."""


class Interrupted(KeyboardInterrupt):
    """A signal asked the run to end, and it ended where the same command can go on; `reached` says where that is."""

    def __init__(self, number: int, reached: str = "what is finished is kept") -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}: {reached}; the same command goes on from there")
        self.exit_code = 128 + number
        self.reached = reached


def exit_code_of(command: Callable[[], int]) -> int:
    """Runs a command of `python -m segslim...`: what it returns; 2 for a UserError, which is one line on the screen."""
    try:
        return command()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
