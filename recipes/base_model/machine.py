"""A description of the measuring machine."""

import torch

from recipes.measurement import machine


def machine_words() -> str:
    """Processor or accelerator, cores and load; nothing that identifies the machine."""
    facts = machine()
    device = f"{torch.cuda.get_device_name()}, " if torch.cuda.is_available() else ""
    return f"{device}{facts['cores']} cores {facts['cpu']}, load {facts['load_average_1_5_15_min'][0]:g}"  # type: ignore[index]
