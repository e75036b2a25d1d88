"""3D, (2+1)D, wide, ResNeXt and channel-separated ResNets, plain and with squeeze and recursion (`srtg_`).

Tran et al., "A closer look at spatiotemporal convolutions for action recognition", CVPR 2018, and "Video
classification with channel-separated convolutional networks", ICCV 2019; Stergiou & Poppe, "Learn to cycle", Pattern
Recognition Letters 2021, section 3. To add a network in both forms, add a line at the end.
"""

import logging
from collections.abc import Callable, Sequence
from functools import partial, wraps

import torch
from torch import Tensor, nn

from network.blocks import BasicBlock, Bottleneck, Convolution, Recursion
from network.layers import (
    Conv2Plus1D,
    Conv3D,
    DepthwiseConv3D,
    InteractionPreservedConv3D,
    Stem2Plus1D,
    Stem3D,
    check_clips,
    init_weights,
    make_pool,
    make_stage,
)
from network.recursion import SqueezeRecursion
from network.registry import Builder, register

logger = logging.getLogger(__name__)

Depths = tuple[int, int, int, int]  # blocks in each of the four stages
CHANNELS = (64, 128, 256, 512)  # of the four stages


class VideoResNet(nn.Module):
    """A ResNet for clips: stem, pooling, four stages of blocks, mean over time and space, linear head.

    Args:
        block, depths: class of the blocks, and their number in each stage.
        conv, stem: class of the blocks' convolutions, and of the first layers.
        channels: of the four stages.
        groups, width_multiplier: see `Block`.
        num_classes: outputs of the head, `fc`.
        pool: pooling after the stem, "max" or "soft", see `make_pool`.
        stem_pool: whether there is that pooling: in the original since November 2020, in torchvision never.
        recursion, place: see `Block`.
        zero_init_residual: see `init_weights`.

    `gate_names` has the names of the blocks with a gate, in order, such as "layer1.0".
    """

    def __init__(
        self,
        block: type[BasicBlock] | type[Bottleneck],
        depths: Depths,
        conv: Convolution,
        stem: Callable[[int], nn.Module],
        channels: Sequence[int],
        groups: int,
        width_multiplier: int,
        num_classes: int,
        *,
        pool: str = "max",
        stem_pool: bool = True,
        recursion: Recursion | None = None,
        place: str = "final",
        zero_init_residual: bool = False,
    ) -> None:
        super().__init__()
        make_block = partial(
            block,
            conv=conv,
            groups=groups,
            width_multiplier=width_multiplier,
            recursion=recursion,
            place=place,
        )
        first, second, third, fourth = channels
        self.stem = stem(first)
        self.pool = make_pool(pool) if stem_pool else nn.Identity()
        self.layer1 = make_stage(make_block, depths[0], first, first, stride=1)
        self.layer2 = make_stage(make_block, depths[1], first, second, stride=2)
        self.layer3 = make_stage(make_block, depths[2], second, third, stride=2)
        self.layer4 = make_stage(make_block, depths[3], third, fourth, stride=2)
        self.fc = nn.Linear(fourth, num_classes)
        self.gate_names = [
            name.removesuffix(".sar")
            for name, module in self.named_modules()
            if isinstance(module, SqueezeRecursion) and module.gates
        ]
        init_weights(self, zero_init_residual)

    def forward(self, clips: Tensor, return_gates: bool = False) -> Tensor | tuple[Tensor, Tensor]:
        """Return logits `(B, num_classes)` of clips `(B, 3, T, H, W)`; H and W from 16, T from 1.

        With `return_gates` also the values of the gates in `gate_names`, a float tensor `(B, gates)` without
        gradient: 1 or 0 for strict gates, p for soft ones.
        """
        check_clips(clips)
        gate_values: list[Tensor] = []
        x = self.pool(self.stem(clips))  # with stem_pool (B, 64, T/2, H/4, W/4)
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            for block in stage:
                x, values = block(x)
                if values is not None and return_gates:
                    gate_values.append(values.detach().float().unsqueeze(1))
        logits = self.fc(x.mean(dim=(2, 3, 4)))  # from (B, 512, T/16, H/32, W/32)
        if not return_gates:
            return logits
        none = logits.new_empty((len(clips), 0), dtype=torch.float32)
        return logits, torch.cat([none, *gate_values], dim=1)


def define(
    name: str,
    block: type[BasicBlock] | type[Bottleneck],
    depths: Depths,
    conv: Convolution,
    stem: Callable[[int], nn.Module] = Stem3D,
    *,
    channels: Sequence[int] = CHANNELS,
    groups: int = 1,
    width_multiplier: int = 1,
) -> tuple[Builder, Builder]:
    """Register the networks `name` and `srtg_<name>` and return their builders; arguments as for `VideoResNet`."""
    network = partial(VideoResNet, block, depths, conv, stem, channels, groups, width_multiplier)

    def plain(
        num_classes: int, *, pool: str = "max", stem_pool: bool = True, zero_init_residual: bool = False
    ) -> VideoResNet:
        return network(num_classes, pool=pool, stem_pool=stem_pool, zero_init_residual=zero_init_residual)

    def srtg(
        num_classes: int,
        *,
        gates: bool | str = False,
        place: str = "final",
        pool: str = "max",
        stem_pool: bool = True,
        recursion_init: str = "identity",
        zero_init_residual: bool = False,
    ) -> VideoResNet:
        recursion = partial(SqueezeRecursion, gates=gates, init=recursion_init)
        return network(
            num_classes,
            pool=pool,
            stem_pool=stem_pool,
            recursion=recursion,
            place=place,
            zero_init_residual=zero_init_residual,
        )

    plain.__doc__ = (
        f"{block.__name__} x {depths}, {conv.__name__}, groups {groups}, width multiplier {width_multiplier}. Input: "
        "clips `(B, 3, T, H, W)`; output: logits `(B, num_classes)`; options as for `VideoResNet`."
    )
    srtg.__doc__ = (
        f"{name} with squeeze and recursion (Learn to cycle, section 3). {plain.__doc__} "
        "`gates` and `recursion_init` as for `SqueezeRecursion`."
    )
    for builder, builder_name in ((plain, name), (srtg, f"srtg_{name}")):
        builder.__name__ = builder.__qualname__ = builder_name
        register(builder)
    return plain, srtg


