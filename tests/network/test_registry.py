"""Names of networks, their options, and the errors for wrong ones."""

import logging

import pytest
import torch

import network
from network import create_network, list_networks, mtnet, network_options, srtg_resnet
from network.registry import network_builder, networks_in_order, register

RESNETS = [f"{kind}_{depth}" for kind in ("r3d", "r2plus1d") for depth in (18, 34, 50, 101, 152, 200)]
RESNETS += [f"{kind}xt{size}" for kind in ("r3d", "r2plus1d") for size in ("34_32d", "50_32x4d", "101_32x8d")]
RESNETS += [f"wide_{kind}{depth}_2" for kind in ("r3d", "r2plus1d") for depth in (50, 101)]
RESNETS += [f"{kind}_csn_{depth}" for kind in ("ir", "ip") for depth in (50, 101, 152)]
MTNETS = [f"mtnet_{size}" for size in ("xs", "s", "m", "l", "xl", "xxl", "xs_g8", "s_g8", "m_g8", "l_g8")]
NAMES = sorted([*RESNETS, *(f"srtg_{name}" for name in RESNETS), "srtg_r3d_32", *MTNETS])


def test_the_names_are_complete() -> None:
    names = [name for name in list_networks() if name not in ("tiny", "srtg_tiny")]  # those of the tests
    assert names == NAMES
    assert sorted(networks_in_order()) == list_networks()


def test_patterns() -> None:
    assert list_networks("R3D_1*") == ["r3d_101", "r3d_152", "r3d_18"]
    assert list_networks("nothing*") == []


@pytest.mark.parametrize("name", NAMES)
def test_each_builder_can_be_imported(name: str) -> None:
    builder = network_builder(name)
    assert getattr(network, name) is getattr(network, name.upper()) is builder
    if name in MTNETS:
        assert (
            getattr(mtnet, name.replace("mtnet", "MTNet")) is builder
        )  # as scripts of the original spell it
    else:
        assert getattr(srtg_resnet, name) is builder
    assert builder.__name__ == name
    assert "(B, 3, T, H, W)" in builder.__doc__ or "Alias" in builder.__doc__


def test_unknown_names_are_errors_with_the_closest_names() -> None:
    """In the original they built a wide 101."""
    with pytest.raises(
        ValueError, match="unknown network 'srtg_r3d_99'; the closest names are .*srtg_r3d_50"
    ):
        create_network("srtg_r3d_99", 7)
    with pytest.raises(ImportError, match="cannot import name 'r3d_99'"):
        from network import r3d_99  # noqa: F401, PLC0415
    with pytest.raises(AttributeError, match="the closest names are"):
        network.r3d_99  # noqa: B018


def test_options() -> None:
    assert network_options("r3d_18") == {"pool", "stem_pool", "zero_init_residual"}
    for name in list_networks("srtg_*"):
        options = {"gates", "place", "pool", "stem_pool", "recursion_init", "zero_init_residual"}
        assert network_options(name) == options
    for name in MTNETS:
        assert network_options(name) == {"pool", "recursion_init", "zero_init_residual"}


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("r3d_18", {"gates": True}, "r3d_18 does not take gates; its options are pool, stem_pool, zero_init"),
        ("srtg_r3d_18", {"depth": 3, "x": 1}, "does not take depth, x; its options are gates, place"),
        ("r3d_18", {"pool": "mean"}, "pool is 'mean', and must be 'max' or 'soft'"),
        ("mtnet_xs", {"pool": "mean"}, "pool is 'mean', and must be 'max' or 'soft'"),
        ("mtnet_xs", {"gates": "soft"}, "mtnet_xs does not take gates; its options are pool, recursion_init"),
        (
            "mtnet_xs",
            {"stem_pool": False},
            "mtnet_xs does not take stem_pool; its options are pool, recursion_init",
        ),
        ("srtg_r3d_18", {"gates": "maybe"}, "gates is 'maybe', and must be False, True or 'soft'"),
        ("srtg_r3d_18", {"recursion_init": "ones"}, "recursion_init is 'ones', and must be 'identity' or"),
        (
            "srtg_r3d_18",
            {"place": "end"},
            "BasicBlock has no 'end', only top, mid, skip, final",
        ),
        ("srtg_r3d_50", {"place": "x"}, "Bottleneck has no 'x', only start, top, mid, end, skip, final"),
    ],
)
def test_wrong_options_are_errors(name: str, options: dict, message: str) -> None:
    with torch.device("meta"), pytest.raises(ValueError, match=message):
        create_network(name, 7, **options)


def test_no_classes_are_an_error() -> None:
    with pytest.raises(ValueError, match="num_classes is 0, and must be at least 1"):
        create_network("r3d_18", 0)


def test_a_name_is_registered_once() -> None:
    def r3d_18(num_classes: int) -> None:
        raise AssertionError(num_classes)

    with pytest.raises(ValueError, match="network 'r3d_18' is already registered"):
        register(r3d_18)


def test_the_alias_logs_its_network(caplog: pytest.LogCaptureFixture) -> None:
    with torch.device("meta"), caplog.at_level(logging.WARNING):
        alias = create_network("srtg_r3d_32", 7, gates=True)
        original = create_network("srtg_r3d_34", 7, gates=True)
    assert "srtg_r3d_32 is an alias of srtg_r3d_34" in caplog.text
    assert alias.state_dict().keys() == original.state_dict().keys()
    assert alias.gate_names == original.gate_names
