"""The one error that the tool shows to a person."""


class UserError(Exception):
    """Something the user can mend. The command prints its message as one line and exits with 2."""