D18, D34 = (2, 2, 2, 2), (3, 4, 6, 3)
D50, D101, D152, D200 = (3, 4, 6, 3), (3, 4, 23, 3), (3, 8, 36, 3), (3, 24, 36, 3)

r3d_18, srtg_r3d_18 = define("r3d_18", BasicBlock, D18, Conv3D)
r3d_34, srtg_r3d_34 = define("r3d_34", BasicBlock, D34, Conv3D)
r3d_50, srtg_r3d_50 = define("r3d_50", Bottleneck, D50, Conv3D)
r3d_101, srtg_r3d_101 = define("r3d_101", Bottleneck, D101, Conv3D)
r3d_152, srtg_r3d_152 = define("r3d_152", Bottleneck, D152, Conv3D)
r3d_200, srtg_r3d_200 = define("r3d_200", Bottleneck, D200, Conv3D)

r2plus1d_18, srtg_r2plus1d_18 = define("r2plus1d_18", BasicBlock, D18, Conv2Plus1D, Stem2Plus1D)
r2plus1d_34, srtg_r2plus1d_34 = define("r2plus1d_34", BasicBlock, D34, Conv2Plus1D, Stem2Plus1D)
r2plus1d_50, srtg_r2plus1d_50 = define("r2plus1d_50", Bottleneck, D50, Conv2Plus1D, Stem2Plus1D)
r2plus1d_101, srtg_r2plus1d_101 = define("r2plus1d_101", Bottleneck, D101, Conv2Plus1D, Stem2Plus1D)
r2plus1d_152, srtg_r2plus1d_152 = define("r2plus1d_152", Bottleneck, D152, Conv2Plus1D, Stem2Plus1D)
r2plus1d_200, srtg_r2plus1d_200 = define("r2plus1d_200", Bottleneck, D200, Conv2Plus1D, Stem2Plus1D)

r3dxt34_32d, srtg_r3dxt34_32d = define("r3dxt34_32d", BasicBlock, D34, Conv3D, groups=32)
r3dxt50_32x4d, srtg_r3dxt50_32x4d = define(
    "r3dxt50_32x4d", Bottleneck, D50, Conv3D, groups=32, width_multiplier=2
)
r3dxt101_32x8d, srtg_r3dxt101_32x8d = define(
    "r3dxt101_32x8d", Bottleneck, D101, Conv3D, groups=32, width_multiplier=4
)
wide_r3d50_2, srtg_wide_r3d50_2 = define("wide_r3d50_2", Bottleneck, D50, Conv3D, width_multiplier=2)
wide_r3d101_2, srtg_wide_r3d101_2 = define("wide_r3d101_2", Bottleneck, D101, Conv3D, width_multiplier=2)

r2plus1dxt34_32d, srtg_r2plus1dxt34_32d = define(
    "r2plus1dxt34_32d", BasicBlock, D34, Conv2Plus1D, Stem2Plus1D, groups=32
)
r2plus1dxt50_32x4d, srtg_r2plus1dxt50_32x4d = define(
    "r2plus1dxt50_32x4d", Bottleneck, D50, Conv2Plus1D, Stem2Plus1D, groups=32, width_multiplier=2
)
r2plus1dxt101_32x8d, srtg_r2plus1dxt101_32x8d = define(
    "r2plus1dxt101_32x8d", Bottleneck, D101, Conv2Plus1D, Stem2Plus1D, groups=32, width_multiplier=4
)
wide_r2plus1d50_2, srtg_wide_r2plus1d50_2 = define(
    "wide_r2plus1d50_2", Bottleneck, D50, Conv2Plus1D, Stem2Plus1D, width_multiplier=2
)
wide_r2plus1d101_2, srtg_wide_r2plus1d101_2 = define(
    "wide_r2plus1d101_2", Bottleneck, D101, Conv2Plus1D, Stem2Plus1D, width_multiplier=2
)

ir_csn_50, srtg_ir_csn_50 = define("ir_csn_50", Bottleneck, D50, DepthwiseConv3D)
ir_csn_101, srtg_ir_csn_101 = define("ir_csn_101", Bottleneck, D101, DepthwiseConv3D)
ir_csn_152, srtg_ir_csn_152 = define("ir_csn_152", Bottleneck, D152, DepthwiseConv3D)
ip_csn_50, srtg_ip_csn_50 = define("ip_csn_50", Bottleneck, D50, InteractionPreservedConv3D)
ip_csn_101, srtg_ip_csn_101 = define("ip_csn_101", Bottleneck, D101, InteractionPreservedConv3D)
ip_csn_152, srtg_ip_csn_152 = define("ip_csn_152", Bottleneck, D152, InteractionPreservedConv3D)


@register
@wraps(srtg_r3d_34, assigned=())  # with the same options
def srtg_r3d_32(num_classes: int, **options: bool | str) -> nn.Module:
    """Alias of srtg_r3d_34, by its name in the original's table of networks."""
    logger.warning("srtg_r3d_32 is an alias of srtg_r3d_34")
    return srtg_r3d_34(num_classes, **options)
