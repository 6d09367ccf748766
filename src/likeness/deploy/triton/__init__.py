"""NVIDIA Triton: thin models, one for each adapter, over one engine process that they share."""
