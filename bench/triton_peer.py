"""The baseline of bench.triton: a Triton model with its own pipeline, as in the reference solution.

Runs in Triton's stub, as `1/model.py`: diffusers loads the base from PEER_BASE and fuses the adapter beside this file,
which uses the least memory and is the fastest form of one pipeline per model.
"""

import base64
import io
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
import triton_python_backend_utils as pb_utils
from diffusers import StableDiffusionPipeline


class TritonPythonModel:
    """The class that Triton's stub loads."""

    def initialize(self, args: dict[str, str]) -> None:
        folder = Path(args["model_repository"]) / args["model_version"]
        self.pipeline: Any = StableDiffusionPipeline.from_pretrained(
            os.environ["PEER_BASE"], torch_dtype=torch.float32, safety_checker=None, requires_safety_checker=False
        )
        self.pipeline.set_progress_bar_config(disable=True)
        self.pipeline.load_lora_weights(folder, weight_name="lora.safetensors")
        self.pipeline.fuse_lora()
        self.pipeline.unload_lora_weights()

    def execute(self, requests: list[Any]) -> list[Any]:
        return [self.answer(request) for request in requests]

    def answer(self, request: Any) -> Any:
        prompt, negative_prompt, gen_args = (
            pb_utils.get_input_tensor_by_name(request, name).as_numpy().reshape(-1)[0].decode()
            for name in ("prompt", "negative_prompt", "gen_args")
        )
        said = json.loads(gen_args)
        image = self.pipeline(
            prompt, negative_prompt=negative_prompt, num_inference_steps=said["num_inference_steps"],
            guidance_scale=said["guidance_scale"], generator=torch.Generator().manual_seed(said["seed"]),
        ).images[0]  # fmt: skip
        buffer = io.BytesIO()
        image.save(buffer, "JPEG")
        text = base64.b64encode(buffer.getvalue())
        tensor = pb_utils.Tensor("generated_image", np.array([[text]], dtype=np.object_))
        return pb_utils.InferenceResponse(output_tensors=[tensor])
