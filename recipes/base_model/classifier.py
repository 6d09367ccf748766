"""The judge: a small classifier of style, place, glasses and the colours of hair and clothes.

It is trained on renders of other people than it is measured on, and is not part of the base. It works on pixels (128
px, because a frame of glasses is one pixel wide), so it can judge any base. It does not see prompts. Its accuracy on
held-out renders is reported beside its results.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from likeness.photos.styles import STYLES

from .data import to_float
from .precision import faster_dtype, mixed
from .render.captions import COLORLESS
from .render.places import PLACES
from .render.scene import CLOTHES_RGB

SIDE_PX = 128
BATCH = 64
PEAK_LEARNING_RATE = 2e-3
SHIFT_PX = 3
NOISE = 0.05  # maximum; images of a diffusion model are noisier than renders
PLACELESS = ("pop art",)  # the background is one colour
UNSEEN = -100  # label of an attribute that the image does not show

# Similar colours differ less than lighting does, so they are grouped.
HAIR_FAMILIES = MappingProxyType({
    "black": "dark", "dark brown": "dark", "brown": "brown", "auburn": "brown", "red": "red",
    "blonde": "blonde", "light blonde": "blonde", "gray": "gray", "white": "gray",
})  # fmt: skip
HEADS: Mapping[str, tuple[str, ...]] = MappingProxyType({
    "style": tuple(STYLES),
    "place": tuple(PLACES),
    "glasses": ("none", "glasses", "sunglasses"),
    "hair colour": tuple(dict.fromkeys(HAIR_FAMILIES.values())),
    "clothes colour": tuple(CLOTHES_RGB),
})  # fmt: skip
EVEN_HEADS = ("glasses",)  # equal class weights: most renders have no glasses, but most prompts do
FACTS = {"side_px": SIDE_PX, "heads": {head: list(classes) for head, classes in HEADS.items()}, "even": EVEN_HEADS}

Labels = Mapping[str, str]  # head -> class, for visible attributes


def visible_labels(attributes: Mapping[str, Any]) -> Labels:
    """The labels of an image with these attributes (of render.picture.attributes)."""
    style, glasses, hair = attributes["style"], attributes["glasses"], attributes["hair_color"]
    labels = {"style": style, "glasses": glasses if glasses in ("none", "sunglasses") else "glasses"}
    if style not in PLACELESS:
        labels["place"] = attributes["place"]
    if style not in COLORLESS:
        labels["clothes colour"] = attributes["clothes_color"]
        if hair is not None:
            labels["hair colour"] = HAIR_FAMILIES[hair]
    return labels


class AttributeNet(nn.Module):
    """About 1 M parameters: (B, 3, 128, 128) in [-1, 1] -> one (B, classes) of logits for each head."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(3, 48, 4, stride=4)]  # 32 cells a side
        for width, wider, stride in ((48, 96, 2), (96, 96, 1), (96, 160, 2), (160, 160, 1), (160, 256, 2)):
            layers += [nn.GroupNorm(8, width), nn.SiLU(), nn.Conv2d(width, wider, 3, stride=stride, padding=1)]
        self.trunk = nn.Sequential(*layers, nn.GroupNorm(8, 256), nn.SiLU(), nn.Flatten(), nn.Dropout(0.2))
        self.out = nn.Linear(256 * 16, sum(len(classes) for classes in HEADS.values()))

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        return self.out(self.trunk(images)).split([len(classes) for classes in HEADS.values()], dim=1)


def shrink(images: Tensor) -> Tensor:
    """(B, 3, H, W) uint8 -> (B, 3, 128, 128) uint8."""
    if images.shape[-1] == SIDE_PX:
        return images
    return F.interpolate(images.float(), (SIDE_PX, SIDE_PX), mode="area").round().byte()


def label_indices(labels: Sequence[Labels]) -> Tensor:
    """(N, heads) int64, UNSEEN if not visible."""
    rows = [[classes.index(row[head]) if head in row else UNSEEN for head, classes in HEADS.items()] for row in labels]
    return torch.tensor(rows)


def class_weights(targets: Tensor) -> list[Tensor]:
    """For each head, weights (classes,) of its classes in the loss; targets (N, heads) of `label_indices`."""
    weights = []
    for (head, classes), column in zip(HEADS.items(), targets.T, strict=True):
        counts = torch.bincount(column[column != UNSEEN], minlength=len(classes)).float()
        even = counts.sum() / (len(classes) * counts.clamp(min=1))
        weights.append(even if head in EVEN_HEADS else torch.ones(len(classes)))
    return weights


