"""Prices made continuous across rolls, so that differences and returns lie inside one contract (domain.md A3)."""

import numpy as np
import pandas as pd

from algospace.data.bars import PRICES, Columns, FloatArray


class Continuous:
    """Continuous prices of bars that come one after the other.

    The factor of a contract is that of the one before, times the last close of that one over the first open of its
    own: multiplied by it, prices have no jump at a roll. The first contract has 1. Levels found in continuous prices
    are divided by the factor to be traded ones. Causal: a factor is known at the first open of its contract.
    """

    def __init__(self) -> None:
        self._contract: int | None = None
        self._close = np.nan
        self._factor = 1.0

    def update(self, bars: pd.DataFrame | Columns) -> tuple[FloatArray, list[FloatArray]]:
        """Return the factors of the next bars (n,), and their open, high, low and close times these."""
        open, close, contract = (np.asarray(bars[name]) for name in ("open", "close", "contract_id"))
        factor = np.full(open.size, self._factor)
        before = np.append(contract[:1] if self._contract is None else self._contract, contract[:-1])[: open.size]
        for row in np.flatnonzero(contract != before):
            self._factor *= (close[row - 1] if row else self._close) / open[row]
            factor[row:] = self._factor
        if open.size:
            self._contract, self._close = int(contract[-1]), float(close[-1])
        return factor, [np.asarray(bars[name]) * factor for name in PRICES]
