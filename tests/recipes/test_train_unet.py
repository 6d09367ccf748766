"""The base's own training: the optimiser's arithmetic, the draws, and that a resumed run is the run."""

import os
import socket
from pathlib import Path

import pytest
import torch
from torch import distributed, nn
from torch.multiprocessing.spawn import spawn

from recipes.base_model.feed import CLASSES, GLASSES_GAIN, PHOTO_GAIN, chances
from recipes.base_model.muon import orthogonalised
from recipes.base_model.parallel import agreed, average_gradients, join
from recipes.base_model.train_unet import Training, clean_latent_loss, face_emphasis, is_wide


@pytest.mark.parametrize("shape", [(8, 72), (64, 16), (12, 12)])
def test_orthogonalising_keeps_the_directions_and_evens_their_strengths(shape: tuple[int, int]) -> None:
    left, strengths, right = torch.linalg.svd(torch.randn(shape, generator=torch.Generator().manual_seed(0)))
    count = len(strengths)
    strengths = torch.linspace(1, 0.05, count)
    matrix = left[:, :count] @ torch.diag(strengths) @ right[:count]
    inside = left[:, :count].T @ orthogonalised(matrix) @ right[:count].T
    off = inside - torch.diag(inside.diagonal())
    assert off.abs().max() < 1e-3
    assert inside.diagonal().min() > 0.6 and inside.diagonal().max() < 1.25


def test_the_emphasis_moves_the_loss_and_does_not_scale_it() -> None:
    emphasis = face_emphasis(16, torch.device("cpu"))
    assert emphasis.mean() == pytest.approx(1)
    assert emphasis[8, 8] > 2 * emphasis[0, 0]
    x = torch.zeros(2, 4, 16, 16)
    wrong_face, wrong_edge = x.clone(), x.clone()
    wrong_face[:, :, 8, 8], wrong_edge[:, :, 0, 0] = 1, 1
    sigma_squared = torch.ones(2)
    losses = [clean_latent_loss(wrong, x, sigma_squared, emphasis) for wrong in (wrong_face, wrong_edge)]
    assert losses[0] > 2 * losses[1]


def _networks() -> nn.ModuleDict:
    torch.manual_seed(0)
    unet = nn.Sequential(nn.Conv2d(4, 8, 3, padding=1), nn.SiLU(), nn.Conv2d(8, 4, 3, padding=1))
    return nn.ModuleDict({"unet": unet, "text_encoder": nn.Embedding(5, 32)})


def _steps(training: Training, count: int) -> list[float]:
    losses = []
    for _ in range(count):
        x = torch.randn(4, 4, 8, 8, generator=torch.Generator().manual_seed(training.step))
        embedded = training.networks["text_encoder"](torch.arange(4)).view(4, 2, 4, 4).repeat(1, 2, 2, 2)
        loss = (training.networks["unet"](x + embedded) - x).square().mean()
        training.update(loss, 1e-2, 4)
        losses.append(loss.item())
    return losses


def test_training_goes_down_and_a_resumed_one_goes_on_the_same(tmp_path: Path) -> None:
    whole = Training.start(_networks(), 1e-2)
    losses = _steps(whole, 30)
    assert losses[-1] < 0.6 * losses[0]
    assert any(is_wide(p) for p in whole.optimizers[0].param_groups[0]["params"])
    first = Training.start(_networks(), 1e-2)
    _steps(first, 12)
    first.save(tmp_path)
    second = Training.start(_networks(), 1e-2)
    second.resume(tmp_path, torch.device("cpu"))
    assert _steps(second, 18) == losses[12:]
    assert all(torch.equal(a, b) for a, b in zip(second.average, whole.average, strict=True))


def test_rare_hair_and_glasses_are_drawn_more_often_and_every_ethnicity_alike() -> None:
    photo, painting = CLASSES["style"].index("photo"), CLASSES["style"].index("oil painting")
    bare, sunglasses = CLASSES["glasses"].index("none"), CLASSES["glasses"].index("sunglasses")
    plain = [[0, 0, photo, bare]] * 45 + [[0, 0, painting, bare]] * 44 + [[0, 0, painting, sunglasses]]
    classes = torch.tensor([*plain, *[[1, 0, photo, bare]] * 9, *[[0, 1, painting, bare]] * 300])
    weights = chances(classes)
    assert weights[:99].sum().item() == pytest.approx(0.5) and weights.sum().item() == pytest.approx(1)
    assert weights[0].item() == pytest.approx(PHOTO_GAIN * weights[45].item())
    assert weights[89].item() == pytest.approx(GLASSES_GAIN * weights[45].item())
    assert 4 * weights[0] < weights[95] < 9 * weights[0]  # of 390 and 9 pictures


def _gradient_of(rank: int, port: int, folder: Path) -> None:
    os.environ.update(
        RANK=str(rank), WORLD_SIZE="2", LOCAL_RANK=str(rank), MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port)
    )
    assert join("cpu") == (rank, 2, torch.device("cpu"))
    networks, x = _networks(), _rows()[2 * rank : 2 * rank + 2]
    networks["unet"](x).square().mean().backward()
    average_gradients(networks.parameters())
    gradients = [p.grad for p in networks["unet"].parameters()]
    torch.save((gradients, agreed(7.5 + rank, torch.device("cpu"))), folder / f"{rank}.pt")
    distributed.destroy_process_group()


def _rows() -> torch.Tensor:
    return torch.randn(4, 4, 8, 8, generator=torch.Generator().manual_seed(5))


def test_two_processes_take_the_step_of_one_with_all_rows(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    spawn(_gradient_of, args=(port, tmp_path), nprocs=2)
    whole = _networks()
    whole["unet"](_rows()).square().mean().backward()
    expected = [p.grad for p in whole["unet"].parameters()]
    for rank in range(2):
        gradients, told = torch.load(tmp_path / f"{rank}.pt")
        assert told == 7.5
        torch.testing.assert_close(gradients, expected)
