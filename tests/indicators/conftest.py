"""A random market for the indicators: raw and Heiken Ashi bars in sessions, some of them synthetic."""

from types import SimpleNamespace

import numpy as np
import pytest


def random_bars(n: int, seed: int, per_session: int = 46) -> SimpleNamespace:
    rng = np.random.default_rng(seed)
    volatility = 1e-3 * np.exp(0.5 * np.sin(np.arange(n) / 300.0))
    close = 4800.0 * np.exp(np.cumsum(volatility * rng.standard_t(4, n)))
    open_ = np.r_[close[:1], close[:-1]] * np.exp(2e-4 * rng.normal(size=n))
    high = np.maximum(open_, close) * (1 + 5e-4 * np.abs(rng.normal(size=n)))
    low = np.minimum(open_, close) * (1 - 5e-4 * np.abs(rng.normal(size=n)))
    volume = np.floor(rng.lognormal(8.0, 0.6, n))
    is_synthetic = rng.random(n) < 0.01
    is_synthetic[0] = False
    for t in np.flatnonzero(is_synthetic):
        open_[t] = high[t] = low[t] = close[t] = close[t - 1]
        volume[t] = 0.0
    ha_close = (open_ + high + low + close) / 4
    ha_open = np.empty(n)
    ha_open[0] = (open_[0] + close[0]) / 2
    for t in range(1, n):
        ha_open[t] = (ha_open[t - 1] + ha_close[t - 1]) / 2
    return SimpleNamespace(
        open=open_,
        high=high,
        low=low,
        close=close,
        volume=volume,
        is_synthetic=is_synthetic,
        session_id=np.arange(n) // per_session + 20220103,
        ha_open=ha_open,
        ha_high=np.maximum(high, np.maximum(ha_open, ha_close)),
        ha_low=np.minimum(low, np.minimum(ha_open, ha_close)),
        ha_close=ha_close,
    )


@pytest.fixture(scope="session")
def make_bars():
    return random_bars


@pytest.fixture(scope="session")
def bars():
    return random_bars(2500, 7)


@pytest.fixture(scope="session")
def cuts():
    return [0, 1, 2, 3, 30, *np.random.default_rng(5).integers(40, 2500, 12).tolist()]
