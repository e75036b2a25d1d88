"""Batches to the device, beside the work that it is doing."""

from contextlib import nullcontext

import torch
from torch import Tensor


class DevicePrefetcher:
    """Copies tensors to a device. On a GPU by a stream of its own: a batch that the loop asks for while earlier steps
    are still being computed travels meanwhile, and only what uses it waits for it.

    They are pinned here first. torch's loader would do that in a thread, which reads from workers: where one is killed
    it complains with a traceback, and may be waited for, for ever.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.stream = torch.cuda.Stream(device) if device.type == "cuda" else None

    def __call__(self, *tensors: Tensor) -> list[Tensor]:
        with torch.cuda.stream(self.stream) if self.stream else nullcontext():
            copies = [self._pinned(tensor).to(self.device, non_blocking=True) for tensor in tensors]
        if self.stream:
            computing = torch.cuda.current_stream(self.device)
            computing.wait_stream(self.stream)
            for copy in copies:
                copy.record_stream(computing)  # its memory is not given to the next batch before it was used
        return copies

    def _pinned(self, tensor: Tensor) -> Tensor:
        return tensor.pin_memory() if self.stream and tensor.device.type == "cpu" else tensor
