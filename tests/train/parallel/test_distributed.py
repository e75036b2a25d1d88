"""Several processes on one run: the same weights as one, every clip once, one end for all."""

import itertools
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.distributed import TCPStore

from data.batch_sampler import BatchShape, Part
from tests.commands import main_of
from tests.synthetic_frames import make_stores
from tests.train.helpers import (
    NAME,
    SMALL,
    Together,
    assert_close_weights,
    damage,
    folder,
    rows,
    train,
    wait_for,
)
from train.multigrid import cycle_shapes, plan_epoch
from train.parallel.batch_norm import convert_sync_batchnorm
from train.parallel.distributed import DistContext, RemoteRankError, Shared, join

labels_main = main_of("data.labels")

ODD = ["--batch-size", "5", "--end-epoch", "2", "--save-frequency", "2"]  # 12 training videos as 5, 5 and 2


def final(results: Path, epoch: int = 2) -> Path:
    return folder(results) / f"{NAME}_ep-{epoch:04d}.pth"


def assert_same_rows(one: Path, other: Path) -> None:
    for split in ("train", "val"):
        first, second = (
            torch.tensor([[float(value) for value in row] for row in rows(path, split)])
            for path in (one, other)
        )
        torch.testing.assert_close(first, second, rtol=1e-4, atol=1e-5)


