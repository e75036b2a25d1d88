"""Several ranks, started by torchrun, as one run. The only file that imports torch.distributed.

Tensors on GPUs are reduced by NCCL, tensors on CPUs by gloo. Decisions that all ranks share use CPU tensors, so that no
rank waits for its GPU to learn of them.
"""

import gc
import inspect
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Any, Self, TypeVar, cast

import torch
import torch.distributed as torch_dist
from torch import Tensor, nn
from torch.distributed.rendezvous import rendezvous
from torch.nn.parallel import DistributedDataParallel

from data.common.cpus import cpus_per_rank

Item = TypeVar("Item")
Content = dict[str, Any]  # of a checkpoint
# steps do not use running statistics, and `eval()` synchronizes them; torch 2.13 renamed the argument
DDP_ARGUMENTS = inspect.signature(DistributedDataParallel).parameters
SYNC_BUFFERS = "forward_sync_buffers" if "forward_sync_buffers" in DDP_ARGUMENTS else "broadcast_buffers"
NO_BUFFER_SYNC: dict[str, Any] = {SYNC_BUFFERS: False}


class RemoteRankError(ConnectionError):
    """Another rank failed or cannot be reached."""


@dataclass(eq=False)
class DistContext:
    """The rank of this process among `world_size`, and the collectives over all of them.

    All ranks call a collective at the same point, or all raise a RemoteRankError (see `translate_dist_errors`).
    """

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    local_world_size: int = 1
    launched: bool = False  # by torchrun or the like
    _groups: dict[int, torch_dist.ProcessGroup] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.num_participants = self.world_size  # ranks, the lowest, that have clips in the current step

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """Return itself, as copies of a network stay on this rank."""
        return self

    @property
    def is_main_process(self) -> bool:
        """Whether this rank writes files and logs."""
        return self.rank == 0

    def all_reduce(self, tensor: Tensor) -> Tensor:
        """Return the sum over all ranks."""
        total = tensor.clone()
        if self.world_size > 1:
            torch_dist.all_reduce(total)
        return total

    def sum_counts(self, *counts: int) -> list[int]:
        """Return the sums over all ranks of integers on the host; waits for no GPU."""
        return self.all_reduce(torch.tensor(counts, dtype=torch.int64)).tolist()

    def all_gather(self, items: Sequence[Item]) -> list[Item]:
        """Return the items of all ranks, in order of rank."""
        if self.world_size == 1:
            return list(items)
        gathered: list[Any] = [None] * self.world_size
        torch_dist.all_gather_object(gathered, list(items))
        return [item for items_of_rank in gathered for item in items_of_rank]

    def broadcast_object(self, value: Item) -> Item:
        """Return rank 0's value."""
        if self.world_size == 1:
            return value
        values = [value]
        torch_dist.broadcast_object_list(values, src=0, device=torch.device("cpu"))
        return values[0]

    def call_on_main(self, function: Callable[[], Item]) -> Item:
        """Return what rank 0 gets from `function`, which only it calls."""
        return self.broadcast_object(function() if self.is_main_process else cast("Item", None))

    def broadcast_checkpoint(self, content: Content | None) -> Content | None:
        """Return rank 0's checkpoint. Its structure is pickled, its tensors are sent as they are."""

        def send(tensor: Tensor) -> Tensor:
            if not self.is_main_process:
                tensor = torch.empty(tensor.shape, dtype=tensor.dtype)
            tensor = tensor.contiguous()
            torch_dist.broadcast(tensor, src=0)
            return tensor

        if self.world_size == 1:
            return content
        structure = self.broadcast_object(map_tensors(content, lambda tensor: tensor.to("meta")))
        return map_tensors(content if self.is_main_process else structure, send)

    def broadcast_tensors(self, tensors: Iterable[Tensor]) -> None:
        """Overwrite tensors with rank 0's."""
        if self.world_size > 1:
            for tensor in tensors:
                torch_dist.broadcast(tensor, src=0)

    def count_participants(self, participates: bool) -> None:
        """Set `num_participants`; waits for no GPU."""
        (self.num_participants,) = self.sum_counts(participates)
        if 1 < self.num_participants < self.world_size and self.num_participants not in self._groups:
            self._groups[self.num_participants] = torch_dist.new_group(range(self.num_participants))

    def all_reduce_subset(self, num_participants: int, tensor: Tensor) -> None:
        """Sum a tensor, in place, over the lowest `num_participants` ranks; only they call this."""
        if num_participants > 1:
            torch_dist.all_reduce(tensor, group=self._groups.get(num_participants))

    @contextmanager
    def translate_dist_errors(self) -> Iterator[None]:
        """Raise a RemoteRankError where the connection to another rank is lost."""
        try:
            yield
        except RuntimeError as error:
            if not isinstance(error, torch_dist.DistError) and "/gloo/" not in str(error):
                raise
            reason = " ".join(str(error).split())
            raise RemoteRankError(f"stopped: another rank failed or cannot be reached ({reason})") from error

    def shutdown(self) -> None:
        """Leave the process group after a successful run, when nothing refers to its network any more."""
        if self.world_size > 1:
            gc.collect()  # a DistributedDataParallel that outlives its group hangs in its destructor
            torch_dist.destroy_process_group()


