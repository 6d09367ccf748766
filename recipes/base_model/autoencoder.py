"""The autoencoder: a stock diffusers AutoencoderTiny with 16 latent channels at f8.

Its encoder is not trained: without residual blocks the class is a stack of convolutions, and such a stack can
be written down so that it computes `latents.PatchBasis` exactly (space-to-depth three times, then the axes).
So the latents are fixed from the start, and the decoder can go on improving while, or after, the U-Net trains.
"""

import torch
from diffusers import AutoencoderTiny
from torch import Tensor

from .latents import CHANNELS, PATCH_PX, PatchBasis

ENCODER_WIDTH = 48  # = 3 colours x 4 x 4: what a half-finished space-to-depth needs
DECODER_WIDTH = 64


def build_autoencoder(basis: PatchBasis) -> AutoencoderTiny:
    """About 1.1 M parameters, latents (B, 16, H/8, W/8); encoder exact and frozen, decoder untrained."""
    model = AutoencoderTiny(
        latent_channels=CHANNELS,
        encoder_block_out_channels=(ENCODER_WIDTH,) * 4,
        decoder_block_out_channels=(DECODER_WIDTH,) * 4,
        num_encoder_blocks=(0, 0, 0, 0),
        num_decoder_blocks=(4, 3, 1, 0),
    )
    _write_basis(model, basis)
    model.encoder.requires_grad_(False)
    return model


@torch.no_grad()
def _write_basis(model: AutoencoderTiny, basis: PatchBasis) -> None:
    """Put the basis into the encoder's five convolutions.

    A stride-2 convolution with a 3x3 kernel and padding 1 sees pixel (2i, 2j) at kernel place (1, 1), so places
    1 and 2 of each direction are the four pixels of one 2x2 cell.
    """
    enter, half, quarter, eighth, leave = (layer for layer in model.encoder.layers)
    for layer in (enter, half, quarter, eighth, leave):
        layer.weight.zero_()
    for channel in range(3):
        enter.weight[channel, channel, 1, 1] = 1
    enter.bias.zero_()
    for layer, channels in ((half, 3), (quarter, 12)):
        for channel in range(channels):
            for y in range(2):
                for x in range(2):
                    layer.weight[4 * channel + 2 * y + x, channel, 1 + y, 1 + x] = 1
    axes = basis.axes.reshape(3, PATCH_PX, PATCH_PX, CHANNELS)
    for channel in range(48):
        colour, (y1, x1), (y2, x2) = channel // 16, divmod(channel // 4 % 4, 2), divmod(channel % 4, 2)
        for y in range(2):
            for x in range(2):
                # the class maps [-1, 1] to [0, 1] first, hence the factor 2
                row, column = y1 + 2 * y2 + 4 * y, x1 + 2 * x2 + 4 * x
                eighth.weight[:CHANNELS, channel, 1 + y, 1 + x] = 2 * axes[colour, row, column]
    for k in range(CHANNELS):
        leave.weight[k, k, 1, 1] = 1
    leave.bias.copy_(basis.offset - basis.axes.sum(0))


@torch.no_grad()
def read_basis(model: AutoencoderTiny) -> PatchBasis:
    """The basis that an exact encoder computes, read off its answers to single pixels; much faster to apply."""
    pixels = 3 * PATCH_PX**2
    probes = torch.cat([torch.zeros(1, pixels), torch.eye(pixels)]).view(-1, 3, PATCH_PX, PATCH_PX)
    z = model.encode(probes.to(model.device)).latents.flatten(1)  # (193, 16)
    return PatchBasis(z[1:] - z[0], z[0])


def decoder_loss(model: AutoencoderTiny, latents: Tensor, images: Tensor) -> tuple[Tensor, Tensor]:
    """(loss, mean squared error), scalars; latents (B, 16, h, w) unscaled, images (B, 3, H, W) in [-1, 1]."""
    error = model.decoder(latents).float() - images
    squared = error.square().mean()
    return squared + 0.1 * error.abs().mean(), squared  # squares alone prefer blur where they are unsure


@torch.no_grad()
def reconstruct(model: AutoencoderTiny, images: Tensor) -> Tensor:
    """(B, 3, H, W) -> (B, 3, H, W) in [-1, 1], through the public encode and decode."""
    return model.decode(model.encode(images).latents).sample.clamp(-1, 1)
