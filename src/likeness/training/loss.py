"""The objective: DreamBooth with prior preservation, min-SNR weights, and a loss weighted towards the face.

Pure functions of tensors.
"""

import torch
from torch import Tensor

from ..diffusion.schedule import PredictionType


def min_snr_weight(snr: Tensor, prediction_type: PredictionType, gamma: float | None) -> Tensor:
    """Weight of a timestep, limited by gamma at low noise.

    For bases that predict noise or velocity: min-SNR-gamma (Hang et al. 2023, eq. 11 and its form for velocities), the
    clean latent's error times min(snr, gamma). For a base that predicts the clean latent: min(snr + 1, gamma), the loss
    of v-prediction (Salimans & Ho 2022, section 4), because min-SNR has almost no weight at the noisy steps that form a
    face. The error of epsilon is snr times, that of v is snr + 1 times the clean latent's, so these factors are divided
    out. Flows have weight 1: the distribution of their timesteps has the effect (Esser et al. 2024, section 3.1).
    snr: (B,) -> (B,); gamma None: the plain squared error of the network's output, weight 1.
    """
    if gamma is None or prediction_type == "flow":
        return torch.ones_like(snr)
    if prediction_type == "sample":
        return (snr + 1).clamp(max=gamma)
    return snr.clamp(max=gamma) / (snr if prediction_type == "epsilon" else snr + 1)


def row_losses(output: Tensor, target: Tensor, *, weight: Tensor, emphasis: Tensor) -> Tensor:
    """Weighted squared error of each row, (B,).

    output, target: (B, C, h, w)   the network's output and its target
    weight:         (B,)           of the timestep
    emphasis:       (B, 1, h, w)   per latent cell, mean 1 over each row
    """
    error = (output.float() - target.float()).square().mean(1, keepdim=True)  # (B, 1, h, w)
    return weight.float() * (error * emphasis.float()).flatten(1).mean(1)


def dreambooth_weights(instances: int, priors: int, prior_weight: float) -> list[float]:
    """The weights of one person's rows, photographs first: mean instance loss + prior_weight * mean prior loss.

    Prior preservation: Ruiz et al. 2023, eq. 2. As a weighted sum of rows, the loss can be computed in parts.

    The recipe chooses the target of prior rows: the class image, as in the paper, or the prediction of the base without
    an adapter (Li & Hoiem 2016, 'Learning without Forgetting'). The second has the same minimum without the
    images' noise, which dominates the gradient of a small batch: it is zero until something is forgotten.

    Returns one number per row.
    """
    return [1 / instances] * instances + [prior_weight / max(1, priors)] * priors


def place_emphasis(matte: Tensor, face: Tensor, *, background: float, face_gain: float) -> Tensor:
    """Spatial weights of the loss: background `background`, person 1, face 1 + `face_gain`.

    matte, face: (B, 1, h, w) in [0, 1], coverage of each latent cell. Normalised to mean 1 over each row; uniform if
        all weights of a row are 0.
    """
    raw = background + (1 - background) * matte + face_gain * face
    mean = raw.mean(dim=(1, 2, 3), keepdim=True)
    return torch.where(mean > 0, raw / mean.clamp(min=torch.finfo(raw.dtype).tiny), torch.ones_like(raw))
