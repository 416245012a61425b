"""What is fitted on train rows and frozen: MMD references, scales of the regime rows and of the tactical set."""

from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from algospace.data import bars as bars_module
from algospace.data.bars import Columns
from algospace.data.continuous import Continuous
from algospace.errors import InputError
from algospace.features import table
from algospace.indicators import mmd, signature, technical
from algospace.indicators.params import IndicatorParams

# Half of the distance between the 5th and the 95th percentile of a standard normal, in standard deviations.
_QUANTILE_SD = 1.6448536269514722
CLIP = 5.0  # scaled features are cut at this many scales


class Scale(NamedTuple):
    """A robust linear scale: ``(x - center) / scale``, cut at +-`CLIP`; arrays (features,)."""

    center: np.ndarray
    scale: np.ndarray

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        """Scale rows (n, features) to float32; NaN stays NaN."""
        scaled: np.ndarray = np.clip((rows - self.center) / self.scale, -CLIP, CLIP).astype(np.float32)
        return scaled

    @classmethod
    def fit(cls, rows: np.ndarray, center: np.ndarray | None = None) -> "Scale":
        """Center (the median unless given) and scale (from the 5 % and 95 % quantiles) of finite rows."""
        low, median, high = np.nanquantile(rows, [0.05, 0.5, 0.95], axis=0)
        if center is None:
            center = median
        reach = np.maximum(high - center, center - low) / _QUANTILE_SD
        return cls(center, np.where(reach > 0, reach, 1.0))


class Fitted(NamedTuple):
    """All fitted state of the features."""

    reference: mmd.MMDReference
    regime: Scale
    tactical: Scale

    def tensors(self) -> dict[str, np.ndarray]:
        """Flat arrays, for an artefact."""
        nested = {name: part._asdict() for name, part in self._asdict().items()}
        return {f"{part}/{name}": np.asarray(x) for part, items in nested.items() for name, x in items.items()}

    @classmethod
    def from_tensors(cls, tensors: dict[str, np.ndarray]) -> "Fitted":
        """Inverse of `tensors`; `InputError` names what is missing."""

        def part(name: str, kind: Any) -> Any:
            try:
                return kind(**{field: tensors[f"{name}/{field}"] for field in kind._fields})
            except KeyError as error:
                raise InputError(f"fitted features: expected an array {error}, found none") from None

        return cls(part("reference", mmd.MMDReference), part("regime", Scale), part("tactical", Scale))


def tactical_rows(m5: pd.DataFrame | Columns) -> np.ndarray:
    """The nine tactical features (n, 9), float64: oscillators about their neutral value, MACD in percent of price."""
    percent = 100.0 / np.asarray(m5["close"])
    columns = {name: np.asarray(m5[name]) for name in table.SIDE}
    columns["rsi_14"] = columns["rsi_14"] - 50.0
    columns["stoch_k"] = columns["stoch_k"] - 50.0
    columns["bb_percent"] = columns["bb_percent"] - 0.5
    columns["macd"] = columns["macd"] * percent
    columns["macd_signal"] = columns["macd_signal"] * percent
    return np.column_stack(list(columns.values()))


def fit(bars: pd.DataFrame, train: np.ndarray, params: IndicatorParams, seed: int) -> Fitted:
    """Fit everything on the train rows.

    Parameters
    ----------
    bars
        The bars table up to the last train row at least; later rows are not looked at.
    train
        Bool (n,), true on train rows; they come first.
    seed
        Of the mixture and of the reference subsample.
    """
    bars = bars[train].reset_index(drop=True)
    m30 = bars_module.resample(bars)
    _, prices = Continuous().update(m30)
    ha = bars_module.heiken_ashi(*prices)
    volume = m30["volume"].to_numpy()
    path = mmd.path(*ha, volume)
    reference = mmd.fit(path, np.ones(len(m30), dtype=bool), params.mmd, seed)
    if params.mmd.kind == "sig155":
        regime = signature.sig155(path, reference.center, reference.scale, params.mmd.window)
    else:
        regime = mmd.mmd12(path, ha.close, volume, reference, params.mmd.window)
    _, (o, h, l, c) = Continuous().update(bars)
    columns = technical.tactical(o, h, l, c, bars["volume"].to_numpy(), params.volume_window, params.momentum_bars)
    tactical = tactical_rows(pd.DataFrame(columns | {"close": c}))
    # Directional features keep their neutral value at zero, so that a mirrored market is the mirrored feature.
    neutral = np.where(np.isin(table.SIDE, ("adx_14", "volume_ratio")), np.nanmedian(tactical, axis=0), 0.0)
    return Fitted(reference, Scale.fit(regime), Scale.fit(tactical, neutral))
