"""The autoencoder: a stock diffusers AutoencoderTiny with 16 latent channels at f8.

The encoder is not trained: without residual blocks the class is a stack of convolutions, whose weights can be set so
that it computes `latents.PatchBasis` exactly (space-to-depth three times, then the axes). The latents are fixed from
the start, so the decoder can be trained further while, or after, the U-Net trains.
"""

from typing import Any

import torch
from diffusers import AutoencoderTiny
from diffusers.models.autoencoders.vae import AutoencoderTinyBlock
from torch import Tensor, nn

from .latents import CHANNELS, PATCH_PX, PatchBasis

ENCODER_WIDTH = 48  # = 3 colours x 4 x 4, for the first two of three space-to-depth steps
DECODER_WIDTH = 64
DECODER_BLOCKS = (4, 3, 2, 1)  # at 1/8, 1/4, 1/2 and full resolution; the last is the slowest and adds detail


def build_autoencoder(basis: PatchBasis) -> AutoencoderTiny:
    """About 1.4 M parameters, latents (B, 16, H/8, W/8); encoder exact and frozen, decoder untrained."""
    model = _untrained()
    _write_basis(model, basis)
    model.encoder.requires_grad_(False)
    return model


def _untrained() -> AutoencoderTiny:
    return AutoencoderTiny(
        latent_channels=CHANNELS,
        encoder_block_out_channels=(ENCODER_WIDTH,) * 4,
        decoder_block_out_channels=(DECODER_WIDTH,) * 4,
        num_encoder_blocks=(0, 0, 0, 0),
        num_decoder_blocks=DECODER_BLOCKS,
    )


@torch.no_grad()
def with_decoder_blocks(model: AutoencoderTiny) -> AutoencoderTiny:
    """An autoencoder with the encoder and scaling factor of `model`, and `DECODER_BLOCKS`.

    Blocks and convolutions that `model` has at the same place are copied. Those that it lacks pass their input on, but
    for its negative part.
    """
    if tuple(model.config["num_decoder_blocks"]) == DECODER_BLOCKS:
        return model
    new = _untrained()
    new.register_to_config(scaling_factor=model.config["scaling_factor"])
    new.encoder.load_state_dict(model.encoder.state_dict())
    new.encoder.requires_grad_(False)
    new.decoder.layers[0].load_state_dict(model.decoder.layers[0].state_dict())
    for (blocks, leave), (old_blocks, old_leave) in zip(_stages(new.decoder), _stages(model.decoder), strict=True):
        leave.load_state_dict(old_leave.state_dict())
        for block, old in zip(blocks, old_blocks, strict=False):
            block.load_state_dict(old.state_dict())
        for block in blocks[len(old_blocks) :]:
            last = block.conv[-1]
            last.weight.zero_()
            last.bias.zero_()
    return new


def _stages(decoder: Any) -> list[tuple[list[Any], Any]]:
    """Blocks and closing convolution at each resolution, the coarsest first."""
    stages: list[tuple[list[Any], Any]] = []
    blocks: list[Any] = []
    for layer in list(decoder.layers)[2:]:  # after the first convolution and its activation
        if isinstance(layer, AutoencoderTinyBlock):
            blocks.append(layer)
        elif isinstance(layer, nn.Conv2d):
            stages.append((blocks, layer))
            blocks = []
    return stages


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
    """The basis of an exact encoder, from its responses to single pixels; much faster to apply."""
    pixels = 3 * PATCH_PX**2
    probes = torch.cat([torch.zeros(1, pixels), torch.eye(pixels)]).view(-1, 3, PATCH_PX, PATCH_PX)
    z = model.encode(probes.to(model.device)).latents.flatten(1)  # (193, 16)
    return PatchBasis(z[1:] - z[0], z[0])


@torch.no_grad()
def reconstruct(model: AutoencoderTiny, images: Tensor) -> Tensor:
    """(B, 3, H, W) -> (B, 3, H, W) in [-1, 1], through the public encode and decode."""
    return model.decode(model.encode(images).latents).sample.clamp(-1, 1)
