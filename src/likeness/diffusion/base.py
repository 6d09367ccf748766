"""The base model: four methods over the classes of diffusers and transformers.

    photo -> encode_photo -> latent        prompt -> tokenize -> encode_prompt -> states
    (x_t, t, states) -> denoise -> network output          latent -> decode -> photo

Loads any Stable Diffusion folder in diffusers' layout, such as the built-in base, or a Hugging Face model id with a
pinned revision. Only safetensors is read; missing and unexpected keys are errors. The base is frozen: adapters are
applied by `lora.LoraBank`, which never writes to it.
"""

import hashlib
import json
import re
import threading
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any, cast

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.autoencoders.autoencoder_tiny import AutoencoderTiny
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.utils import logging as diffusers_log
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, StrictDataclassError
from tokenizers import Tokenizer
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer
from transformers.utils import logging as transformers_log

from ..errors import CorruptBase, NotFound
from ..types import Network
from .batch_invariance import make_batch_invariant, paired
from .devices import is_out_of_memory, memory_for, pick_device, pick_dtype
from .family import BaseOutline, Family, family_of
from .lora import target_modules
from .schedule import Schedule, schedule_from_config

BUILT_IN = "built-in"
CHECKSUMS = "checksums.json"
_PARTS = ("text_encoder", "unet", "vae")
_SETTINGS = ("scheduler", "tokenizer")  # sub-folders without weights
_TEXTS = (".json", ".txt")
# exceptions of the libraries for missing or damaged configs and files
_DAMAGED = (OSError, ValueError, LookupError, TypeError, NotImplementedError, StrictDataclassError)
_COMMIT = re.compile("[0-9a-f]{40}")


def locate(base: str, revision: str | None = None) -> Path:
    """The folder of a base: the built-in one, a local folder, or a model id pinned to a commit.

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
    wanted = [f"{part}/*" for part in (*_PARTS, *_SETTINGS)]
    unwanted = ["*.bin", "*.ckpt", "*.msgpack", "*.onnx*", "*.non_ema*"]
    folder = _from_hub(base, revision, wanted, unwanted=[*unwanted, "*.fp16*"])
    halves = [
        f"{part}/*.fp16*" for part in _PARTS if not _weight_files(folder / part)
    ]  # parts without full-precision weights
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


def _weight_files(part: Path) -> list[Path]:
    """The weight files of one sub-folder that are loaded: full precision if present, else fp16."""
    files = sorted(path for path in part.glob("*.safetensors") if ".non_ema" not in path.name)
    return [path for path in files if ".fp16" not in path.name] or files


def weights_sha256(folder: Path) -> str:
    """One hash over all loaded weight files of a base; an adapter is bound to it.

    Raises:
        CorruptBase: a network has no weights in safetensors.
    """
    found = {part: _weight_files(folder / part) for part in _PARTS}
    if not all(found.values()):
        empty = ", ".join(part for part, files in found.items() if not files)
        raise CorruptBase(f"expected safetensors in text_encoder, unet and vae, found none in {empty}")
    sums = _sums(folder, [path for files in found.values() for path in files])
    return hashlib.sha256(json.dumps(sums, sort_keys=True).encode()).hexdigest()


def file_sums(folder: Path) -> dict[str, str]:
    """SHA-256 of every file that a base is loaded from, by its path in the folder: the content of checksums.json."""
    weights = [path for part in _PARTS for path in _weight_files(folder / part)]
    texts = [path for part in (*_PARTS, *_SETTINGS) for path in (folder / part).iterdir() if path.suffix in _TEXTS]
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
    variant = "fp16" if all(".fp16" in path.name for path in _weight_files(folder)) else None
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


@dataclass(frozen=True, eq=False)
class BaseModel:
    """A loaded, frozen base."""

    id: str
    sha256: str
    family: Family
    schedule: Schedule
    tokenizer: CLIPTokenizer
    text_encoder: CLIPTextModel
    unet: UNet2DConditionModel
    vae: AutoencoderKL | AutoencoderTiny
    _reader: Tokenizer = field(init=False, repr=False)  # without padding or truncation
    # Each call changes the tokenizer's padding and truncation, so it must not be used by two threads at once.
    _tokenizing: threading.Lock = field(default_factory=threading.Lock, init=False, repr=False)

    def __post_init__(self) -> None:
        reader = Tokenizer.from_str(self.tokenizer.backend_tokenizer.to_str())
        reader.no_truncation()
        reader.no_padding()
        object.__setattr__(self, "_reader", reader)

    @property
    def networks(self) -> dict[Network, nn.Module]:
        """The two networks that adapters modify."""
        return {"unet": self.unet, "text_encoder": self.text_encoder}

    @property
    def outline(self) -> BaseOutline:
        """The properties that an adapter for this base must match."""
        return _outline(self.id, self.sha256, self.family, self.networks)

    @property
    def device(self) -> torch.device:
        return self.unet.device

    @property
    def dtype(self) -> torch.dtype:
        return self.unet.dtype

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """(C, h, w) at the family's resolution."""
        cells = self.unet.config["sample_size"]
        return self.unet.config["in_channels"], cells, cells

    @torch.no_grad()
    def encode_photo(self, pixels: Tensor) -> Tensor:
        """(B, 3, H, W) in [-1, 1] -> scaled latents (B, C, h, w), without sampling."""
        encoded = self.vae.encode(pixels.to(self.device, self.dtype))
        latents = encoded.latents if isinstance(self.vae, AutoencoderTiny) else encoded.latent_dist.mode()
        return latents * self.vae.config["scaling_factor"]

    def tokenize(self, prompts: Sequence[str]) -> Tensor:
        """Token ids (B, N) on the device, padded to the text encoder's length, or truncated: see `unread`."""
        length = self.tokenizer.model_max_length
        with self._tokenizing:
            encoded = self.tokenizer(
                list(prompts), padding="max_length", truncation=True, max_length=length, return_tensors="pt"
            )
        return encoded["input_ids"].to(self.device)

    def unread(self, prompt: str) -> str:
        """The end of a prompt that `tokenize` truncates; empty if there is none. Thread-safe."""
        places = self._reader.encode(prompt).offsets  # of the tokens, with start and end token
        last = self.tokenizer.model_max_length - 1  # position of the end token of a truncated prompt
        return prompt[places[last][0] :] if len(places) > last + 1 else ""

    def says(self, text: str, words: str) -> bool:
        """Whether `text` contains `words` as whole words: the same tokens, from the start of a word. Thread-safe.

        Letters inside another word do not match; case matters only if the tokenizer distinguishes it.
        """
        said = self._reader.encode(text, add_special_tokens=False)
        sought = self._reader.encode(words, add_special_tokens=False).ids
        starts = [i for i in range(len(said.ids)) if i == 0 or _ends_word(said.tokens[i - 1], said.offsets, i)]
        return any(said.ids[i : i + len(sought)] == sought for i in starts)

    def encode_prompt(self, ids: Tensor) -> Tensor:
        """Token ids (B, N) -> states (B, N, d)."""
        return self.text_encoder(ids).last_hidden_state

    def denoise(self, x_t: Tensor, t: Tensor, states: Tensor) -> Tensor:
        """The network's raw output (B, C, h, w); `schedule.denoised` turns it into a clean latent."""
        return self.unet(x_t.to(self.dtype), t.to(self.device), states, return_dict=False)[0]

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Scaled latents (B, C, h, w) -> pixels (B, 3, H, W) in [-1, 1]."""
        z = latents.to(self.device, self.dtype) / self.vae.config["scaling_factor"]
        return self.vae.decode(paired(z), return_dict=False)[0][: len(z)].float().clamp(-1, 1)


def _ends_word(token: str, places: Sequence[tuple[int, int]], following: int) -> bool:
    """Whether a token ends a word: CLIP's vocabulary marks such tokens; added tokens are always whole words."""
    return token.endswith("</w>") or places[following - 1][1] < places[following][0]


