"""A head of 100,000 labels, split over the ranks of torchrun; the small model below it runs on every rank.

    torchrun --nproc-per-node 2 examples/sharded_head.py

With more ranks than `--label-ranks`, the rest is data parallel: ranks that hold the same labels see other rows.
"""

import argparse

import torch
from torch import distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.nn.parallel import DistributedDataParallel

from lopsided import FusedAdagrad, LabelShard, LinearHead, SparseTargets

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--labels", type=int, default=100_000)
parser.add_argument("--label-ranks", type=int, default=2)
parser.add_argument("--steps", type=int, default=100)
asked = parser.parse_args()

device = "cuda" if torch.cuda.is_available() else "cpu"
dist.init_process_group("nccl" if device == "cuda" else "gloo")
replicas = dist.get_world_size() // asked.label_ranks
mesh = init_device_mesh(device, (replicas, asked.label_ranks), mesh_dim_names=("data", "labels"))
shard = LabelShard(asked.labels, mesh["labels"], data=mesh["data"])
torch.manual_seed(0)  # the same model everywhere; the shards draw their part of the same head
body = DistributedDataParallel(nn.Linear(64, 64).to(device), process_group=mesh["data"].get_group())
head = LinearHead(
    64,
    asked.labels,
    "asl",
    prior=2 / asked.labels,
    reduction="batchmean",
    shard=shard,
    fused_step=FusedAdagrad(lr=0.2),
    device=device,
)
optimizer = torch.optim.SGD(body.parameters(), lr=0.5)

rows = torch.Generator().manual_seed(mesh["data"].get_local_rank())  # the same rows for all ranks that share them
planted = torch.randint(asked.labels, (64,), generator=torch.Generator().manual_seed(0))  # a label for each feature
for step in range(asked.steps):
    active = torch.randint(64, (128, 2), generator=rows)
    x = torch.zeros(128, 64).scatter_(1, active, 1.0).to(device)
    targets = SparseTargets.from_indices(planted[active]).to(device)
    optimizer.zero_grad()
    value = head.step(body(x), targets)
    optimizer.step()
    if dist.get_rank() == 0 and step % 25 == 24:
        print(f"step {step + 1}: loss {value.item():.3f}")
best = head.predict_topk(body(torch.eye(64, device=device)), 1)[1].squeeze(1).cpu()
if dist.get_rank() == 0:
    print(f"the best label is the planted one for {(best == planted).sum()} of 64 features")
dist.destroy_process_group()
