"""torch.hub.load(folder, "srtg_r3d_50", source="local", num_classes=400, weights=FILE), and so on for all networks."""

import logging
import pathlib

from torch import nn

from network import pretrained, published, registry

dependencies = ["torch", "filelock"]


def _entry_point(name: str) -> registry.Builder:
    def create(num_classes: int, weights: str | None = None, **options: bool | str) -> nn.Module:
        network = registry.create_network(name, num_classes, **options)
        if weights is not None:
            path = published.weights_path(pathlib.Path(weights))
            report = pretrained.load_weights(network, path)
            if report.shape_mismatch or report.missing or report.unexpected:
                logging.getLogger(__name__).warning("%s", report)
        return network

    create.__doc__ = registry.network_builder(name).__doc__
    return create


globals().update({name: _entry_point(name) for name in registry.list_networks()})
