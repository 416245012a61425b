"""MMD, the maximum mean discrepancy of the recent path of the market to reference regimes (Gretton 2012).

A row of the path is what one 30-minute bar did; a window of rows is compared, as a sample, with one sample of
rows for each reference regime. The references are found on the train rows by a Gaussian mixture.
"""

from typing import Literal, NamedTuple

import numpy as np
from numba import njit
from pydantic import Field

from algospace.errors import InputError
from algospace.indicators.arrays import Bools, Floats, Ints, Tail, aligned
from algospace.params import Params

KERNEL_SCALES = (0.25, 0.5, 1.0, 2.0, 4.0)  # bandwidths in median distances, each twice the one before
WINDOWS_PER_LENGTH = 8  # windows that the mixture sees start this often per window length


class MMDParams(Params):
    """MMD scores or path signature as regime rows; window in bars; number of reference regimes, rows kept of each."""

    kind: Literal["mmd12", "sig155"]
    window: int = Field(ge=4)
    references: int = Field(ge=1)
    reference_size: int = Field(ge=2)


class MMDReference(NamedTuple):
    """What was fitted on train: scaling of the rows, reference rows and kernel.

    ``center`` and ``scale`` (4,): median and 1.4826 times the median absolute deviation; ``points``
    (references, m, 4): scaled rows, calm regimes first; ``median_distance``: of two scaled train rows;
    ``kernel_scales`` (5,): bandwidths in median distances.
    """

    center: Floats
    scale: Floats
    points: Floats
    median_distance: float
    kernel_scales: Floats


def path(ha_open: Floats, ha_high: Floats, ha_low: Floats, ha_close: Floats, volume: Floats) -> Floats:
    """Describe each bar by four numbers.

    Returns
    -------
    array (n, 4)
        Log return of the Heiken Ashi close; log range ``ln(high / low)``, 0 for a bar without range; log
        change of the volume, 0 where this bar or the one before has none; body over range
        ``(close - open) / (high - low)``, 0 without range. Always finite but for row 0, which is NaN.

    Raises
    ------
    InputError
        When the arrays differ in length.

    Notes
    -----
    Causal: row t uses bars t - 1 and t; sessions are concatenated.
    """
    return PathStream().update(ha_open, ha_high, ha_low, ha_close, volume)


class PathStream:
    """`path` of bars that come one after the other."""

    def __init__(self) -> None:
        self._bars = Tail(1)

    def update(self, ha_open: Floats, ha_high: Floats, ha_low: Floats, ha_close: Floats, volume: Floats) -> Floats:
        """Return the rows of the next bars, (n, 4)."""
        columns = aligned("mmd.path", ha_open=ha_open, ha_high=ha_high, ha_low=ha_low, ha_close=ha_close, volume=volume)
        rows: Floats = _path(*self._bars.join(*columns))[self._bars.front :]
        return rows


