"""An adapter as a model of NVIDIA Triton: what goes into the archive. `model` and `engine_client` run inside Triton."""
