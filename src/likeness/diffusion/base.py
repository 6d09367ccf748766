"""Finds, checks and loads a base as a `model.BaseModel`.

Loads any folder in diffusers' layout of a supported family, such as the built-in base, or a Hugging Face model id with
a pinned revision. Only safetensors is read; missing and unexpected keys are errors. The base is frozen: adapters are
applied by `lora.LoraBank`, which never writes to it.
"""

import hashlib
import json
import re
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from importlib import resources
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from diffusers.utils import logging as diffusers_log
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, StrictDataclassError
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import PreTrainedModel
from transformers.utils import logging as transformers_log

from ..errors import CorruptBase, NotFound
from .batch_invariance import make_batch_invariant
from .devices import is_out_of_memory, memory_bytes, memory_for, pick_device, pick_dtype
from .family import Architecture, BaseOutline, Family, family_of
from .flux2 import Flux2Klein
from .model import BaseModel as BaseModel
from .model import Configs, outline
from .schedule import schedule_from_config
from .stable_diffusion import StableDiffusion, StableDiffusionXL
from .streaming import stream
from .z_image import ZImage

BUILT_IN = "built-in"
CHECKSUMS = "checksums.json"
INDEX = "model_index.json"
_PARTS = ("text_encoder", "vae")  # sub-folders with weights of every base
_FURTHER_PARTS = ("unet", "transformer", "text_encoder_2")  # the denoising network is one of the first two
_SETTINGS = ("scheduler", "tokenizer", "tokenizer_2")  # sub-folders without weights
_CLASSES: Mapping[Architecture, type[BaseModel]] = MappingProxyType(
    {
        "stable-diffusion": StableDiffusion,
        "stable-diffusion-xl": StableDiffusionXL,
        "flux2-klein": Flux2Klein,
        "z-image": ZImage,
    }
)
_TEXTS = (".json", ".txt")
# exceptions of the libraries for missing or damaged configs and files
_DAMAGED = (OSError, ValueError, LookupError, TypeError, NotImplementedError, StrictDataclassError)
_COMMIT = re.compile("[0-9a-f]{40}")


def locate(base: str, revision: str | None = None, *, weights: bool = True) -> Path:
    """The folder of a base: the built-in one, a local folder, or a model id pinned to a commit.

    Args:
        weights: False: of a model id, only configs and tokenizers are downloaded.

    Raises:
        NotFound: no such folder; a model id without a commit; not cached while the hub cannot be reached.
    """
    if base == BUILT_IN:
        return Path(str(resources.files("likeness") / "assets" / "base"))
    if Path(base).is_dir():
        return Path(base)
    if revision is None or not _COMMIT.fullmatch(revision):
        raise NotFound(
            "expected a folder in diffusers' layout, or a Hugging Face model id with a commit of 40 hexadecimal digits "
            "(branches and tags move)",
            hint="add --revision COMMIT; `git ls-remote https://huggingface.co/MODEL-ID HEAD` prints the newest commit",
            code="BaseNotFound",
        )
    # without single-file checkpoints and second copies of the same weights, which have gigabytes each
    unwanted = ["*.bin", "*.ckpt", "*.msgpack", "*.onnx*", "*.non_ema*"]
    settings = [INDEX, "*/config.json", *(f"{part}/*" for part in _SETTINGS)]
    configs = _from_hub(base, revision, settings, unwanted=unwanted)
    with _configs():
        _read(configs)  # an unsupported base is refused before its weights are downloaded
    if not weights:
        return configs
    wanted = [f"{part}/*" for part in (*_parts_in(configs), *_SETTINGS)]
    folder = _from_hub(base, revision, wanted, unwanted=[*unwanted, "*.fp16*"])
    # parts without full-precision weights
    halves = [f"{part}/*.fp16*" for part in _parts_in(folder) if not weight_files(folder / part)]
    return _from_hub(base, revision, halves, unwanted=unwanted) if halves else folder