def fit(z: Floats, train_mask: Bools, params: MMDParams, seed: int) -> MMDReference:
    """Find the reference regimes among the train rows.

    Six numbers sum up each window of rows that lies wholly in train (one starts every eighth of a window):
    volatility and sum of its returns, volume against that of its first half, span of its closes over their
    mean, mean direction of the bars, shadows over bodies. A Gaussian mixture with full covariances on the
    standardised summaries assigns each window to a component; the rows of a component's windows are its
    regime, of which ``reference_size`` are drawn. A component with fewer rows takes those of the windows next
    likely to be its own.

    Parameters
    ----------
    z : array (n, 4)
        Rows of :func:`path`; rows with NaN are not used.
    train_mask : bool array (n,)
        Train rows. No other row is looked at.
    seed : int
        Of the mixture and of the draws.

    Returns
    -------
    MMDReference
        Components in order of their mean volatility. The same input gives the same bits.

    Raises
    ------
    InputError
        When train holds fewer rows than a reference, or fewer windows than there are references.
    """
    # Here and not above: they take a second to import, and whoever computes scores fits nothing.
    from scipy.spatial.distance import pdist
    from sklearn.mixture import GaussianMixture
    from threadpoolctl import threadpool_limits

    usable = np.asarray(train_mask, dtype=np.bool_) & np.isfinite(z).all(axis=1)
    rows = z[usable]
    windows = _windows(usable, params.window, max(1, params.window // WINDOWS_PER_LENGTH))
    if len(windows) < max(params.references, 2) or len(rows) < params.reference_size:
        raise InputError(
            f"indicators.mmd: expected {max(params.references, 2)} windows of {params.window} bars and "
            f"{params.reference_size} rows in the train split, found {len(windows)} and {len(rows)}"
        )
    center = np.median(rows, axis=0)
    scale = 1.4826 * np.median(np.abs(rows - center), axis=0)
    scale = np.where(scale > 0, scale, rows.std(axis=0))
    scale = np.where(scale > 0, scale, 1.0)
    scaled = (z - center) / scale

    summaries = _summaries(z[windows])
    spread = summaries.std(axis=0)
    summaries = (summaries - summaries.mean(axis=0)) / np.where(spread > 0, spread, 1.0)
    mixture = GaussianMixture(
        params.references, covariance_type="full", reg_covar=1e-3, max_iter=1000, random_state=seed
    )
    with threadpool_limits(limits=1):  # sums of another thread count have other bits
        likelihood = mixture.fit(summaries).predict_proba(summaries)
    component = likelihood.argmax(axis=1)

    rng = np.random.default_rng(seed)
    points = np.empty((params.references, params.reference_size, z.shape[1]))
    for regime, own in enumerate(np.argsort(mixture.means_[:, 0], kind="stable")):
        # The component's own windows first, then the others, each by falling likelihood.
        ranked = windows[np.lexsort((-likelihood[:, own], component != own))]
        taken = max(1, int(np.count_nonzero(component == own)))
        members = np.unique(ranked[:taken])
        while members.size < params.reference_size and taken < len(ranked):
            members = np.union1d(members, ranked[taken])
            taken += 1
        if members.size < params.reference_size:
            members = np.flatnonzero(usable)
        points[regime] = scaled[np.sort(rng.choice(members, params.reference_size, replace=False))]

    sample = rng.choice(len(rows), min(len(rows), params.references * params.reference_size), replace=False)
    median = float(np.median(pdist(scaled[usable][np.sort(sample)])))
    return MMDReference(center, scale, points, median if median > 0 else 1.0, np.array(KERNEL_SCALES))


def mmd12(z: Floats, ha_close: Floats, volume: Floats, reference: MMDReference, window: int) -> Floats:
    """Compare the last ``window`` rows with each reference, and sum them up.

    The first columns, one a reference (7 as configured), are the unbiased
    ``MMD^2 = mean_{i != j} k(x_i, x_j) + mean_{i != j} k(y_i, y_j) - 2 mean k(x_i, y_j)``, negative at times
    when window and reference are alike, with k the mean over the kernel scales s of
    ``exp(-|x - y|^2 / (2 s^2 median_distance^2))``. Five statistics of the window follow: population
    standard deviation, skewness, excess kurtosis of the log returns of ``ha_close``, coefficient of variation
    of the volume, lag-1 autocorrelation of the returns (0 where a deviation is 0).

    Parameters
    ----------
    z : array (n, 4)
        Rows of :func:`path`.
    ha_close, volume : array (n,)
        Heiken Ashi close and volume of the same bars.

    Returns
    -------
    array (n, references + 5)
        NaN until ``window`` finite rows in a row have been seen.

    Raises
    ------
    InputError
        When the arrays differ in length, or the kernel scales do not double from one to the next.

    Notes
    -----
    Causal for a given reference: row t uses rows t - window + 1 .. t. Every sum over a window is taken afresh
    from terms kept for each row, so that no rounding is carried from one window to the next.
    """
    return Stream(reference, window).update(z, ha_close, volume)


class Stream:
    """`mmd12` of bars that come one after the other; it remembers the kernels of one window."""

    def __init__(self, reference: MMDReference, window: int) -> None:
        scales = reference.kernel_scales
        if not (scales[1:] == 2.0 * scales[:-1]).all():
            raise InputError(f"mmd.mmd12: kernel_scales {scales} do not double one by one")
        self.reference, self.window = reference, window
        self._points = np.ascontiguousarray(reference.points)
        self._kernel = 1.0 / (2.0 * (scales[-1] * reference.median_distance) ** 2), scales.size
        self._within = _mean_within(self._points, *self._kernel)
        self._rows, self._bars = Tail(window - 1), Tail(window)
        # Of the newest rows, row number t in slot t % window: the sums of its kernels with each reference's points,
        # and with the d rows before it.
        self._across = np.empty((window, len(self._points)))
        self._back = np.empty((window, window))
        self._counts = np.zeros(2, np.int64)  # rows so far, finite ones in a row

    def update(self, z: Floats, ha_close: Floats, volume: Floats) -> Floats:
        """Return the rows of the next bars, (n, references + 5)."""
        close, volume = aligned("mmd.mmd12", ha_close=ha_close, volume=volume)
        if z.shape != (close.size, self.reference.center.size):
            raise InputError(
                f"mmd.mmd12: z has shape {z.shape}, expected {(close.size, self.reference.center.size)}, as ha_close"
            )
        out = np.full((close.size, len(self._points) + 5), np.nan)
        (scaled,) = self._rows.join((z - self.reference.center) / self.reference.scale)
        _mmd(
            scaled, self._rows.front, self._points, self._within, *self._kernel, self._across, self._back,
            self._counts, out,
        )  # fmt: skip
        close, volume = self._bars.join(close, volume)
        _statistics(close, volume, self._bars.front, self.window, len(self._points), out)
        return out


def _windows(usable: Bools, length: int, stride: int) -> Ints:
    """Row numbers (windows, length) of the windows whose rows are all usable."""
    starts = np.arange(0, usable.size - length + 1, stride)
    rows: Ints = starts[:, None] + np.arange(length)
    return rows[usable[rows].all(axis=1)]


def _summaries(windows: Floats) -> Floats:
    """Six numbers a window, (windows, 6) from (windows, length, 4)."""
    returns, log_range, volume_change, body = np.moveaxis(windows, 2, 0)
    price = np.exp(np.cumsum(returns, axis=1))
    log_volume = np.cumsum(volume_change, axis=1)
    volume = np.exp(log_volume - log_volume.max(axis=1, keepdims=True))
    bodies = (np.abs(body) * log_range).sum(axis=1)
    shadows = log_range.sum(axis=1) - bodies
    half = windows.shape[1] // 2
    return np.stack(
        [
            returns.std(axis=1),
            returns[:, 1:].sum(axis=1),
            np.log(volume.mean(axis=1) / volume[:, :half].mean(axis=1)),
            (price.max(axis=1) - price.min(axis=1)) / price.mean(axis=1),
            np.sign(body).mean(axis=1),
            np.divide(shadows, bodies, out=np.zeros(len(windows)), where=bodies > 0),
        ],
        axis=1,
    )


@njit(cache=True)
def _path(open_, high, low, close, volume):  # type: ignore[no-untyped-def]
    n = close.size
    z = np.full((n, 4), np.nan)
    for t in range(1, n):
        span = high[t] - low[t]
        z[t, 0] = np.log(close[t] / close[t - 1])
        z[t, 1] = np.log(high[t] / low[t]) if span > 0.0 else 0.0
        z[t, 2] = np.log(volume[t] / volume[t - 1]) if volume[t] > 0.0 and volume[t - 1] > 0.0 else 0.0
        z[t, 3] = (close[t] - open_[t]) / span if span > 0.0 else 0.0
    return z


@njit(cache=True)
def _kernel(x, y, widest, scales):  # type: ignore[no-untyped-def]
    squared = 0.0
    for c in range(x.size):
        squared += (x[c] - y[c]) ** 2
    term = np.exp(-squared * widest)
    total = term
    for _ in range(scales - 1):
        if term < 1e-6:  # its fourth power is below half a unit in the last place of the sum
            break
        term *= term  # half the bandwidth is the fourth power
        term *= term
        total += term
    return total / scales


@njit(cache=True)
def _mean_within(points, widest, scales):  # type: ignore[no-untyped-def]
    references, m, _ = points.shape
    within = np.zeros(references)
    for r in range(references):
        for i in range(m):
            for j in range(i):
                within[r] += _kernel(points[r, i], points[r, j], widest, scales)
        within[r] *= 2.0 / (m * (m - 1))
    return within


@njit(cache=True)
def _mmd(x, front, points, within, widest, scales, across, back, counts, out):  # type: ignore[no-untyped-def]
    references, m, _ = points.shape
    window = across.shape[0]
    clock, run = counts
    for row in range(front, x.shape[0]):
        t = clock
        clock += 1
        if not np.isfinite(x[row]).all():
            run = 0
            continue
        run += 1
        slot = t % window
        for r in range(references):
            acc = 0.0
            for j in range(m):
                acc += _kernel(x[row], points[r, j], widest, scales)
            across[slot, r] = acc
        back[slot, 0] = 0.0
        for d in range(1, min(run, window)):
            back[slot, d] = back[slot, d - 1] + _kernel(x[row], x[row - d], widest, scales)
        if run < window:
            continue
        own = 0.0
        for d in range(window):
            own += back[(t + 1 + d) % window, d]
        own *= 2.0 / (window * (window - 1))
        for r in range(references):
            acc = 0.0
            for d in range(window):
                acc += across[(t + 1 + d) % window, r]
            out[row - front, r] = own + within[r] - 2.0 * acc / (window * m)
    counts[0], counts[1] = clock, run


@njit(cache=True)
def _statistics(close, volume, front, window, references, out):  # type: ignore[no-untyped-def]
    r = np.full(close.size, np.nan)
    for t in range(1, close.size):
        r[t] = np.log(close[t] / close[t - 1])
    for row in range(out.shape[0]):
        if np.isnan(out[row, 0]):
            continue
        t = front + row
        first = t - window + 1
        mean = 0.0
        mean_volume = 0.0
        for i in range(first, t + 1):
            mean += r[i]
            mean_volume += volume[i]
        mean /= window
        mean_volume /= window
        m2 = m3 = m4 = lag = volume_m2 = 0.0
        for i in range(first, t + 1):
            d = r[i] - mean
            m2 += d * d
            m3 += d * d * d
            m4 += d * d * d * d
            if i > first:
                lag += d * (r[i - 1] - mean)
            volume_m2 += (volume[i] - mean_volume) ** 2
        variance = m2 / window
        deviation = np.sqrt(variance)
        moving = deviation > 1e-12  # returns that differ by less differ by rounding
        out[row, references] = deviation
        out[row, references + 1] = m3 / window / (variance * deviation) if moving else 0.0
        out[row, references + 2] = m4 / window / (variance * variance) - 3.0 if moving else 0.0
        out[row, references + 3] = np.sqrt(volume_m2 / window) / mean_volume if mean_volume > 0.0 else 0.0
        out[row, references + 4] = lag / m2 if moving else 0.0
