"""What a user's mistake raises, and how memory that ran out is told from a mistake of ours."""


class InputError(ValueError):
    """Bad input: one line that names the place, what was expected and what was found.

    Stages and the command line print the message on stderr and exit with code 2, without a traceback.
    """


class BundleError(InputError):
    """A bundle that is incomplete, altered or of another schema; the command line exits with code 3."""


def out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out: Python's, or torch's on the CPU or on CUDA."""
    name = type(error).__name__  # torch is not imported to ask
    return isinstance(error, MemoryError) or name == "OutOfMemoryError" or "can't allocate memory" in str(error)
