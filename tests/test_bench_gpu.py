"""The measurements for a GPU run here too, on small networks, and say what was not measured."""

import json
from pathlib import Path

import pytest
import torch

from bench import gpu, launches
from bench.true_size import BASES, write_configs
from likeness.diffusion.base import fake_base
from likeness.training.pipeline import adapter_bytes
from likeness.training.recipe import recipe_named


def document(capsys: pytest.CaptureFixture[str]) -> dict:
    return json.loads(capsys.readouterr().out.splitlines()[-1])


def test_every_row_is_rehearsed(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "ROUNDS", 1)
    monkeypatch.setattr(gpu, "PRIOR_STEPS", 2)  # steps that are timed
    gpu.main(["--rehearse", "--most", "2", "--seconds", "86400"])  # no row is left out on a busy machine
    tables = document(capsys)["tables"]
    assert [row["people"] for row in tables["rehearsal: training"]] == [1, 1, 2, 2]
    assert all(row["s a step"] > 0 and row["planned GiB"] > 0 for row in tables["rehearsal: training"])
    assert {row["GiB"] for row in tables["rehearsal: training"]} == {"not measured"}  # a CPU's memory is not counted
    assert all(row["times faster together"] > 0 for row in tables["rehearsal: serving"])
    assert [row["people"] for row in tables["rehearsal: compiled"]] == [1]
    assert all(row["s to compile"] > 0 < row["times faster compiled"] for row in tables["rehearsal: compiled"])


def test_without_time_or_device_nothing_is_measured(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    gpu.main(["--rehearse", "--most", "1", "--seconds", "0"])
    late = document(capsys)
    assert {row["s a step"] for table in late["tables"].values() for row in table} == {"not measured"}
    assert late["goals"] == []
    monkeypatch.setattr(gpu, "pick_device", lambda: torch.device("cpu"))
    gpu.main([])
    tables = document(capsys)["tables"]
    assert set(tables) == {f"{name}: {what}" for name in gpu.DEFAULT for what in ("training", "serving", "compiled")}
    assert {row["s a step"] for table in tables.values() for row in table} == {"not measured"}


def test_published_sizes(tmp_path: Path) -> None:
    """Parameters in millions, as published; megabytes of an adapter of the standard recipe."""
    found, adapters = {}, {}
    for name in BASES:
        path, device = str(write_configs(name, tmp_path / name)), torch.device("cuda")
        base = fake_base(path, device=device, dtype=torch.bfloat16, trains=True)
        assert set(base.streaming) == set(base.parts) - set(base.adapted)
        assert base.host_bytes == sum(base.sizes[part] for part in base.streaming)
        found[name] = [round(sum(p.numel() for p in base.parts[part].parameters()) / 1e6, 1) for part in base.adapted]
        adapters[name] = adapter_bytes(base, recipe_named("standard", name)) / 1e6
        assert base.family.name == name
    assert adapters["sd-2.1-base"] < 8
    assert found == {
        "sd-1.5": [859.5, 123.1], "sd-2.1-base": [865.9, 340.4], "sd-2.1": [865.9, 340.4],
        "sdxl": [2567.5, 123.1, 694.7], "flux2-klein-base-4b": [3875.5], "z-image": [6154.9],
    }  # fmt: skip


def test_kernels_are_counted_on_fake_tensors(capsys: pytest.CaptureFixture[str]) -> None:
    base = fake_base("built-in", device=torch.device("cuda"), dtype=torch.bfloat16)
    rows: dict[object, dict] = {row["step"]: dict(row) for row in launches.table_of(base)}
    assert rows["denoising: the bare network"]["of the bare"] == 1
    assert 1 < rows["denoising: 8 people, guided"]["of the bare"] < 1.75  # its convolutions are adapted too
    assert rows["denoising: 8 people, one has joined"]["kernels"] > rows["denoising: 8 people, guided"]["kernels"]
    assert 1 < rows["training: one person"]["of the bare"] < 4
    assert rows["training: one person"]["kernels"] < rows["training: one person, recomputed"]["kernels"]
