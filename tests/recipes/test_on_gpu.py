"""`on_gpu`, rehearsed on a CPU: its output can be joined and training resumed."""

from pathlib import Path

import pytest
import torch

pytest.importorskip("numba", reason="the renderer compiles its kernels with numba")

from recipes.base_model import on_gpu, train_unet
from recipes.base_model.export import assemble
from recipes.base_model.networks import build_text_encoder, build_unet, load_tokenizer

PACK = Path(__file__).resolve().parents[2] / "../shared/makehuman"


def test_pieces_are_small_and_join_to_what_they_were(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(on_gpu, "PIECE_BYTES", 1000)
    average = [torch.arange(500.0), torch.ones(3)]
    state = {
        "networks": {"unet.a": torch.ones(500), "unet.b": torch.zeros(3)},
        "average": average,
        "optimizers": [{"state": {0: {"mean": torch.full((500,), 0.25)}}, "param_groups": [{"lr": 0.5}]}],
        "step": 7, "samples": 70, "elapsed_s": 1.5,
    }  # fmt: skip
    torch.save(state, tmp_path / on_gpu.STATE)
    (tmp_path / "log.jsonl").write_text("{}\n")
    pieces = tmp_path / "pieces"
    pieces.mkdir()
    paths = on_gpu.write_pieces(on_gpu.collected(tmp_path, None), pieces)
    assert len(paths) > 2 and all(path.stat().st_size <= 1000 for path in paths)
    on_gpu.join(pieces, tmp_path / "home")
    home = torch.load(tmp_path / "home" / on_gpu.STATE, weights_only=True)
    assert (home["step"], home["samples"], home["elapsed_s"]) == (7, 70, 1.5)
    assert torch.allclose(home["networks"]["unet.a"], average[0], rtol=1 / 128)  # the average, in bfloat16
    assert torch.equal(home["optimizers"][0]["state"][0]["mean"], torch.full((500,), 0.25))
    assert (tmp_path / "home" / "log.jsonl").read_text() == "{}\n"


def test_no_pieces_are_told(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="piece-00"):
        on_gpu.join(tmp_path, tmp_path / "home")


def test_a_pack_is_needed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        on_gpu.parsed(["--out", "x"])
    assert "expected --assets" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.skipif(not (PACK / "assets.npz").exists(), reason="the MakeHuman asset pack is not beside the checkout")
def test_a_rehearsal_brings_home_weights_to_go_on_from(tmp_path: Path) -> None:
    args = on_gpu.parsed([
        "--assets", str(PACK), "--out", str(tmp_path / "out"), "--work", str(tmp_path / "work"), "--device", "cpu",
        "--minutes", "0.02", "--decoder-minutes", "0", "--people", "2", "--views", "2", "--workers", "1",
        "--min-images", "4", "--batch", "2", "--sample-steps", "1",
    ])  # fmt: skip
    on_gpu.spend(args)
    assert (tmp_path / "out" / "sheet.png").stat().st_size > 10_000
    on_gpu.join(tmp_path / "out", tmp_path / "home")
    assemble(tmp_path / "home", on_gpu.BASE / "vae")
    text_encoder = build_text_encoder(load_tokenizer(tmp_path / "home" / "tokenizer"))
    networks = train_unet.trained_together(build_unet(), text_encoder)
    training = train_unet.Training.start(networks, 1e-3)
    training.resume(tmp_path / "home", torch.device("cpu"))
    assert training.step > 0 and training.samples == 2 * training.step