@pytest.fixture(scope="module")
def alone(stores: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    results = tmp_path_factory.mktemp("alone")
    assert train(stores, results, *ODD, "--freeze-batchnorm") == 0
    return results


@pytest.mark.parametrize("processes", [2, 4])
def test_several_processes_learn_what_one_does(
    stores: Path, alone: Path, tmp_path: Path, processes: int
) -> None:
    """With four, two sit out in the last step of an epoch, which has two clips."""
    together = Together(processes, stores, tmp_path / "results", *ODD, "--freeze-batchnorm")
    assert together.end() == [0] * processes
    assert_close_weights(final(alone), final(tmp_path / "results"), within=1e-5)
    assert_same_rows(alone, tmp_path / "results")
    logs = [log.read_text() for log in together.logs]
    assert "--gpus 0: ignored" in logs[0]
    assert logs[1:] == [""] * (processes - 1)  # the first process alone logs


def test_parts_of_parts_and_averages(stores: Path, alone: Path, tmp_path: Path) -> None:
    """Of 5 clips one process accumulates over 3 and 2, two over 3 and 2 of theirs; all of them validate the average."""
    words = [*ODD, "--freeze-batchnorm", "--accumulate", "2", "--ema-decay", "0.5"]
    assert train(stores, tmp_path / "one", *words) == 0
    together = Together(2, stores, tmp_path / "two", *words)
    assert together.end() == [0, 0]
    assert_close_weights(final(tmp_path / "one"), final(tmp_path / "two"), within=1e-5)
    assert_same_rows(tmp_path / "one", tmp_path / "two")
    trained = torch.load(final(tmp_path / "one"), weights_only=True)["trained"]["state_dict"]
    plain = torch.load(final(alone), weights_only=True)["state_dict"]
    assert all(torch.allclose(trained[name], plain[name], atol=1e-5) for name in plain)


def test_processes_that_would_get_a_single_clip_sit_out(stores: Path, tmp_path: Path) -> None:
    """Batches of 5, 5 and 2 clips: for three processes whose norms need two each 3, 2 and 0, then 2, 0 and 0.

    Synchronised norms are content with one clip a process.
    """
    for norms in ([], ["--sync-batchnorm"]):
        results = tmp_path / f"results{len(norms)}"
        together = Together(3, stores, results, *ODD, "--log-interval", "1", *norms)
        assert together.end() == [0, 0, 0]
        assert [row[0] for row in rows(results, "val")] == ["1", "2"]
        assert "step 3/3" in together.logs[0].read_text()
        assert f"3 processes, up to {2 if norms else 3} of 5 clips each" in together.logs[0].read_text()
        assert ("1 of 3 processes have nothing to do" in together.logs[0].read_text()) == (not norms)
    assert rows(tmp_path / "results0", "train") != rows(tmp_path / "results1", "train")


@pytest.mark.parametrize("processes", range(1, 9))
@pytest.mark.parametrize("cycles", list(itertools.product([False, True], repeat=2)))
def test_every_step_of_every_plan_can_be_shared(processes: int, cycles: tuple[bool, bool]) -> None:
    for n_clips, batch, length in itertools.product((1, 2, 3, 17, 100, 1001, 10_000), (1, 2, 5, 48), (1, 16)):
        if n_clips == 1 and batch > 1:
            continue
        base = BatchShape(batch, length, 224)
        steps = plan_epoch(n_clips, cycle_shapes(base, long_cycles=cycles[0], short_cycles=cycles[1]))
        for clips in {step.shape.batch for step in steps}:
            parts = [range(clips)[Part(rank, processes, least=2).of(clips)] for rank in range(processes)]
            assert [i for part in parts for i in part] == list(range(clips))
            assert all(len(part) != 1 for part in parts) or clips == 1


def _train_synchronised(rank: int, port: int, path: Path) -> None:
    """Two steps in float64, of five clips and of two, as one of three processes or, at rank -1, alone."""
    if rank >= 0:
        os.environ.update(RANK=str(rank), WORLD_SIZE="3", MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
        os.environ["TORCHELASTIC_USE_AGENT_STORE"] = "True"
        os.environ["LOCAL_WORLD_SIZE"] = "3"  # two threads never end in a fork of a process that has used two
    dist = join() if rank >= 0 else DistContext()
    torch.manual_seed(1)
    layers = [
        nn.Conv3d(3, 8, 3),
        nn.BatchNorm3d(8),
        nn.ReLU(inplace=True),
        nn.Conv3d(8, 8, 3),
        nn.BatchNorm3d(8),
    ]
    plain = nn.Sequential(*layers, nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(8, 3)).double()
    convert_sync_batchnorm(plain, dist)
    options = {"classes": 3, "gates": 0, "synchronised": True}
    network = plain if rank < 0 else Shared(plain, dist, torch.device("cpu"), **options)
    optimizer = torch.optim.SGD(plain.parameters(), lr=0.01, momentum=0.9)
    for clips in (5, 2):
        mine = Part(dist.rank, dist.size).of(clips)
        x, labels = torch.randn(clips, 3, 6, 9, 9, dtype=torch.float64), torch.arange(clips) % 3
        loss = nn.functional.cross_entropy(network(x[mine]), labels[mine], reduction="sum")
        optimizer.zero_grad()
        (loss * dist.size / clips).backward()
        optimizer.step()
    network.eval()
    torch.save({"state_dict": plain.state_dict()}, path)
    os._exit(0)


def test_synchronised_norms_are_those_of_one_process_with_all_clips(tmp_path: Path) -> None:
    """In float64, where rounding does not hide a wrong gradient. In the second step the third process sits out."""
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    paths = {rank: tmp_path / f"{rank}.pth" for rank in (-1, 0, 1, 2)}
    fork = multiprocessing.get_context("fork")
    work = [(rank, store.port, path) for rank, path in paths.items()]
    started = [fork.Process(target=_train_synchronised, args=arguments) for arguments in work]
    for process in started:
        process.start()
    for process in started:
        process.join(60)
        process.kill()
    assert [process.exitcode for process in started] == [0] * 4
    for rank in (0, 1, 2):
        assert_close_weights(paths[-1], paths[rank], within=1e-12)


def test_one_process_killed_ends_the_other_with_a_message(stores: Path, tmp_path: Path) -> None:
    together = Together(2, stores, tmp_path / "results", "--end-epoch", "1000", "--log-interval", "1")
    wait_for("epoch 1/1000 step 2/3", together.logs[0])
    os.kill(together.processes[1].pid, signal.SIGKILL)
    killed_at = time.monotonic()
    assert together.end(30) == [1, -signal.SIGKILL]
    assert time.monotonic() - killed_at < 30
    assert "process 0 of 2: stopped, because another process is gone without a word" in together.errors()[0]
    assert "another process is gone" in (folder(tmp_path / "results") / "train.log").read_text()


def test_what_nccl_says_is_passed_on() -> None:
    """It was cut off, and another process called dead."""
    said = "NCCL error in: NCCLUtils.cpp:94, unhandled system error\nLast error:\n"
    with pytest.raises(RemoteRankError) as stopped, DistContext().explained():
        raise torch.distributed.DistBackendError(f"{said}Duplicate GPU detected : rank 1 and rank 0\n")
    assert str(stopped.value) == "stopped, because NCCL failed: Duplicate GPU detected : rank 1 and rank 0"


def test_a_process_that_fails_is_the_one_that_says_why(tmp_path: Path) -> None:
    """Of the last batch of validation videos the second of two processes reads the second, which is damaged."""
    make_stores(tmp_path / "set", {name: [f"{i}" for i in range(4)] for name in ("a", "b")}, n_frames=4)
    labels_main(["folders", str(tmp_path / "set"), "--val", "0.5"])
    store = damage(tmp_path / "set", "val", row=3)
    together = Together(2, tmp_path / "set", tmp_path / "results")
    assert together.end(60) == [1, 1]
    first, second = together.errors()
    reason = f"validation: {store}/frames.db: file is not a database"
    assert f"train: error: process 1 of 2: {reason}" in second
    assert f"train: error: process 0 of 2: stopped, because process 1 of 2 failed: {reason}" in first


def test_an_error_that_all_have_is_told_once(stores: Path, tmp_path: Path) -> None:
    together = Together(2, stores, tmp_path / "results", "--network", "srtg_r3d_33")
    assert together.end() == [2, 2]
    assert sorted(bool(error) for error in together.errors()) == [False, True]


def test_bad_training_samples_of_any_process_are_counted_and_written(tmp_path: Path) -> None:
    make_stores(tmp_path / "set", {name: [f"{i}" for i in range(6)] for name in ("a", "b")}, n_frames=4)
    labels_main(["folders", str(tmp_path / "set"), "--val", "0.34"])
    stores = [damage(tmp_path / "set", "train", row=row) for row in (3, 5, 7)]
    lenient = Together(
        2, tmp_path / "set", tmp_path / "lenient", "--max-bad-samples", "1", "--end-epoch", "1"
    )
    assert lenient.end() == [0, 0]
    written = (folder(tmp_path / "lenient") / "bad_samples.csv").read_text()
    assert all(store in written for store in stores)
    strict = Together(2, tmp_path / "set", tmp_path / "strict", "--max-bad-samples", "0.1")
    assert strict.end() == [1, 1]
    assert "clips of 8 could not be read, more than --max-bad-samples 0.1 allows" in "".join(strict.errors())


def test_stopped_by_one_process_and_resumed_by_more_is_the_same(
    stores: Path, alone: Path, tmp_path: Path
) -> None:
    """The signal reaches the second process only; both stop after the same step."""
    words = [*ODD, "--freeze-batchnorm", "--log-interval", "1", "--resume-epoch", "auto"]
    two = Together(2, stores, tmp_path / "results", *words)
    wait_for("epoch 1/2 step 1/3", two.logs[0])
    os.kill(two.processes[1].pid, signal.SIGTERM)
    assert two.end() == [128 + signal.SIGTERM] * 2
    last = torch.load(folder(tmp_path / "results") / f"{NAME}_last.pth", weights_only=True)
    assert (last["epoch"], last["step"]) < (1, 3)
    assert last["metrics"]["sums"][0] == (5, 10, 12)[last["step"] - 1] or last["step"] == 0
    assert Together(3, stores, tmp_path / "results", *words).end() == [0, 0, 0]
    assert_close_weights(final(alone), final(tmp_path / "results"), within=1e-5)
    assert_same_rows(alone, tmp_path / "results")


def test_torchrun_starts_again_after_a_kill_and_nothing_is_lost(
    stores: Path, alone: Path, tmp_path: Path
) -> None:
    words = [*SMALL, *ODD, "--freeze-batchnorm", "--log-interval", "1", "--save-minutes", "1e-6"]
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--max-restarts", "1"]
    command += ["--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:0", "-m", "train"]
    command += ["--dataset", str(stores), "--model-dir", str(tmp_path / "results"), *words]
    command += ["--resume-epoch", "auto"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    seen = []
    for line in process.stderr:
        seen.append(line)
        if "epoch 1/2 step 2/3" in line:
            os.kill(_children(process.pid)[-1], signal.SIGKILL)
            break
    rest = process.stderr.read()
    assert process.wait(timeout=60) == 0, "".join(seen) + rest
    assert "going on with epoch" in rest
    assert_close_weights(final(alone), final(tmp_path / "results"), within=1e-5)
    assert_same_rows(alone, tmp_path / "results")


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_without_a_launcher_there_is_one_process() -> None:
    dist = DistContext()
    assert dist.is_main_process
    assert dist.add(1, 2) == [1, 2]
    assert dist.gather(["a"]) == ["a"]
    assert dist.broadcast_object("a") == "a"
    assert dist.report("error")
