"""Savers and the run time that the tests of training share."""

from algospace import training
from algospace.params import RuntimeParams

RUNTIME = RuntimeParams(threads=1, device="cpu", precision="float32", clear_memory_interval=0)


class Hook(training.Unsaved):
    """Calls back at every step; goes on from a given state."""

    def __init__(self, on_step=lambda step, snapshot: None, resumed=None):
        self.on_step, self.resumed = on_step, resumed

    def __call__(self, step, snapshot):
        self.on_step(step, snapshot)
