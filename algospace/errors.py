"""The one exception that a user's mistake raises."""


class InputError(ValueError):
    """Bad input: one line that names the place, what was expected and what was found.

    Stages and the command line print the message on stderr and exit with code 2, without a traceback.
    """


class BundleError(InputError):
    """A bundle that is incomplete, altered or of another schema; the command line exits with code 3."""
