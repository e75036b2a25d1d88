"""The fused engine on a device: what `--augment device` leaves to do for clips that workers only decode and crop.

A *device op* changes clips, uint8 `(n, T, 3, H, W)`, BGR, by numbers that workers packed, `(n, NUMBERS, 1, 1, 1)`; it
may return another shape. Values are rounded to 8 bits where the fused engine rounds them. No clip depends on another.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import conv2d, grid_sample, interpolate, pad

from data.fused_engine import GRAY_WEIGHTS, backward_matrix, motion_kernel

DeviceOp = Callable[[Tensor, Tensor], Tensor]
KERNEL = 7  # largest side of a kernel of motion blur
NUMBERS = KERNEL**2  # for each clip and op; most need fewer
VALUES_AT_ONCE = 2**23  # of the clips that an op changes at once: 32 MB for each of its temporary tensors
ROUND_DOWN = 0.499  # turns rounding to nearest into rounding down, and keeps whole numbers


def sent_size(clip_size: int, size: int) -> int:
    """Return the side of the crops that workers send: no more pixels than the fused engine would resample."""
    side = clip_size // 2 if clip_size >= 2 * size else clip_size  # decoded at half size
    return size if side >= 2 * size else side  # averaged before a warp


def pack(
    warps: Sequence[np.ndarray], steps: Sequence[Sequence[float]], flipped: bool, *, clip_size: int, size: int
) -> Tensor:
    """Return a 1 and numbers, or zeros, for the warps, each other step and flip: float32 `(P,)`.

    Those of warps map pixel indices of the output to the crop, whose edges are at -1 and 1.
    """
    side = sent_size(clip_size, size)
    to_edges = np.array([[2 / side, 0, 1 / side - 1], [0, 2 / side, 1 / side - 1], [0, 0, 1]])
    matrix = (to_edges @ backward_matrix(warps, side, clip_size, size)).ravel() if warps else ()
    table = np.zeros((2 + len(steps), 1 + NUMBERS), np.float32)
    for row, numbers in zip(table, (matrix, *steps, (1,) * flipped), strict=True):
        row[: 1 + len(numbers)] = len(numbers) > 0, *numbers
    return torch.from_numpy(table.ravel())


def pack_motion_blur(kernel: float, angle: float, direction: float, *, shrink: float) -> Sequence[float]:
    """Return the fused engine's kernel in the middle of a larger one."""
    inner = motion_kernel(kernel, angle, direction, shrink)
    return np.pad(inner, (KERNEL - len(inner)) // 2).ravel().tolist()


def device_transform(clips: Tensor, augmentations: Tensor, size: int, ops: Sequence[DeviceOp]) -> Tensor:
    """Warp or resize, recolor and flip clips, uint8 `(B, T, S, S, 3)`, to `(B, T, size, size, 3)`, stored as planes.

    `augmentations` `(B, P)`: `pack`ed steps, which are warps, the ops and flip; on the CPU, to wait for no GPU.
    """
    batch, length, side = clips.shape[:3]
    sent = clips.permute(0, 1, 4, 2, 3)
    out = sent.new_empty(batch, length, 3, size, size)
    at_once = max(1, VALUES_AT_ONCE // (length * 3 * max(side, size) ** 2))

    def change(source: Tensor, op: DeviceOp, chosen: Tensor, numbers: Tensor) -> None:
        for indices in chosen.nonzero()[:, 0].split(at_once) if chosen.any() else ():
            parts = [indices, numbers[indices, :, None, None, None]]
            if clips.is_cuda:
                parts = [part.pin_memory().to(clips.device, non_blocking=True) for part in parts]
            changed = op(source.index_select(0, parts[0]), parts[1])
            out.index_copy_(0, parts[0], changed.reshape(-1, *out.shape[1:]))

    steps = augmentations.view(batch, -1, 1 + NUMBERS)
    drawn, numbers = steps[:, :, 0].T, steps[:, :, 1:].transpose(0, 1)
    change(sent, partial(warp, size=size), drawn[0], numbers[0])
    change(sent, partial(resize, size=size), drawn[0] == 0, numbers[0])
    for op, *columns in zip([*ops, lambda clips, _: clips.flip(-1)], drawn[1:], numbers[1:], strict=True):
        change(out, op, *columns)
    return out.permute(0, 1, 3, 4, 2)


def _to_uint8(values: Tensor) -> Tensor:
    return values.round_().clamp_(0, 255).to(torch.uint8)


def warp(clips: Tensor, numbers: Tensor, *, size: int) -> Tensor:
    """Sample each output pixel where a matrix maps it; outside of the crop is black."""
    index = torch.arange(size, dtype=torch.float32, device=clips.device)
    rows = numbers[:, :9].view(-1, 3, 3, 1, 1)
    x, y, z = (rows[:, :, 0] * index + rows[:, :, 1] * index[:, None] + rows[:, :, 2]).unbind(1)
    grid = torch.stack((x / z, y / z), dim=-1)
    return _to_uint8(grid_sample(clips.flatten(1, 2).float(), grid, align_corners=False))


def resize(clips: Tensor, _: Tensor, *, size: int) -> Tensor:
    """Resample linearly, where the size differs."""
    if clips.shape[-1] == size:
        return clips
    return _to_uint8(interpolate(clips.flatten(1, 2).float(), (size, size), mode="bilinear"))


def brightness(clips: Tensor, numbers: Tensor) -> Tensor:
    """Add a number to each channel."""
    return _to_uint8(clips + numbers[:, :3].transpose(1, 2))


def noise(clips: Tensor, numbers: Tensor) -> Tensor:
    """Add Gaussian noise, equal in all channels and frames: a function of seed and pixel alone (Box-Muller)."""
    size = clips.shape[-1]
    pixels = torch.arange(size**2, device=clips.device).view(size, size)
    bits = _hash(_hash(numbers[:, 1:2].long()) ^ pixels)
    radius = (((bits >> 16) + 0.5) / 2**16).log().mul(-2).sqrt()
    return _to_uint8(clips + (numbers[:, :1] * radius * ((bits & 0xFFFF) * (math.tau / 2**16)).cos()).round())


def _hash(values: Tensor) -> Tensor:
    """Return 32 bits that look random for each number of 32 bits, int64 (Wellons, hash-prospector)."""
    for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B - 2**32)):  # products stay below 2^63
        values = ((values ^ (values >> shift)) * factor) & 0xFFFFFFFF
    return values ^ (values >> 16)


