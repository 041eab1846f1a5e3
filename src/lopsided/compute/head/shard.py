"""Labels split over the ranks of `torch.distributed`: each rank holds the head's rows of its own labels."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch import distributed as dist

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh


class LabelShard:
    """The labels of this rank: `start` to `stop` of `num_labels`, in the order of the ranks of a one-dimensional mesh.

    Every rank gets ceil(L / ranks) labels, the last ones fewer or none, as `torch.distributed.tensor.Shard(0)` splits.
    All ranks of the mesh see the same rows of hidden and targets; targets speak of all labels.

    Args:
        num_labels: L, of all ranks together.
        mesh: a one-dimensional `DeviceMesh`, for instance `mesh["labels"]` of a larger one; a process group; or None
            for all ranks.
        data: a mesh of the ranks that hold the same labels and see other rows, for instance `mesh["data"]`: gradients
            of the head are averaged over them, as `DistributedDataParallel` does for the model below.
        device_type: of the mesh that is made where none is given.
    """

    def __init__(
        self,
        num_labels: int,
        mesh: DeviceMesh | dist.ProcessGroup | None = None,
        data: DeviceMesh | None = None,
        device_type: str = "cpu",
    ) -> None:
        from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

        if not dist.is_initialized():
            raise RuntimeError("a LabelShard needs torch.distributed: call init_process_group, or launch with torchrun")
        if mesh is None:
            mesh = init_device_mesh(device_type, (dist.get_world_size(),))
        elif isinstance(mesh, dist.ProcessGroup):
            mesh = DeviceMesh.from_group(mesh, device_type)
        if mesh.ndim != 1:
            raise ValueError(f"the mesh of a LabelShard must have one dimension, got {mesh.ndim}: pass mesh['labels']")
        self.num_labels, self.mesh, self.data = num_labels, mesh, data

    @property
    def start(self) -> int:
        return min(self.mesh.get_local_rank() * self._each, self.num_labels)

    @property
    def stop(self) -> int:
        return min(self.start + self._each, self.num_labels)

    @property
    def _each(self) -> int:
        return -(-self.num_labels // self.mesh.size())

    def gather(self, tensor: Tensor) -> Tensor:
        """Returns (ranks, ...), the same on all ranks, from the (...) tensor of each."""
        parts = [torch.empty_like(tensor) for _ in range(self.mesh.size())]
        self._call(dist.all_gather, parts, tensor.contiguous())
        return torch.stack(parts)

    def sum(self, tensor: Tensor) -> Tensor:
        """Adds a tensor up over the ranks, in place."""
        self._call(dist.all_reduce, tensor)
        return tensor

    def _call(self, collective: Callable[..., Any], *tensors: Any, mesh: DeviceMesh | None = None) -> None:
        try:
            collective(*tensors, group=(mesh or self.mesh).get_group())
        except RuntimeError as error:
            raise RuntimeError(
                f"rank {dist.get_rank()} of {dist.get_world_size()} cannot reach the others of its label shard: one of "
                f"them has died, or has another number of rows; look at their first error. ({error})"
            ) from error

    def average(self, tensor: Tensor) -> None:
        """Averages a gradient in place over the replicas of this shard, which saw other rows."""
        if self.data is not None:
            self._call(dist.all_reduce, tensor, mesh=self.data)
            tensor /= self.data.size()

    def replicate(self, tensor: Tensor) -> None:
        """Copies the tensor of the first replica of this shard to all, in place."""
        if self.data is not None:
            group = self.data.get_group()
            self._call(dist.broadcast, tensor, dist.get_global_rank(group, 0), mesh=self.data)

    def local(self, tensor: Tensor) -> Tensor:
        """Returns the part of a tensor that lies on this rank, differentiable."""
        from torch.distributed.tensor import DTensor

        local: Tensor = tensor.to_local() if isinstance(tensor, DTensor) else tensor
        return local

    def distribute(self, local: Tensor) -> Tensor:
        """Returns the rows of this rank as part of a `DTensor` of all labels, as optimisers and checkpoints take it."""
        from torch.distributed.tensor import DTensor, Shard

        shape = (self.num_labels, *local.shape[1:])
        return DTensor.from_local(
            local,
            self.mesh,
            [Shard(0)],
            run_check=False,
            shape=torch.Size(shape),
            stride=torch.empty(shape, device="meta").stride(),
        )