def load_base(
    base: str = BUILT_IN,
    revision: str | None = None,
    *,
    device: torch.device | None = None,
    dtype: torch.dtype | None = None,
) -> BaseModel:
    """Load a base strictly.

    Args:
        base: "built-in", a local folder, or a Hugging Face model id.
        revision: commit of the model id, 40 hexadecimal digits; required for a model id.
        device, dtype: the best of this machine by default.

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
        tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer")
        schedule = schedule_from_config(_config(folder / "scheduler" / "scheduler_config.json"))
        family, is_tiny = _family_in(folder)
    sha256 = weights_sha256(folder)
    with memory_for(
        f"the base on the {device.type}", hint="close other programs that use the device, or choose a smaller base"
    ):
        unet = load_part(UNet2DConditionModel, folder / "unet", dtype).to(device)
        text_encoder = load_part(CLIPTextModel, folder / "text_encoder", dtype).to(device)
        vae = load_part(AutoencoderTiny if is_tiny else AutoencoderKL, folder / "vae", dtype).to(device)
    if device.type == "cpu":
        make_batch_invariant(unet)
        make_batch_invariant(text_encoder)
    return BaseModel(_id_of(base, revision), sha256, family, schedule, tokenizer, text_encoder, unet, vae)


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
        family, _ = _family_in(folder)
        unet_config = UNet2DConditionModel.load_config(folder / "unet")
        networks: dict[Network, nn.Module] = {
            "unet": UNet2DConditionModel.from_config(unet_config),
            "text_encoder": CLIPTextModel(CLIPTextConfig.from_pretrained(folder / "text_encoder")),
        }
    return _outline(_id_of(base, revision), weights_sha256(folder), family, networks)


def _outline(id: str, sha256: str, family: Family, networks: Mapping[Network, nn.Module]) -> BaseOutline:
    layers = {
        network: {
            name: tuple(cast(Tensor, layer.weight).shape)
            for name, layer in target_modules(module, family.targets[network]).items()
        }
        for network, module in networks.items()
    }
    return BaseOutline(id, sha256, family, layers)


def _family_in(folder: Path) -> tuple[Family, bool]:
    """The family of a folder by its configs, and whether its autoencoder is an AutoencoderTiny. Raises NotFound."""
    vae_config = _config(folder / "vae" / "config.json")
    latent_channels = vae_config.get("latent_channels", 4)  # diffusers' own default
    family = family_of(_config(folder / "unet" / "config.json"), latent_channels=latent_channels)
    return family, vae_config["_class_name"] == "AutoencoderTiny"


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
