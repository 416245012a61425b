"""The hours that a session may take, ``ALGOSPACE_MAX_HOURS``: said ahead, then the state is saved and the stage stops.

It cannot change a result, so it is in neither params nor fingerprint: the next run goes on to the same bytes.
"""

import math
import os
import sys
import time
from contextlib import suppress

import psutil

from algospace.errors import InputError

VARIABLE = "ALGOSPACE_MAX_HOURS"
EXIT = 75  # EX_TEMPFAIL of sysexits.h: try again later
WARNED_HOURS = 0.5  # before the limit; a tenth of it where that is less


class SessionEnded(Exception):
    """The hours are over; what was trained is saved."""


class Session:
    """Counts the hours since ``began``, in seconds since 1970."""

    def __init__(self, hours: float, began: float) -> None:
        self.hours, self.began = hours, began
        self._warned = False

    @classmethod
    def of_environment(cls) -> "Session | None":
        """Read the variable; None where it is not set.

        Raises
        ------
        InputError
            When it is no number above 0.
        """
        text = os.environ.get(VARIABLE)
        if not text:
            return None
        try:
            hours = float(text)
        except ValueError:
            hours = math.nan
        if not 0 < hours < math.inf:
            raise InputError(f"{VARIABLE}: expected hours above 0, found {text}")
        return cls(hours, began())

    def is_over(self, stage: str) -> bool:
        """Whether the hours are over; warns once when they are about to be."""
        left = self.hours - (time.time() - self.began) / 3600
        if left <= min(WARNED_HOURS, self.hours / 10) and not self._warned and left > 0:
            self._warned = True
            print(
                f"{stage}: {left * 60:.0f} minutes until {VARIABLE}={self.hours:g}: then it saves and stops",
                file=sys.stderr,
            )
        return left <= 0


def began() -> float:
    """When the ``dvc`` command began that runs this process, else when this process did."""
    own = psutil.Process()
    first: float = own.create_time()
    with suppress(psutil.Error):
        for process in own.parents():
            if is_dvc(process.cmdline()):
                first = min(first, process.create_time())
    return first


def is_dvc(command: list[str]) -> bool:
    """Whether it is ``dvc ...``, ``python .../dvc ...`` or ``python -m dvc ...``: no editor of ``dvc.yaml`` is."""
    if command and os.path.basename(command[0]).startswith("python"):
        command = command[2:] if command[1:2] == ["-m"] else command[1:]
    return bool(command) and os.path.basename(command[0].removesuffix("/__main__.py")) == "dvc"
