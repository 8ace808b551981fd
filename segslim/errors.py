"""The one exception that reaches a user: what is wrong, where, and what to do, in one line."""


class UserError(Exception):
    """Raised where a fact that the user can mend is known; the command prints it as one line and exits with code 2."""