def varied(images: Tensor, generator: torch.Generator) -> Tensor:
    """Random mirroring, shifts and noise; (B, 3, S, S) on the CPU."""
    padded = F.pad(images, (SHIFT_PX,) * 4, mode="replicate")
    x, y = torch.randint(2 * SHIFT_PX + 1, (2,), generator=generator).tolist()
    moved = padded[..., y : y + images.shape[-2], x : x + images.shape[-1]]
    is_mirrored = torch.rand(len(images), 1, 1, 1, generator=generator) < 0.5
    strength = NOISE * torch.rand(len(images), 1, 1, 1, generator=generator)
    noise = strength * torch.randn(images.shape, generator=generator)
    return torch.where(is_mirrored, moved.flip(3), moved) + noise


def train(images: Tensor, labels: Sequence[Labels], *, samples: int, device: torch.device) -> AttributeNet:
    """A network trained on `samples` draws of images (N, 3, H, W) uint8; AdamW, cosine, cross entropy of every head.

    Classes of `EVEN_HEADS` weigh as much as each other, however rare they are.
    """
    generator = torch.Generator().manual_seed(0)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = AttributeNet().to(device).train()
    small, targets = torch.cat([shrink(part) for part in images.split(500)]), label_indices(labels)
    weights = [weight.to(device) for weight in class_weights(targets)]
    optimizer = torch.optim.AdamW(net.parameters(), lr=PEAK_LEARNING_RATE, weight_decay=0.05)
    steps = max(1, samples // BATCH)
    first = to_float(small[:BATCH]).to(device)
    dtype = faster_dtype(lambda: torch.cat(net(first), 1).sum().backward(), device)
    for step in range(steps):
        rate = PEAK_LEARNING_RATE * min(1.0, (step + 1) / (0.05 * steps)) * 0.5 * (1 + math.cos(math.pi * step / steps))
        for group in optimizer.param_groups:
            group["lr"] = rate
        rows = torch.randint(len(small), (BATCH,), generator=generator)
        seen, wanted = varied(to_float(small[rows]), generator).to(device), targets[rows].to(device)
        with mixed(device, dtype):
            answers = net(seen)
        terms = [
            F.cross_entropy(logits.float(), wanted[:, k], weights[k], ignore_index=UNSEEN, reduction="sum")
            for k, logits in enumerate(answers)
        ]
        optimizer.zero_grad(set_to_none=True)
        (torch.stack(terms).sum() / BATCH).backward()
        optimizer.step()
    return net.eval()


@dataclass(frozen=True, eq=False)
class Judge:
    """A trained network, and its accuracy on true renders."""

    net: AttributeNet
    accuracy: Mapping[str, float]  # head -> accuracy on held-out renders; glasses: on renders with glasses
    false_glasses: float = math.nan  # share of renders without glasses where it detects some

    @classmethod
    def measured(cls, net: AttributeNet, images: Tensor, labels: Sequence[Labels]) -> "Judge":
        """Measure the accuracy on images (N, 3, H, W) uint8 of held-out people."""
        found = named(net, images)
        shares = {}
        for head in HEADS:
            asked = [k for k, row in enumerate(labels) if row.get(head, "none") != "none"]
            if asked:
                shares[head] = sum(found[k][head] == labels[k][head] for k in asked) / len(asked)
        bare = [row["glasses"] for row, label in zip(found, labels, strict=True) if label.get("glasses") == "none"]
        wrong = sum(glasses != "none" for glasses in bare) / len(bare) if bare else math.nan
        return cls(net, shares, wrong)

    def names(self, images: Tensor) -> list[dict[str, str]]:
        """The class of every head, for images (N, 3, H, W) uint8."""
        return named(self.net, images)


@torch.no_grad()
def named(net: AttributeNet, images: Tensor) -> list[dict[str, str]]:
    """The most probable class of each head."""
    device = next(net.parameters()).device
    parts = [
        torch.stack([o.argmax(1) for o in net(to_float(shrink(part).to(device)))], 1).cpu()
        for part in images.split(250)
    ]
    rows = torch.cat(parts).tolist()
    return [{head: HEADS[head][k] for head, k in zip(HEADS, row, strict=True)} for row in rows]


def save(net: AttributeNet, path: Path) -> None:
    save_file({key: value.cpu().contiguous() for key, value in net.state_dict().items()}, path)


def load(path: Path, device: torch.device) -> AttributeNet:
    net = AttributeNet()
    net.load_state_dict(load_file(path))
    return net.to(device).eval()
