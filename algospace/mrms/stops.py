"""How far the stop lies in price: a multiple of the ATR, or just beyond a low volume node (LVN) behind it."""

import numpy as np
import pandas as pd

from algospace import market
from algospace.data.bars import Columns
from algospace.mrms.params import LVNParams


def stop_distances(
    events: pd.DataFrame | Columns, side: np.ndarray, multiple: np.ndarray, largest: float, lvn: LVNParams, tick: float
) -> tuple[np.ndarray, np.ndarray]:
    """Stop distances in price, and where a node moved them.

    Prices reject a low volume node, so a stop that lies just before a strong one is best kept behind it. A node behind
    the entry (support of a long, resistance of a short) that is stronger than ``lvn.min_strength`` and lies at the
    stop or at most ``lvn.reach_atr`` beyond it puts the stop ``lvn.buffer_ticks`` beyond the node. No stop lies
    farther than ``largest + lvn.reach_atr``.

    Parameters
    ----------
    events
        Rows of the feature table, n of them: ``close``, ``m30_atr`` and the LVN columns.
    side, multiple
        +1 or -1, and the stop in 30-minute ATR: arrays that broadcast together, their first axis n.
    largest
        Largest multiple of the grid.

    Returns
    -------
    distance, at_level
        float64 and bool arrays of the broadcast shape. Distances are taken from the event's close and are whole
        ticks, at least one.

    Notes
    -----
    Everything is known at the event's close.
    """
    rest = (1,) * (np.broadcast(side, multiple).ndim - 1)

    def column(name: str) -> np.ndarray:
        numbers: np.ndarray = np.asarray(events[name], np.float64).reshape(-1, *rest)
        return numbers

    close, atr = column("close"), column("m30_atr")
    plain = market.stop_distance(atr, multiple, tick)
    long = side > 0
    level = np.where(long, column("m30_lvn_support_price"), column("m30_lvn_resistance_price"))
    strength = np.where(long, column("m30_lvn_support_strength"), column("m30_lvn_resistance_strength"))
    behind = side * (close - level)  # comparisons with an unknown level (NaN) are false
    beyond = (np.ceil(np.nan_to_num(behind) / tick - 1e-9) + lvn.buffer_ticks) * tick
    at_level: np.ndarray = (
        (strength > lvn.min_strength)
        & (behind >= plain)
        & (behind <= plain + lvn.reach_atr * atr)
        & (beyond <= (largest + lvn.reach_atr) * atr)
    )
    distance: np.ndarray = np.where(at_level, beyond, plain)
    return distance, at_level
