"""The communication layer of M-RMS: what an account's last trades say of the next one, and how sure that is.

An LSTM and a memory of the last 20 trades read the closed trades of ONE account; eight numbers summarise them, and
linear read-outs of these predict the next trade. It is trained on simulated trades of train, stopped and calibrated on
those of select. Nothing it reads about trade t is newer than trade t - 1.
"""

from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.optimize import minimize_scalar
from torch import Tensor, nn
from torch.nn import functional as F

from algospace import nets, training
from algospace.calibration import calibration_error
from algospace.errors import InputError
from algospace.mrms.params import CommunicationParams
from algospace.mrms.track import Track
from algospace.params import RuntimeParams

MEMORY = 20  # trades that the memory, the win rate and the losing streak look back on
# The eight quantities of the next trade: each has a mean and a standard deviation, in the units of `Track`.
PREDICTED = ("units", "stop", "reward_risk", "confidence", "hits_stop", "hits_target", "net_r", "bars")
EMBEDDING = 8
GAUSSIAN, EVENT, NET_R = [0, 1, 2, 3, 6, 7], [4, 5], 6
LARGEST_R = 5.0  # net R is cut to +-5, the largest target: a gap through a stop shall not rule the loss
SMALLEST_SD = 0.02  # a third of what the grids of units, stop and reward-risk round to
PRIOR_TRADES, PRIOR_WIN_RATE = 5, 0.5


def _codes(track: Track) -> np.ndarray:
    """Trades as the layer sees them, float32 (n, 8), the columns of `PREDICTED`; net R is cut.

    Raises `InputError` for another shape or NaN.
    """
    n = len(track.risk)
    for name in ("risk", "outcome"):
        part = getattr(track, name)
        if part.shape != (n, 4):
            raise InputError(f"mrms communication: expected {name} of shape ({n}, 4), found {part.shape}")
        if not np.isfinite(part).all():
            raise InputError(f"mrms communication: expected finite {name}, found NaN or inf")
    codes = np.concatenate([track.risk, track.outcome], axis=1).astype(np.float32)
    codes[:, NET_R] = codes[:, NET_R].clip(-LARGEST_R, LARGEST_R)
    return codes


def histories(track: Track, length: int) -> tuple[np.ndarray, np.ndarray]:
    """What is known before each trade of a track, and after the last: n + 1 moments.

    Returns
    -------
    trades
        float32 (n + 1, length, 8): the last ``length`` trades before the moment, oldest first, zeros after them.
    count
        int64 (n + 1,): how many they are.
    """
    codes = _codes(track)
    moment = np.arange(len(codes) + 1)
    count = np.minimum(moment, length)
    index = (moment - count)[:, None] + np.arange(length)
    padded = np.concatenate([codes, np.zeros((length, 8), np.float32)])
    trades = np.where((np.arange(length) < count[:, None])[..., None], padded[index], np.float32(0))
    return trades, count