def saturation(clips: Tensor, numbers: Tensor) -> Tensor:
    """Scale the distance from gray by a factor, rounding down."""
    colors = clips.float()
    blue, green, red = (weight * color for weight, color in zip(GRAY_WEIGHTS, colors.unbind(2), strict=True))
    gray = (blue + green + red).unsqueeze(2)
    return _to_uint8((colors - gray).mul_(numbers[:, :1]).add_(gray).sub_(0.5))


def motion_blur(clips: Tensor, numbers: Tensor) -> Tensor:
    """Blur each clip with a kernel of its own, a depthwise convolution: every plane is a channel."""
    kernels = numbers.view(-1, 1, 1, KERNEL, KERNEL).expand(-1, clips[0, :, :, 0, 0].numel(), -1, -1, -1)
    padded = pad(clips.flatten(0, 2).float()[None], (KERNEL // 2,) * 4, mode="reflect")
    return _to_uint8(conv2d(padded, kernels.flatten(0, 1), groups=padded.shape[1]))


def hue(clips: Tensor, numbers: Tensor) -> Tensor:
    """Add to hue, where 255 is the full circle, and to saturation, in OpenCV's HSV of 8 bits, where it is 180."""
    value = numbers[:, 0]
    turn = (value / 255 * 180).trunc()
    rounding = torch.where(turn < 0, -1, 1)  # the fused engine turns hue back by turning that of RGB
    colors = clips.float()
    blue, green, red = colors.unbind(2)
    bright = colors.amax(2)
    span = bright - colors.amin(2)
    angle = torch.where(bright == green, blue - red + 2 * span, red - green + 4 * span)
    angle = torch.where(bright == red, green - blue, angle) * 30 / span.clamp(min=1)
    angle = (angle * rounding + 0.5).floor_() * rounding + turn
    strength = ((span * 255 / bright.clamp(min=1) + 0.5).floor_() + value).clamp_(0, 255) / 255
    offsets = torch.arange(1, 7, 2, device=clips.device).view(3, 1, 1)  # of blue, green and red
    sector = (angle.unsqueeze(2) / 30 + offsets) % 6
    lacking = torch.minimum(sector, 4 - sector).clamp_(0, 1).mul_((bright * strength).unsqueeze(2))
    return _to_uint8(bright.unsqueeze(2) - lacking - ROUND_DOWN)


def contrast(clips: Tensor, numbers: Tensor) -> Tensor:
    """Scale the distance from 127, rounding down."""
    alpha = numbers[:, :1]
    return _to_uint8(clips * alpha + (127 * (1 - alpha) - ROUND_DOWN))
