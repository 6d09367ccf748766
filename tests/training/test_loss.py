"""The objective against numbers worked out by hand, and its parameterisations against each other."""

import pytest
import torch

from fixtures.tiny import scheduler
from likeness.diffusion.noise import row_noise
from likeness.diffusion.schedule import schedule_from_config
from likeness.training.loss import dreambooth_weights, min_snr_weight, place_emphasis, row_losses


def test_min_snr_weights_by_hand() -> None:
    snr = torch.tensor([0.5, 5.0, 20.0])
    expected = {"sample": [1.5, 5, 5], "epsilon": [1, 1, 0.25], "v_prediction": [1 / 3, 5 / 6, 5 / 21]}
    for prediction_type, weights in expected.items():
        torch.testing.assert_close(min_snr_weight(snr, prediction_type, 5.0), torch.tensor(weights))  # type: ignore[arg-type]
        assert min_snr_weight(snr, prediction_type, None).tolist() == [1, 1, 1]  # type: ignore[arg-type]


def test_min_snr_loss_is_the_same_in_epsilon_and_velocity() -> None:
    x0, noise, wrong = row_noise(range(12), (4, 3, 3)).double().chunk(3)
    t = torch.tensor([10, 200, 600, 990])
    losses = []
    for prediction_type in ("epsilon", "v_prediction"):
        schedule = schedule_from_config(dict(scheduler(prediction_type).config))
        x_t = schedule.add_noise(x0, noise, t)
        a, s = (v.view(-1, 1, 1, 1) for v in (schedule.signal(t), schedule.sigma(t)))
        eps = (x_t - a * wrong) / s  # the outputs that all stand for the clean latent `wrong`
        output = {"epsilon": eps, "v_prediction": a * eps - s * wrong}[prediction_type]
        torch.testing.assert_close(schedule.denoised(x_t, output, t), wrong)
        weight = min_snr_weight(schedule.snr(t), schedule.prediction_type, 5.0)
        target = schedule.target(x0, noise, t)
        losses.append(row_losses(output, target, weight=weight, emphasis=torch.ones(4, 1, 3, 3)))
    torch.testing.assert_close(losses[1], losses[0], rtol=1e-4, atol=0)
    errors = (wrong - x0).square().mean((1, 2, 3))
    torch.testing.assert_close(losses[0].double(), errors * schedule.snr(t).clamp(max=5), rtol=1e-4, atol=0)


def test_row_losses_by_hand() -> None:
    output = torch.tensor([[[[1.0, 2.0]], [[0.0, 4.0]]]])  # (1, 2, 1, 2)
    emphasis = torch.tensor([[[[0.5, 1.5]]]])
    # squares 1, 4, 0, 16; over channels 0.5 and 10; emphasised 0.25 and 15; mean 7.625; weight 2
    loss = row_losses(output, torch.zeros_like(output), weight=torch.tensor([2.0]), emphasis=emphasis)
    assert loss.tolist() == [15.25]


def test_dreambooth_weights_by_hand() -> None:
    losses = torch.tensor([1.0, 3.0, 10.0, 20.0])
    assert (losses * torch.tensor(dreambooth_weights(2, 2, 0.5))).sum().item() == 2 + 0.5 * 15
    assert (losses * torch.tensor(dreambooth_weights(4, 0, 0.5))).sum().item() == pytest.approx(34 / 4)


def test_emphasis_has_mean_one_and_the_right_proportions() -> None:
    matte = torch.zeros(2, 1, 4, 4)
    matte[:, :, 1:] = 1
    face = torch.zeros(2, 1, 4, 4)
    face[1, :, 2, 2] = 1
    emphasis = place_emphasis(matte, face, background=0.2, face_gain=1.5)
    torch.testing.assert_close(emphasis.mean((1, 2, 3)), torch.ones(2))
    torch.testing.assert_close(emphasis[0, 0, 0, 0] / emphasis[0, 0, 3, 0], torch.tensor(0.2))
    torch.testing.assert_close(emphasis[1, 0, 2, 2] / emphasis[1, 0, 3, 0], torch.tensor(2.5))
    assert torch.equal(place_emphasis(matte, face, background=1.0, face_gain=0.0), torch.ones(2, 1, 4, 4))


def test_a_row_with_nothing_to_look_at_counts_the_same_everywhere() -> None:
    """No background, no face and an empty matte: 0 / 0 would make the loss NaN. The other row is as it always is."""
    matte = torch.zeros(2, 1, 4, 4)
    matte[1, :, :2] = 1
    emphasis = place_emphasis(matte, torch.zeros_like(matte), background=0.0, face_gain=0.0)
    assert torch.equal(emphasis[0], torch.ones(1, 4, 4)) and torch.equal(emphasis[1], 2 * matte[1])
