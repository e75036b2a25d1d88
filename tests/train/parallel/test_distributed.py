"""Several ranks: the same weights as one, each clip once, and errors that name the rank."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.distributed import DistBackendError

from data.batch_sampler import RankShard
from tests.train.helpers import (
    NAME,
    SMALL,
    RankProcesses,
    assert_close_weights,
    assert_same_run,
    corrupt_store,
    folder,
    load,
    rows,
    train,
    wait_for,
)
from tests.train.ranks import run_ranks
from train.parallel.batch_norm import convert_sync_batchnorm
from train.parallel.distributed import DDPModel, DistContext, RemoteRankError, init_distributed

# 12 training videos in batches of 5, 5 and 2
UNEVEN = ["--batch-size", "5", "--end-epoch", "2", "--save-frequency", "2", "--freeze-batchnorm"]


def assert_same_results(one: Path, other: Path) -> None:
    """Assert that two runs differ by rounding only, as sums over ranks add in another order."""
    assert_close_weights(*(folder(run) / f"{NAME}_ep-0002.pth" for run in (one, other)), within=1e-5)
    for split in ("train", "val"):
        first, second = (
            torch.tensor([[float(value) for value in row] for row in rows(run, split)])
            for run in (one, other)
        )
        torch.testing.assert_close(first, second, rtol=1e-4, atol=1e-5)


@pytest.fixture(scope="module")
def single_rank(stores: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    results = tmp_path_factory.mktemp("single")
    assert train(stores, results, *UNEVEN) == 0
    return results


@pytest.mark.parametrize("world_size", [2, 4])
def test_several_ranks_learn_what_one_does(
    stores: Path, single_rank: Path, tmp_path: Path, world_size: int
) -> None:
    """Of four ranks two are idle in the last step of an epoch, which has two clips."""
    ranks = RankProcesses(world_size, stores, tmp_path / "results", *UNEVEN)
    assert ranks.end() == [0] * world_size
    assert_same_results(single_rank, tmp_path / "results")
    val = re.findall(
        r"val(?: step 2/2)?  loss (\S+)", (folder(tmp_path / "results") / "train.log").read_text()
    )
    assert len(val) == 4
    assert val[::2] == val[1::2]  # the running loss ends as that of the epoch, over the clips of all ranks
    logs = [log.read_text() for log in ranks.logs]
    assert "--gpus 0: ignored" in logs[0]
    assert logs[1:] == [""] * (world_size - 1)


def test_gradient_accumulation_and_ema_on_two_ranks(stores: Path, single_rank: Path, tmp_path: Path) -> None:
    flags = [*UNEVEN, "--accumulate", "2", "--ema-decay", "0.5"]
    assert train(stores, tmp_path / "one", *flags) == 0
    assert RankProcesses(2, stores, tmp_path / "two", *flags).end() == [0, 0]
    assert_same_results(tmp_path / "one", tmp_path / "two")
    trained = load(tmp_path / "one", "ep-0002")["trained"]["state_dict"]
    plain = load(single_rank, "ep-0002")["state_dict"]
    assert all(torch.allclose(trained[name], plain[name], atol=1e-5) for name in plain)


def test_two_ranks_with_precise_batchnorm_resume_bit_for_bit(stores: Path, tmp_path: Path) -> None:
    """Each rank has running averages of its own within an epoch; a checkpoint has those of rank 0."""
    flags = "--batch-size 5 --short-cycles --ema-decay 0.5 --sub-bn-size 2 --end-epoch"
    whole, resumed = tmp_path / "whole", tmp_path / "resumed"
    assert RankProcesses(2, stores, whole, flags, "2").end() == [0, 0]
    assert RankProcesses(2, stores, resumed, flags, "1").end() == [0, 0]
    assert RankProcesses(2, stores, resumed, flags, "2", "--resume-epoch auto").end() == [0, 0]
    assert "precise BatchNorm: 5 clips" in (folder(resumed) / "train.log").read_text()
    assert_same_run(whole, resumed, "ep-0002")


@pytest.mark.parametrize("sync", [False, True])
def test_ranks_that_would_get_a_single_clip_are_idle(stores: Path, tmp_path: Path, sync: bool) -> None:
    """Three ranks share 5, 5 and 2 clips as 3, 2, 0 and 2, 0, 0; with synchronized BatchNorm 2, 2, 1 and 1, 1, 0."""
    flags = ["--batch-size", "5", "--end-epoch", "2", "--log-interval", "1", *["--sync-batchnorm"][:sync]]
    ranks = RankProcesses(3, stores, tmp_path / "results", *flags)
    assert ranks.end() == [0, 0, 0]
    assert [row[0] for row in rows(tmp_path / "results", "val")] == ["1", "2"]
    log = ranks.logs[0].read_text()
    assert "step 3/3" in log
    assert "epoch 1/2 val step 1/2" in log
    assert f"3 ranks, up to {2 if sync else 3} of 5 clips each" in log
    assert ("1 of 3 ranks are idle" in log) == (not sync)


def train_with_sync_batchnorm(dist: DistContext, path: Path) -> None:
    """Train two steps in float64, of five clips and of two."""
    torch.manual_seed(1)
    layers = [nn.Conv3d(3, 8, 3), nn.BatchNorm3d(8), nn.ReLU(inplace=True), nn.Conv3d(8, 8, 3)]
    layers += [nn.BatchNorm3d(8), nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(8, 3)]
    network = nn.Sequential(*layers).double()
    convert_sync_batchnorm(network, dist)
    model: nn.Module = network
    if dist.launched:
        model = DDPModel(network, dist, torch.device("cpu"), num_classes=3, num_gates=0, sync_batchnorm=True)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9)
    for clips in (5, 2):
        shard = RankShard(dist.rank, dist.world_size).slice_of(clips)
        x, labels = torch.randn(clips, 3, 6, 9, 9, dtype=torch.float64), torch.arange(clips) % 3
        loss = nn.functional.cross_entropy(model(x[shard]), labels[shard], reduction="sum")
        optimizer.zero_grad()
        (loss * dist.world_size / clips).backward()
        optimizer.step()
    model.eval()
    torch.save({"state_dict": network.state_dict()}, path)


def test_synchronized_batchnorm_equals_one_rank_with_all_clips(tmp_path: Path) -> None:
    """In float64, where rounding cannot hide a wrong gradient. In the second step the third rank is idle."""
    paths = [tmp_path / f"{rank}.pth" for rank in (0, 1, 2)]
    ranks = run_ranks(3, tmp_path, lambda rank: train_with_sync_batchnorm(init_distributed(), paths[rank]))
    assert [exit_code for exit_code, _ in ranks] == [0, 0, 0]
    train_with_sync_batchnorm(DistContext(), tmp_path / "one.pth")
    for path in paths:
        assert_close_weights(tmp_path / "one.pth", path, within=1e-12)


def test_when_a_rank_is_killed_the_other_ends_with_an_error(stores: Path, tmp_path: Path) -> None:
    ranks = RankProcesses(2, stores, tmp_path / "results", "--end-epoch", "1000", "--log-interval", "1")
    wait_for("epoch 1/1000 step 2/3", ranks.logs[0])
    os.kill(ranks.processes[1].pid, signal.SIGKILL)
    killed_at = time.monotonic()
    assert ranks.end(30) == [1, -signal.SIGKILL]
    assert time.monotonic() - killed_at < 30
    message = "stopped: another rank failed or cannot be reached"
    assert f"train: error: rank 0/2: {message}" in ranks.errors()[0]
    assert message in (folder(tmp_path / "results") / "train.log").read_text()


def test_lost_connections_are_errors_of_another_rank_and_others_are_left_alone() -> None:
    dist = DistContext()
    with pytest.raises(RemoteRankError, match="unhandled system error Last error: Duplicate GPU detected"):  # noqa: SIM117
        with dist.translate_dist_errors():
            raise DistBackendError("NCCL: unhandled system error\nLast error:\nDuplicate GPU detected")
    with pytest.raises(RuntimeError, match="^shapes differ$"), dist.translate_dist_errors():
        raise RuntimeError("shapes differ")


def test_the_failed_rank_reports_its_error_and_the_other_stops(own_stores: Path, tmp_path: Path) -> None:
    """The last of four validation videos is rank 1's."""
    store = corrupt_store(own_stores, "val", row=3)
    ranks = RankProcesses(2, own_stores, tmp_path / "results")
    assert ranks.end() == [1, 1]
    first, second = ranks.errors()
    assert f"train: error: rank 1/2: validation: {store}/frames.db: file is not a database" in second
    assert "train: error: rank 0/2: stopped: another rank failed or cannot be reached (" in first