def init_distributed() -> DistContext:
    """Join the ranks that a launcher started and wait for all of them; a single process if there is no launcher."""
    env = os.environ
    if not {"RANK", "WORLD_SIZE"} <= env.keys():
        return DistContext()
    dist = DistContext(
        rank=int(env["RANK"]),
        world_size=int(env["WORLD_SIZE"]),
        local_rank=int(env.get("LOCAL_RANK", "0")),
        local_world_size=int(env.get("LOCAL_WORLD_SIZE", "1")),
        launched=True,
    )
    if env.get("OMP_NUM_THREADS") == "1":  # torchrun's default
        torch.set_num_threads(cpus_per_rank())
    if dist.world_size == 1:
        return dist
    backend = "gloo"
    if torch.cuda.is_available():
        backend = "cpu:gloo,cuda:nccl"
        torch.cuda.set_device(dist.local_rank % torch.cuda.device_count())
    try:
        store, rank, world_size = next(rendezvous("env://"))
        # torchrun keeps its store when it restarts ranks, with the addresses of those that died
        restart = f"restart {env.get('TORCHELASTIC_RESTART_COUNT', '0')}"
        store = torch_dist.PrefixStore(restart, store)  # type: ignore[attr-defined]
        torch_dist.init_process_group(backend, store=store, rank=rank, world_size=world_size)
    except RuntimeError as error:
        raise RemoteRankError(f"{dist.world_size} ranks could not connect: {error}") from error
    return dist


def map_tensors(value: Any, function: Callable[[Tensor], Tensor]) -> Any:
    """Return nested dicts, lists and tuples with each tensor replaced, in order."""
    if isinstance(value, Tensor):
        return function(value)
    if isinstance(value, dict):
        return {key: map_tensors(item, function) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(map_tensors(item, function) for item in value)
    return value


class BufferSyncedModel(nn.Module):
    """A network that each rank evaluates on its own: `eval()` broadcasts rank 0's BatchNorm statistics."""

    def __init__(self, network: nn.Module, dist: DistContext) -> None:
        super().__init__()
        self.network = network
        self.dist = dist

    def train(self, mode: bool = True) -> Self:
        if not mode:
            self.dist.broadcast_tensors(self.network.buffers())
        return super().train(mode)

    def forward(self, clips: Tensor, **kwargs: bool) -> Tensor | tuple[Tensor, Tensor]:
        return self.network(clips, **kwargs)


class DDPModel(BufferSyncedModel):
    """A network that all ranks train together, each on its shard of a batch, which may be empty.

    DistributedDataParallel averages the gradients over ranks during the backward pass. `num_classes` and `num_gates`
    are the widths of the outputs of an idle rank.
    """

    def __init__(
        self,
        network: nn.Module,
        dist: DistContext,
        device: torch.device,
        *,
        num_classes: int,
        num_gates: int,
        sync_batchnorm: bool,
    ) -> None:
        super().__init__(network, dist)
        self.sync_batchnorm = sync_batchnorm
        self.ddp = DistributedDataParallel(
            OptionalParticipant(network, num_classes, num_gates),
            device_ids=[device.index] if device.type == "cuda" else None,
            gradient_as_bucket_view=True,
            **NO_BUFFER_SYNC,
        )

    def no_sync(self) -> AbstractContextManager[None]:
        """Keep gradients local until the backward pass of the last micro-batch."""
        return self.ddp.no_sync()

    def forward(self, clips: Tensor, **kwargs: bool) -> Tensor | tuple[Tensor, Tensor]:
        if not self.training:
            return super().forward(clips, **kwargs)
        if self.sync_batchnorm:
            self.dist.count_participants(len(clips) > 0)
        return self.ddp(clips, **kwargs)


class OptionalParticipant(nn.Module):
    """A network that can be idle: without clips its gradients are zero and its BatchNorm statistics stay."""

    def __init__(self, network: nn.Module, num_classes: int, num_gates: int) -> None:
        super().__init__()
        self.network = network
        self.num_classes = num_classes
        self.num_gates = num_gates

    def forward(self, clips: Tensor, return_gates: bool = False) -> Tensor | tuple[Tensor, Tensor]:
        if len(clips):
            return self.network(clips, return_gates=True) if return_gates else self.network(clips)
        # depends on every parameter, so that DistributedDataParallel does not wait for its gradient
        zero = 0 * torch.stack([parameter[(0,) * parameter.dim()] for parameter in self.parameters()]).sum()
        logits = clips.new_zeros(0, self.num_classes) + zero
        return (logits, clips.new_zeros(0, self.num_gates)) if return_gates else logits
