"""What the latent carries: figures on windows that trained nothing."""

import numpy as np
import torch

from algospace.rde.model import RegimeVAE


def quality(model: RegimeVAE, windows: np.ndarray, train_mean: np.ndarray) -> dict[str, float]:
    """What the latent carries, on windows that did not train it.

    Reconstruction R^2 against the train mean of each feature, active units (variance of mu over 0.01, Burda et al.
    2016), and the mean step of the regime vector from window to window.
    """
    with torch.no_grad():
        x = torch.from_numpy(windows).to(next(model.parameters()).device)
        mu, _ = model.encode(x)
        residual = float(((model.decode(mu) - x) ** 2).sum())
        vectors = torch.tanh(mu / 2)
    baseline = float(((windows - train_mean) ** 2).sum())
    return {
        "reconstruction_r2": 1 - residual / baseline,
        "active_units": float((mu.var(dim=0) > 0.01).sum()),
        "mean_step": float((vectors[1:] - vectors[:-1]).norm(dim=1).mean()),
    }
