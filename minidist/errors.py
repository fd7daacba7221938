"""The error of a user's input: one line that names the value and the remedy."""


class UserError(ValueError):
    """Something given was wrong; the command line prints it alone and exits with code 2."""