def _from_hub(base: str, revision: str, wanted: list[str], *, unwanted: list[str]) -> Path:
    try:
        return Path(snapshot_download(base, revision=revision, allow_patterns=wanted, ignore_patterns=unwanted))
    except (HFValidationError, HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise NotFound(
            f"the base could not be downloaded from Hugging Face ({type(error).__name__})",
            hint="check the model id, the revision and the network",
            code="BaseNotFound",
        ) from error


def _parts_in(folder: Path) -> tuple[str, ...]:
    """The sub-folders of a base that have weights."""
    return tuple(sorted((*_PARTS, *(part for part in _FURTHER_PARTS if (folder / part).is_dir()))))


def weight_files(part: Path) -> list[Path]:
    """The weight files of one sub-folder that are loaded: full precision if present, else fp16."""
    files = sorted(path for path in part.glob("*.safetensors") if ".non_ema" not in path.name)
    return [path for path in files if ".fp16" not in path.name] or files


def weights_sha256(folder: Path) -> str:
    """One hash over all loaded weight files of a base; an adapter is bound to it.

    Raises:
        CorruptBase: a network has no weights in safetensors.
    """
    found = {part: weight_files(folder / part) for part in _parts_in(folder)}
    if not all(found.values()):
        empty = ", ".join(part for part, files in found.items() if not files)
        raise CorruptBase(f"expected safetensors in {', '.join(found)}, found none in {empty}")
    sums = _sums(folder, [path for files in found.values() for path in files])
    return hashlib.sha256(json.dumps(sums, sort_keys=True).encode()).hexdigest()


def file_sums(folder: Path) -> dict[str, str]:
    """SHA-256 of every file that a base is loaded from, by its path in the folder: the content of checksums.json."""
    parts = _parts_in(folder)
    weights = [path for part in parts for path in weight_files(folder / part)]
    texts = [path for part in (*parts, *_SETTINGS) for path in (folder / part).glob("*") if path.suffix in _TEXTS]
    return _sums(folder, sorted([*weights, *texts]))


def check_sums(folder: Path) -> None:
    """Raises CorruptBase if the folder's checksums.json is damaged or does not match the files."""
    if not (folder / CHECKSUMS).exists():
        return
    hint = "download the base again; for the built-in base, install Likeness again"
    try:
        said, found = json.loads((folder / CHECKSUMS).read_text("utf-8")), file_sums(folder)
    except (OSError, ValueError, RecursionError) as error:
        raise CorruptBase(f"the base's {CHECKSUMS} cannot be read ({type(error).__name__})", hint=hint) from error
    if said != found:
        wrong = {name for name in found if not isinstance(said, dict) or said.get(name) != found[name]}
        raise CorruptBase(
            f"the base's files do not match their checksums: {', '.join(sorted(wrong)) or 'some are missing'}",
            hint=hint,
        )


def _sums(folder: Path, files: Sequence[Path]) -> dict[str, str]:
    sums = {}
    for path in files:
        with path.open("rb") as stream:
            sums[str(path.relative_to(folder))] = hashlib.file_digest(stream, "sha256").hexdigest()
    return sums


def _config(path: Path) -> dict[str, Any]:
    config = json.loads(path.read_text("utf-8"))
    if not isinstance(config, dict):
        raise ValueError("expected an object")
    return config


def load_part(kind: Any, folder: Path, dtype: torch.dtype) -> Any:
    variant = "fp16" if all(".fp16" in path.name for path in weight_files(folder)) else None
    options = {"use_safetensors": True, "output_loading_info": True, "dtype": dtype, "variant": variant}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # both libraries warn about their own future changes at load
            model, report = kind.from_pretrained(folder, **options)
    except (*_DAMAGED, RuntimeError) as error:
        if is_out_of_memory(error):
            raise
        raise CorruptBase(f"the weights in {folder.name} cannot be loaded ({type(error).__name__})") from error
    kinds = ("missing_keys", "unexpected_keys", "mismatched_keys")
    if wrong := [f"{len(report[kind])} {kind.replace('_', ' ')}" for kind in kinds if report.get(kind)]:
        raise CorruptBase(f"expected {folder.name}'s weights to match its config exactly, got {', '.join(wrong)}")
    return model.eval().requires_grad_(False)


def load_base(
    base: str = BUILT_IN,
    revision: str | None = None,
    *,
    device: torch.device | None = None,
    dtype: torch.dtype | None = None,
    trains: bool = False,
    streams: bool | None = None,
) -> BaseModel:
    """Load a base strictly.

    Args:
        base: "built-in", a local folder, or a Hugging Face model id.
        revision: commit of the model id, 40 hexadecimal digits; required for a model id.
        device, dtype: the best of this machine by default.
        trains: whether it is loaded for a training, which rarely calls the networks that no adapter modifies.
        streams: whether these networks, or without a training only those for new prompts, stay in host memory
            (`streaming`); None: on a GPU, if it trains or the weights fill more than half of the memory.

    Raises:
        NotFound: see `locate`; or the shape is not that of a known family.
        CorruptBase: missing or unexpected weights, wrong shapes or checksums.
        OutOfMemory: the base does not fit in the memory of the device or machine.
    """
    device = device or pick_device()
    dtype = dtype or pick_dtype(device)
    folder = locate(base, revision)
    check_sums(folder)
    with _configs():
        family, configs = _read(folder)
        kind = _CLASSES[family.architecture]
        settings = _settings_of(kind, folder)
        kinds = kind.kinds(configs)
    sha256 = weights_sha256(folder)
    if streams is None and device.type == "cuda":
        size = sum(path.stat().st_size for name in kinds for path in weight_files(folder / name))
        streams = trains or is_crowded(size, memory_bytes(device))
    streaming = _streaming(kind, kinds, trains=trains) if streams else ()
    with memory_for(
        f"the base on the {device.type}", hint="close other programs that use the device, or choose a smaller base"
    ):
        parts = {}
        for name, one in kinds.items():
            parts[name] = part = load_part(one, folder / name, kind.dtype_of(name, configs[name], dtype))
            if name in streaming:
                stream(part, device)
            else:
                part.to(device)
    if device.type == "cpu":
        # Decoding takes 0.7 times as long; rows of a U-Net would no longer be equal bit for bit.
        parts["vae"].to(memory_format=torch.channels_last)
    return _built(
        kind, _id_of(base, revision), sha256, device=device, family=family, parts=parts, streaming=streaming, **settings
    )


def _streaming(kind: type[BaseModel], parts: Iterable[str], *, trains: bool) -> tuple[str, ...]:
    """The networks that can be in host memory."""
    return tuple(part for part in parts if part not in kind.adapted) if trains else kind.streamed


def is_crowded(weights: int, memory: int) -> bool:
    """Whether a base's weights take so much of a device's memory, in bytes, that some should stay in host memory."""
    return 2 * weights > memory


def _settings_of(kind: type[BaseModel], folder: Path) -> dict[str, Any]:
    """The parts of a base besides networks, by the field of `BaseModel`."""
    return {
        "schedule": schedule_from_config(_config(folder / "scheduler" / "scheduler_config.json")),
        "tokenizers": {name: one.from_pretrained(folder / name) for name, one in kind.tokenizer_kinds.items()},
        "index": _index(folder),
    }


def _built(kind: type[BaseModel], id: str, sha256: str, *, device: torch.device, **fields: Any) -> BaseModel:
    if device.type == "cpu" and kind.is_batch_invariant:
        for name in kind.adapted:
            make_batch_invariant(fields["parts"][name])
    return kind(id=id, sha256=sha256, **fields)


def silence_libraries() -> None:
    """Stop diffusers and transformers from writing progress and warnings to standard error in this process."""
    diffusers_log.set_verbosity_error()
    transformers_log.set_verbosity_error()
    transformers_log.disable_progress_bar()


def outline_of(base: str = BUILT_IN, revision: str | None = None) -> BaseOutline:
    """The properties that an adapter must match, from configs and file hashes, without loading weights.

    Raises:
        NotFound, CorruptBase: as `load_base`, for what the configs show.
    """
    folder = locate(base, revision)
    with _configs(), torch.device("meta"):
        family, configs = _read(folder)
        kind = _CLASSES[family.architecture]
        kinds = kind.kinds(configs)
        networks = {name: _empty(kinds[name], folder / name) for name in kind.adapted}
    return outline(_id_of(base, revision), weights_sha256(folder), family, networks)


def family_at(base: str = BUILT_IN, revision: str | None = None) -> Family:
    """The family of a base, from its configs alone.

    Raises:
        NotFound, CorruptBase: as `load_base`, for what the configs show.
    """
    with _configs():
        family, _ = _read(locate(base, revision, weights=False))
    return family


def untrained_base(
    base: str = BUILT_IN, revision: str | None = None, *, device: torch.device, dtype: torch.dtype
) -> BaseModel:
    """A base of these configs with the random weights that its classes begin with, to measure trainings.

    Raises:
        NotFound, CorruptBase: as `load_base`, for what the configs show.
    """
    made = _without_weights(base, revision, device=device, dtype=dtype, within=device)
    if device.type != "cuda":
        return made
    streaming = _streaming(type(made), made.parts, trains=True)
    for name in streaming:
        stream(made.parts[name].to("cpu"), device)
    return replace(made, streaming=streaming)


def fake_base(
    base: str = BUILT_IN,
    revision: str | None = None,
    *,
    device: torch.device,
    dtype: torch.dtype,
    trains: bool = False,
    memory: int | None = None,
) -> BaseModel:
    """A base of fake tensors, with shapes and types and without numbers: for counting, see `training.plan`.

    Args:
        device: on which it would be loaded. The fake tensors say they are on the CPU: no device is needed.
        trains: see `load_base`.
        memory: of the device in bytes, see `streams` of `load_base`; None: enough for all networks.

    Raises:
        NotFound, CorruptBase: as `load_base`, for what the configs show.
    """
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    found = _without_weights(base, revision, device=device, dtype=dtype, within=mode)
    size = sum(weight.nbytes for part in found.parts.values() for weight in part.parameters())
    if device.type != "cuda" or not (trains or (memory is not None and is_crowded(size, memory))):
        return found
    return replace(found, streaming=_streaming(type(found), found.parts, trains=trains))


def _without_weights(
    base: str, revision: str | None, *, device: torch.device, dtype: torch.dtype, within: AbstractContextManager[object]
) -> BaseModel:
    """A base whose networks are made within a context, and as they would be on a device."""
    folder = locate(base, revision, weights=False)
    with _configs():
        family, configs = _read(folder)
        kind = _CLASSES[family.architecture]
        settings = _settings_of(kind, folder)
        parts = {}
        for name, one in kind.kinds(configs).items():
            with _default_dtype(kind.dtype_of(name, configs[name], dtype)), within:
                parts[name] = _empty(one, folder / name).eval().requires_grad_(False)
    return _built(kind, _id_of(base, revision), "", device=device, family=family, parts=parts, **settings)


@contextmanager
def _default_dtype(dtype: torch.dtype) -> Iterator[None]:
    """Within the block, networks are made in this type."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def _empty(kind: Any, folder: Path) -> nn.Module:
    """A network of a config, on the default device."""
    if issubclass(kind, PreTrainedModel):
        return kind(kind.config_class.from_pretrained(folder))
    return kind.from_config(kind.load_config(folder))


def _read(folder: Path) -> tuple[Family, Configs]:
    """The family of a folder by its configs, and the configs. Raises NotFound."""
    configs = {part: _config(folder / part / "config.json") for part in _parts_in(folder)}
    latent_channels = configs["vae"].get("latent_channels", 4)  # diffusers' own default
    denoiser = configs.get("transformer") or configs["unet"]
    scheduler = _config(folder / "scheduler" / "scheduler_config.json")
    return family_of(denoiser, latent_channels=latent_channels, scheduler=scheduler, index=_index(folder)), configs


def _index(folder: Path) -> dict[str, Any]:
    """The settings of diffusers' pipeline; none if the folder has no such file."""
    return _config(folder / INDEX) if (folder / INDEX).exists() else {}


@contextmanager
def _configs() -> Iterator[None]:
    """Within the block, missing or damaged configs raise CorruptBase."""
    try:
        yield
    except (CorruptBase, NotFound):
        raise
    except _DAMAGED as error:
        kind = type(error).__name__
        raise CorruptBase(
            f"expected configs of tokenizer, scheduler and networks in diffusers' layout ({kind})"
        ) from error


def _id_of(base: str, revision: str | None) -> str:
    if base == BUILT_IN:
        return BUILT_IN
    return Path(base).resolve().name if Path(base).is_dir() else f"{base}@{revision}"