def test_corrupt_samples_of_all_ranks_are_counted_and_written(own_stores: Path, tmp_path: Path) -> None:
    stores = [corrupt_store(own_stores, "train", row=row) for row in (3, 5, 7)]
    lenient = RankProcesses(2, own_stores, tmp_path / "lenient", "--max-bad-samples", "1", "--end-epoch", "1")
    assert lenient.end() == [0, 0]
    written = (folder(tmp_path / "lenient") / "bad_samples.csv").read_text()
    assert all(store in written for store in stores)
    strict = RankProcesses(2, own_stores, tmp_path / "strict", "--max-bad-samples", "0.1")
    assert strict.end() == [1, 1]
    assert "--max-bad-samples 0.1" in "".join(strict.errors())


def test_stopped_by_a_signal_to_one_rank_and_resumed_on_more(
    stores: Path, single_rank: Path, tmp_path: Path
) -> None:
    """All ranks stop after the same step; the number of ranks may change within an epoch."""
    flags = [*UNEVEN, "--log-interval", "1", "--resume-epoch", "auto"]
    two = RankProcesses(2, stores, tmp_path / "results", *flags)
    wait_for("epoch 1/2 step 1/3", two.logs[0])
    os.kill(two.processes[1].pid, signal.SIGTERM)
    assert two.end() == [128 + signal.SIGTERM] * 2
    last = load(tmp_path / "results", "last")
    assert (last["epoch"], last["step"]) < (1, 3)
    assert last["step"] == 0 or last["metrics"]["sums"][0] == (5, 10, 12)[last["step"] - 1]
    assert RankProcesses(3, stores, tmp_path / "results", *flags).end() == [0, 0, 0]
    assert_same_results(single_rank, tmp_path / "results")


def test_torchrun_restarts_after_a_kill_and_nothing_is_lost(
    stores: Path, single_rank: Path, tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--max-restarts", "1"]
    command += [
        "--rdzv-backend",
        "c10d",
        "--rdzv-endpoint",
        "localhost:0",
        "-m",
        "tests.tiny_network",
        "train",
    ]
    command += ["--dataset", str(stores), "--model-dir", str(tmp_path / "results"), *SMALL, *UNEVEN]
    command += ["--log-interval", "1", "--save-minutes", "1e-6", "--resume-epoch", "auto"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    log = ""
    for line in process.stderr:
        log += line
        if "epoch 2/2 step 1/3" in line:
            children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
            os.kill(int(children[-1]), signal.SIGKILL)
            break
    log += process.stderr.read()
    assert process.wait(timeout=60) == 0, log
    assert "resuming from epoch" in log
    assert_same_results(single_rank, tmp_path / "results")


def test_without_a_launcher_there_is_one_rank() -> None:
    dist = DistContext()
    assert dist.is_main_process
    assert dist.sum_counts(1, 2) == [1, 2]
    assert dist.all_gather(["a"]) == ["a"]
    assert dist.broadcast_object("a") == "a"
