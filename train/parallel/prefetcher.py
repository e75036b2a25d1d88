"""Copy batches to the GPU while it computes earlier steps."""

from contextlib import nullcontext

import torch
from torch import Tensor


class DevicePrefetcher:
    """Copies tensors to a device; on a GPU by a stream of its own, beside the computation of earlier steps.

    Memory is pinned here, as the DataLoader's pin-memory thread can hang when a worker is killed.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.stream = torch.cuda.Stream(device) if device.type == "cuda" else None

    def __call__(self, *tensors: Tensor) -> list[Tensor]:
        with torch.cuda.stream(self.stream) if self.stream else nullcontext():
            copies = [self._pinned(tensor).to(self.device, non_blocking=True) for tensor in tensors]
        if self.stream:
            compute_stream = torch.cuda.current_stream(self.device)
            compute_stream.wait_stream(self.stream)
            for copy in copies:
                copy.record_stream(compute_stream)  # keeps its memory until the computation has used it
        return copies

    def _pinned(self, tensor: Tensor) -> Tensor:
        return tensor.pin_memory() if self.stream and tensor.device.type == "cpu" else tensor
