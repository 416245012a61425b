"""M-RMS, the risk subsystem: how many units, how far the stop, how far the target."""
