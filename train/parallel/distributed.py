"""Several processes as one run: started by torchrun or its like, they add up, agree, and fail together.

The only file that imports torch.distributed. Tensors of the network travel between GPUs by NCCL and between CPUs by
gloo; what hosts agree on goes by gloo always, so that no process waits for its GPU to hear what the others want.
"""

import gc
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Self, TypeVar

import torch
import torch.distributed as torch_dist
from torch import Tensor, nn
from torch.distributed.rendezvous import rendezvous
from torch.nn.parallel import DistributedDataParallel

from data.common.cpus import cpus_per_rank

# what torchrun sets for each of its processes
LAUNCHER = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
FAILURE = "failure"  # key of the store under which the first process that fails says why
PATIENCE = 600  # seconds that processes wait for the first one at the start
CPU = torch.device("cpu")

Value = TypeVar("Value")


class RemoteRankError(RuntimeError):
    """Another process of the run has failed; the message says which and why, as far as is known."""


class DistContext:
    """The processes of a run, this one being number `rank` of `size`; `local_*` count those on this machine.

    What passes values on is collective: all processes call it at the same point, or all end with a RemoteRankError.
    """

    def __init__(
        self,
        rank: int = 0,
        size: int = 1,
        local_rank: int = 0,
        local_size: int = 1,
        store: torch_dist.Store | None = None,
        launched: bool = False,
    ) -> None:
        self.rank = rank
        self.size = size
        self.local_rank = local_rank
        self.local_size = local_size
        self.launched = launched
        self.num_participants = (
            size  # how many processes, those of the lowest ranks, have clips in the current step
        )
        self._store = store
        self._groups: dict[int, torch_dist.ProcessGroup] = {}

    def __deepcopy__(self, memo: dict[int, Any]) -> "DistContext":
        """Itself: what is copied for averaging still runs in these processes."""
        return self

    @property
    def is_main_process(self) -> bool:
        """Whether this is the process that writes and logs."""
        return self.rank == 0

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum over all processes, on all of them."""
        total = tensor.clone()
        if self.size > 1:
            torch_dist.all_reduce(total)
        return total

    def add(self, *counts: int) -> list[int]:
        """Sums over all processes of whole numbers that hosts know; waits for the other hosts, for no device."""
        total = torch.tensor(counts, dtype=torch.int64)
        return self.sum(total).tolist()

    def gather(self, items: Sequence[Value]) -> list[Value]:
        """The items of all processes, those of the lowest rank first."""
        if self.size == 1:
            return list(items)
        parts: list[Any] = [None] * self.size
        torch_dist.all_gather_object(parts, list(items))
        return [item for part in parts for item in part]

    def broadcast_object(self, value: Value) -> Value:
        """What the first process has."""
        if self.size == 1:
            return value
        values = [value]
        torch_dist.broadcast_object_list(values, src=0, device=CPU)
        return values[0]

    def broadcast_tensors(self, tensors: Iterator[Tensor]) -> None:
        """Fill tensors with those of the first process."""
        if self.size > 1:
            for tensor in tensors:
                torch_dist.broadcast(tensor, src=0)

    def count_participants(self, takes_part: bool) -> None:
        """Set `num_participants`. Waits for the other hosts, for no device."""
        self.num_participants = self.add(takes_part)[0]
        if 1 < self.num_participants < self.size and self.num_participants not in self._groups:
            self._groups[self.num_participants] = torch_dist.new_group(range(self.num_participants))

    def all_reduce_subset(self, num_participants: int, tensor: Tensor) -> None:
        """Replace a tensor by its sum over the first processes, as many as `num_participants`; they alone call this."""
        if num_participants > 1:
            torch_dist.all_reduce(tensor, group=self._groups.get(num_participants))

    def report(self, message: str) -> bool:
        """Leave word to the others why this process ends; False where another has ended for the same reason before."""
        if self._store is None:
            return True
        mine = f"process {self.rank} of {self.size} failed: {message}"
        try:
            first = self._store.compare_set(FAILURE, "", mine).decode()
        except RuntimeError:  # the store was kept by a process that is gone
            return True
        return first == mine or not first.endswith(f" failed: {message}")

    @contextmanager
    def explained(self) -> Iterator[None]:
        """Within, a lost connection becomes a RemoteRankError that says why the other process went, if it left word."""
        try:
            yield
        except RuntimeError as error:
            if not _is_lost_connection(error):
                raise
            raise RemoteRankError(self._why_lost(error)) from error

    def _why_lost(self, error: RuntimeError) -> str:
        try:
            if self._store is not None and self._store.check([FAILURE]):
                return f"stopped, because {self._store.get(FAILURE).decode()}"
        except RuntimeError:  # the store was kept by the process that is gone
            pass
        if "NCCL" in str(error):  # perhaps of a network card, or of two processes on one GPU
            reason = str(error).partition("Last error:")[2].strip() or str(error)
            return f"stopped, because NCCL failed: {' '.join(reason.split())}"
        what = str(error).splitlines()[0].rpartition("] ")[2].partition(". ")[0]
        return f"stopped, because another process is gone without a word, killed or out of memory ({what})"

    def leave(self) -> None:
        """At the end of a run that went well, when nothing refers to its network any more."""
        if self.size > 1:
            gc.collect()  # a DistributedDataParallel that outlives its group waits for ever when it goes
            torch_dist.destroy_process_group()


def join() -> DistContext:
    """The processes that a launcher started this one with; this one alone where none did. Waits for all to be there."""
    if any(name not in os.environ for name in LAUNCHER):
        return DistContext()
    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    local_size = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    _share_cores()
    store = None
    if size > 1:
        if torch.cuda.is_available():
            torch.cuda.set_device(local_rank % torch.cuda.device_count())
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        try:
            store, _, _ = next(rendezvous("env://"))
            store = _own_session(store, rank, size)
            torch_dist.init_process_group(backend, store=store, rank=rank, world_size=size)
        except RuntimeError as error:
            place = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
            hint = "; GLOO_SOCKET_IFNAME names the network card" if "127.0." in str(error) else ""
            raise RemoteRankError(
                f"{size} processes did not find each other at {place}: {error}{hint}"
            ) from error
    return DistContext(rank, size, local_rank, local_size, store, launched=True)


def _own_session(store: torch_dist.Store, rank: int, size: int) -> torch_dist.Store:
    """A part of a store that holds nothing of processes that ended: torchrun keeps its store when it starts new ones.

    The first process opens a session; each of the others waits for one that nobody of its rank has entered.
    """
    restarts = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    sessions = torch_dist.PrefixStore(f"sessions of {size} after {restarts} restarts", store)
    if rank == 0:
        return torch_dist.PrefixStore(str(sessions.add("last", 1)), sessions)
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        last = sessions.add("last", 0)
        session = torch_dist.PrefixStore(str(last), sessions)
        if last and session.add(f"entered by {rank}", 1) == 1:
            return session
        time.sleep(0.05)
    raise RuntimeError(f"the first process did not come within {PATIENCE} seconds")


def _share_cores() -> None:
    """torchrun gives each process one thread unless told otherwise; with more cores than processes they get more."""
    if os.environ.get("OMP_NUM_THREADS") == "1":
        torch.set_num_threads(cpus_per_rank())


def _is_lost_connection(error: RuntimeError) -> bool:
    return isinstance(error, torch_dist.DistError) or "/gloo/" in str(error)


class Evaluated(nn.Module):
    """A network, such as an average, that each process evaluates on its own: `eval()` gives all the same statistics.

    They are those of the first process.
    """

    def __init__(self, network: nn.Module, dist: DistContext) -> None:
        super().__init__()
        self.network = network
        self.dist = dist

    def train(self, mode: bool = True) -> Self:
        if not mode:
            self.dist.broadcast_tensors(self.network.buffers())
        return super().train(mode)

    def forward(self, clips: Tensor, **options: bool) -> Tensor | tuple[Tensor, Tensor]:
        return self.network(clips, **options)


class Shared(Evaluated):
    """A network that all processes also train together, each on its part of the clips, which may be none.

    Gradients are averaged over the processes while the backward pass goes on. Running statistics are those of the first
    process.

    `classes` and `gates`: how many logits and openings a clip has, also where there is none. `synchronised`: whether
    there are norms that ask who takes part.
    """

    def __init__(
        self,
        network: nn.Module,
        dist: DistContext,
        device: torch.device,
        *,
        classes: int,
        gates: int,
        sync_batchnorm: bool,
    ) -> None:
        super().__init__(network, dist)
        self.sync_batchnorm = sync_batchnorm
        gpus = [device.index] if device.type == "cuda" else None
        self.parallel = DistributedDataParallel(
            _Part(network, classes, gates), device_ids=gpus, gradient_as_bucket_view=True
        )

    def forward(self, clips: Tensor, **options: bool) -> Tensor | tuple[Tensor, Tensor]:
        if not self.training:
            return super().forward(clips, **options)
        if self.sync_batchnorm:
            self.dist.count_participants(len(clips) > 0)
        return self.parallel(clips, **options)


class _Part(nn.Module):
    """A network that can sit out: without clips its gradients are zero and its norms stay as they are."""

    def __init__(self, network: nn.Module, classes: int, gates: int) -> None:
        super().__init__()
        self.network = network
        self.classes = classes
        self.gates = gates

    def forward(self, clips: Tensor, return_gates: bool = False) -> Tensor | tuple[Tensor, Tensor]:
        if len(clips):
            return self.network(clips, return_gates=True) if return_gates else self.network(clips)
        # every parameter is in it, so that the others' gradients are not waited for in vain
        zero = 0 * torch.stack([parameter[(0,) * parameter.dim()] for parameter in self.parameters()]).sum()
        logits = clips.new_zeros(0, self.classes) + zero
        return (logits, clips.new_zeros(0, self.gates)) if return_gates else logits
