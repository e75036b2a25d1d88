"""Run a function as the ranks of a distributed run."""

import multiprocessing
import os
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

from torch.distributed import TCPStore


def run_ranks(
    world_size: int, folder: Path, function: Callable[[int], int | None]
) -> list[tuple[int | None, str]]:
    """Call `function(rank)` in forked processes with the environment that torchrun sets.

    Return the exit code and output of each; the output is also in `<folder>/<rank>.log`.
    """
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    logs = [folder / f"{rank}.log" for rank in range(world_size)]

    def run(rank: int) -> None:
        os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank)}
        os.environ |= {"WORLD_SIZE": str(world_size), "LOCAL_WORLD_SIZE": str(world_size)}
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(store.port)}
        os.environ["TORCHELASTIC_USE_AGENT_STORE"] = "True"
        with logs[rank].open("w") as file, redirect_stdout(file), redirect_stderr(file):
            try:
                exit_code = function(rank)
            except SystemExit as end:
                exit_code = int(end.code or 0)
        os._exit(exit_code or 0)

    fork = multiprocessing.get_context("fork")
    processes = [fork.Process(target=run, args=(rank,)) for rank in range(world_size)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        process.kill()
    return [(process.exitcode, log.read_text()) for process, log in zip(processes, logs, strict=True)]