class TrackNet(nn.Module):
    """LSTM (2 x 16, learned first state) and memory (60-32-16) -> embedding 8 -> the next trade.

    The read-outs start at the constants of the train trades (``base``: their means and standard deviations), so that
    training can only add what the past trades tell.
    """

    def __init__(self, length: int, hidden_dim: int, dropout: float) -> None:
        super().__init__()
        self.config = {k: v for k, v in locals().items() if k not in ("self", "__class__")}
        self.lstm = nn.LSTM(len(PREDICTED), hidden_dim, num_layers=2, dropout=dropout, batch_first=True)
        self.hidden = nn.Parameter(torch.zeros(2, 1, hidden_dim))
        self.cell = nn.Parameter(torch.zeros(2, 1, hidden_dim))
        self.memory = nn.Sequential(nn.Linear(3 * MEMORY, 32), nn.ReLU(), nn.Linear(32, 16), nn.ReLU())
        self.embed = nn.Linear(hidden_dim + 16, EMBEDDING)
        self.mean = nn.Linear(EMBEDDING, len(PREDICTED))  # logits for the two events
        self.log_scale = nn.Linear(EMBEDDING, len(GAUSSIAN))
        self.base: Tensor
        self.temperature: Tensor
        self.scale: Tensor
        self.register_buffer("base", torch.zeros(2, len(PREDICTED)))
        self.register_buffer("temperature", torch.ones(len(EVENT)))
        self.register_buffer("scale", torch.ones(len(GAUSSIAN)))

    def start_at(self, codes: Tensor) -> None:
        """Take the constants of the train trades ``codes`` (n, 8)."""
        mean, sd = codes.mean(0), codes.std(0, correction=0)
        # Half a trade each way keeps an event that never happened possible.
        mean[EVENT] = (codes[:, EVENT].sum(0) + 0.5) / (len(codes) + 1)
        sd[EVENT] = (mean[EVENT] * (1 - mean[EVENT])).sqrt()
        sd[GAUSSIAN] = (sd[GAUSSIAN] ** 2 + SMALLEST_SD**2).sqrt()
        self.base.copy_(torch.stack([mean, sd]))
        with torch.no_grad():
            mean[EVENT] = torch.logit(mean[EVENT])
            self.mean.bias.copy_(mean)
            self.log_scale.bias.copy_(sd[GAUSSIAN].log())
            self.mean.weight.mul_(0.1)
            self.log_scale.weight.mul_(0.1)

    def unroll(self, trades: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Predictions at every moment of sequences, each of an account of its own that starts with its first trade.

        ``trades`` (batch, time, 8) -> embedding (batch, time + 1, 8), means (logits for the events) of the same shape
        and standard deviations (batch, time + 1, 6) of the rest, uncalibrated; moment t has seen the trades before t.
        """
        batch = len(trades)
        first = self.hidden.expand(-1, batch, -1).contiguous(), self.cell.expand(-1, batch, -1).contiguous()
        state, _ = self.lstm(trades, first)
        state = torch.cat([first[0][-1][:, None], state], dim=1)
        kept = F.pad(trades[..., [4, 5, 0]], (0, 0, MEMORY, 0))  # stop and target flags, size: 20 zeros, then trades
        past = kept.unfold(1, MEMORY, 1).flatten(2)  # (batch, time + 1, 60)
        embedding = torch.tanh(self.embed(torch.cat([state, self.memory(past)], dim=-1)))
        sd = (self.log_scale(embedding).clamp(max=3).exp() ** 2 + SMALLEST_SD**2).sqrt()
        return embedding, self.mean(embedding), sd

    def forward(self, trades: Tensor, count: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Calibrated predictions after ``count`` (batch,) trades of each history (batch, length, 8).

        Embedding, mean (probabilities for the events) and standard deviation, all (batch, 8).
        """
        rows = torch.arange(len(count), device=count.device)
        embedding, raw, spread = (part[rows, count] for part in self.unroll(trades))
        base = torch.logit(self.base[0, EVENT])
        mean, sd = raw.clone(), torch.empty_like(raw)
        mean[:, EVENT] = torch.sigmoid(base + (raw[:, EVENT] - base) / self.temperature)
        sd[:, EVENT] = (mean[:, EVENT] * (1 - mean[:, EVENT])).sqrt()
        sd[:, GAUSSIAN] = (spread * self.scale).clamp(min=SMALLEST_SD)
        return embedding, mean, sd


def communication_loss(
    embedding: Tensor, mean: Tensor, sd: Tensor, target: Tensor, valid: Tensor, params: CommunicationParams
) -> Tensor:
    """Loss of sequences, averaged over the moments whose next trade exists (``valid``, (batch, time + 1) bool).

    w_risk NLL(risk vector) + w_outcome BCE(stop, target) + w_pnl NLL(net R, bars)
    + w_temporal mean (e_t - e_{t-1})^2 exp(-mean sd): a summary that is sure of itself should not jump. The sd is
    detached there, so that uncertainty cannot be bought to pay less.
    """
    nll = nets.gaussian_nll(target[..., GAUSSIAN] - mean[..., GAUSSIAN], sd)
    events = F.binary_cross_entropy_with_logits(mean[..., EVENT], target[..., EVENT], reduction="none").mean(-1)
    step = ((embedding[:, 1:] - embedding[:, :-1]) ** 2).mean(-1) * torch.exp(-sd[:, 1:].detach().mean(-1))
    total = (
        params.risk_weight * nll[..., :4].mean(-1) + params.outcome_weight * events
        + params.pnl_weight * nll[..., 4:].mean(-1) + params.temporal_weight * F.pad(step, (1, 0))
    )  # fmt: skip
    return (total * valid).sum() / valid.sum()


def fit(
    train: Track,
    select: Track,
    params: CommunicationParams,
    runtime: RuntimeParams,
    seed: int,
    saver: training.Saver,
) -> tuple[TrackNet, training.Fit]:
    """Train on sequences cut from the trades of train, stop early and calibrate on those of select.

    Every sequence starts from the learned first state: none knows of another.

    Raises
    ------
    InputError
        For fewer than two trades on either side, NaN, another shape, or a loss that is not finite.
    """
    if len(train.risk) < 2 or len(select.risk) < 2:
        raise InputError(
            f"mrms communication: expected trades in train and in select, found {len(train.risk)} and "
            f"{len(select.risk)}"
        )
    device = runtime.device
    torch.manual_seed(seed)
    model = TrackNet(params.length, params.hidden_dim, params.dropout).to(device)
    codes, length = torch.from_numpy(_codes(train)).to(device), params.length
    model.start_at(codes)
    # What a sequence that starts at a trade holds: its ``length`` trades and the one that follows them.
    padded = F.pad(codes, (0, 0, 0, length))
    starts = max(1, len(codes) - length)
    judged = [torch.from_numpy(part).to(device) for part in histories(select, length)]
    truth = torch.from_numpy(_codes(select)).to(device)

    def draw(generator: torch.Generator) -> Tensor:
        return torch.randint(0, starts, (params.optimizer.samples_per_epoch,), generator=generator)

    def loss(chosen: Tensor, noise: Tensor, epoch: int) -> Tensor:
        index = (chosen[:, None] + torch.arange(length + 1)).to(device)
        target = padded[index]
        return communication_loss(*model.unroll(target[:, :-1]), target, index < len(codes), params)

    def validate() -> dict[str, float]:
        parts = model.unroll(judged[0][:-1])
        rows = torch.arange(len(truth), device=truth.device)
        embedding, mean, sd = (part[rows, judged[1][:-1]][None] for part in parts)
        return {
            "loss": communication_loss(embedding, mean, sd, truth[None], torch.ones_like(mean[..., 0]), params).item()
        }

    run = training.fit(
        "mrms communication", model, draw, loss, validate, params.optimizer, runtime.in_float32(), seed, saver
    )
    _calibrate(model, judged, truth)
    # Frozen: the LSTM's kernel gives other bits while its weights ask for gradients.
    return model.cpu().requires_grad_(False), run


@torch.no_grad()
def _calibrate(model: TrackNet, judged: list[Tensor], truth: Tensor) -> None:
    """Fit a temperature an event and a scale a standard deviation to trades that trained nothing.

    The temperature works on the distance from the base rate's logit: a layer that knows nothing ends at the base
    rate, not at one half. The scale is the likelihood's optimum, the root mean square of the standardised errors.
    """
    rows = torch.arange(len(truth), device=truth.device)
    _, raw, sd = (part[rows, judged[1][:-1]] for part in model.unroll(judged[0][:-1]))
    error = (truth[:, GAUSSIAN] - raw[:, GAUSSIAN]) / sd
    model.scale.copy_((error**2).mean(0).sqrt().clamp(0.25, 4.0))
    base = torch.logit(model.base[0, EVENT])
    for i, k in enumerate(EVENT):

        def cost(log_temperature: float, i: int = i, k: int = k) -> float:
            logit = base[i] + (raw[:, k] - base[i]) / np.exp(log_temperature)
            return float(F.binary_cross_entropy_with_logits(logit.double(), truth[:, k].double()))

        model.temperature[i] = float(np.exp(minimize_scalar(cost, bounds=(-1.0, 5.0), method="bounded").x))


class Advice(NamedTuple):
    """What the layer says at m moments of an account: arrays whose first axis is m."""

    embedding: np.ndarray  # (m, 8) in (-1, 1): all that the predictions know of the past trades
    mean: np.ndarray  # (m, 8) `PREDICTED` of the next trade; of the two events the probability
    uncertainty: np.ndarray  # (m, 8) calibrated standard deviation of each, same units
    factor: np.ndarray  # (m,) in (0, 1]: what the proposed size is multiplied by


def advise(model: TrackNet, trades: np.ndarray, count: np.ndarray) -> Advice:
    """Predictions and size factor after the trades that `histories` gives.

    Raises `InputError` for another shape, a count that the history does not hold, or NaN.
    """
    length = model.config["length"]
    if trades.ndim != 3 or trades.shape[1:] != (length, len(PREDICTED)) or count.shape != trades.shape[:1]:
        raise InputError(
            f"mrms communication: expected histories (m, {length}, {len(PREDICTED)}) and counts (m,), found "
            f"{trades.shape} and {count.shape}"
        )
    if not np.isfinite(trades).all():
        raise InputError("mrms communication: expected finite histories, found NaN or inf")
    if ((count < 0) | (count > length)).any():
        raise InputError(f"mrms communication: expected counts in 0..{length}, found {count.min()}..{count.max()}")
    if not len(trades):
        empty = np.empty((0, 8), np.float32)
        return Advice(empty, empty, empty, np.empty(0))
    embedding, mean, sd = nets.infer(model, trades.astype(np.float32), count.astype(np.int64))
    usual = float(model.base[1, NET_R])
    factor = adapt(*form(trades, count), sd[:, NET_R].astype(np.float64) / usual - 1)
    return Advice(embedding, mean, sd, factor)


def after(model: TrackNet, track: Track) -> Advice:
    """Advice after the last trade of an account's record: one moment."""
    length = model.config["length"]
    trades, count = histories(Track(*(part[-length:] for part in track)), length)
    return advise(model, trades[-1:], count[-1:])


def form(trades: np.ndarray, count: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Win rate and losing streak (m,) of the last 20 trades before each moment.

    The win rate counts five trades won at one half beside them: a fresh account is no losing one.
    """
    length = trades.shape[1]
    back = count[:, None] - 1 - np.arange(MEMORY)  # newest first
    net_r = np.take_along_axis(trades[:, :, NET_R], back.clip(0, length - 1), axis=1)
    there = back >= 0
    wins = ((net_r > 0) & there).sum(1)
    win_rate = (wins + PRIOR_WIN_RATE * PRIOR_TRADES) / (there.sum(1) + PRIOR_TRADES)
    streak = np.cumprod((net_r < 0) & there, axis=1).sum(1)
    return win_rate, streak


def adapt(win_rate: np.ndarray, streak: np.ndarray, sigma: np.ndarray) -> np.ndarray:
    """Factor in (0, 1] on the proposed size: the restraint that `algospace.mrms.proposal.size` takes.

    Below a win rate of 0.4: 0.5 + 0.5 w / 0.4; a streak of more than a fifth of 20 losses: times 1 - min(streak / 20,
    0.5); sigma above 0.3: times 1 - min(sigma - 0.3, 0.3). ``sigma`` is by how much the standard deviation predicted
    for the next net R exceeds the usual one, as a share of it.
    """
    ratio = streak / MEMORY
    factor = np.where(win_rate < 0.4, 0.5 + 0.5 * win_rate / 0.4, 1.0)
    factor = factor * np.where(ratio > 0.2, 1 - np.minimum(ratio, 0.5), 1.0)
    adapted: np.ndarray = factor * np.where(sigma > 0.3, 1 - np.minimum(sigma - 0.3, 0.3), 1.0)
    return adapted


def load(tensors: dict[str, np.ndarray], config: dict[str, Any]) -> TrackNet:
    """Rebuild a frozen, calibrated model from its weights and its ``config``."""
    model = TrackNet(**config)
    nets.restore(model, tensors)
    return model


def figures(model: TrackNet, report: Track) -> dict[str, float]:
    """How good the predictions are on trades that trained, stopped and calibrated nothing.

    Likelihoods stand beside those of a constant Gaussian (mean and standard deviation of the train trades), Brier
    scores beside the train base rate's. The ``streak_*`` figures feed ten losses in a row, and as a control ten trades
    that lose and win in turn: how the predictions and the size factor then differ. Near zero, the trained part of the
    layer does not react to a losing streak.
    """
    trades, count = histories(report, model.config["length"])
    advice, truth = advise(model, trades[:-1], count[:-1]), _codes(report).astype(np.float64)
    base, usual = model.base.cpu().double().numpy()
    result: dict[str, float] = {"trades": len(truth)}
    if not len(truth):
        return result
    groups = {"risk": [0, 1, 2, 3], "net_r": [6], "bars": [7]}
    for name, columns in groups.items():
        error, sd = truth[:, columns] - advice.mean[:, columns], advice.uncertainty[:, columns].astype(np.float64)
        plain = nets.gaussian_nll(torch.from_numpy(truth[:, columns] - base[columns]), torch.from_numpy(usual[columns]))
        result |= {
            f"{name}_nll": float(nets.gaussian_nll(torch.from_numpy(error), torch.from_numpy(sd)).mean()),
            f"{name}_constant_nll": float(plain.mean()),
            f"{name}_coverage_68": float((np.abs(error) <= 0.99446 * sd).mean()),
            f"{name}_coverage_95": float((np.abs(error) <= 1.95996 * sd).mean()),
        }
    for name, column in (("stop", 4), ("target", 5)):
        p, hit = advice.mean[:, column].astype(np.float64), truth[:, column]
        result |= {
            f"{name}_rate": float(hit.mean()),
            f"{name}_brier": float(((p - hit) ** 2).mean()),
            f"{name}_base_brier": float(((base[column] - hit) ** 2).mean()),
            f"{name}_ece": calibration_error(p, hit),
        }
    result |= {"mean_factor": float(advice.factor.mean()), "smaller_rate": float((advice.factor < 1).mean())}
    return result | _streak_figures(model, truth)


def _streak_figures(model: TrackNet, truth: np.ndarray) -> dict[str, float]:
    """Ten losses against ten trades in turn, after ten trades in turn: typical losing and winning trades of a track."""
    lost = truth[:, NET_R] < 0
    if lost.all() or not lost.any():
        return {}
    typical = np.stack([np.median(truth[~lost], axis=0), np.median(truth[lost], axis=0)]).astype(np.float32)
    turns = [1, 0] * 10
    length = model.config["length"]
    trades = np.zeros((2, max(length, 20), 8), np.float32)
    trades[0, :20], trades[1, :20] = typical[turns], typical[[*turns[:10], *[1] * 10]]
    kept = min(length, 20)
    advice = advise(model, trades[:, 20 - kept : 20 - kept + length], np.full(2, kept))
    usual = float(model.base[1, NET_R])
    mean, sd = advice.mean.astype(np.float64), advice.uncertainty.astype(np.float64)
    return {
        "streak_sigma_change": float(sd[1, NET_R] - sd[0, NET_R]) / usual,
        "streak_net_r_change": float(mean[1, NET_R] - mean[0, NET_R]) / usual,
        "streak_stop_probability_change": float(mean[1, 4] - mean[0, 4]),
        "streak_factor": float(advice.factor[1]),
        "streak_control_factor": float(advice.factor[0]),
    }
