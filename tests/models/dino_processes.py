"""Train a tiny DINO for three steps in one or several processes on the CPU; the first one saves what it has learnt.

python dino_processes.py RANK WORLD_SIZE RENDEZVOUS_FILE OUTPUT
"""

import contextlib
import sys

import torch
import torch.distributed as dist

from mimic_wds.models.build import ModelConfig, build_model
from mimic_wds.models.dino_recipe import DinoConfig

STEPS, BATCH, MICRO_BATCHES = 3, 8, 2

SMALL = DinoConfig(
    out_dim=48, hidden_dim=32, bottleneck_dim=16, local_crops=3, local_size=32, freeze_last_layer_epochs=1.0
)


def main(rank: int, world_size: int, rendezvous: str, output: str) -> None:
    if world_size > 1:
        dist.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=world_size)
    torch.manual_seed(0)
    config = ModelConfig(objective="dino", size="tiny", depth=2, image_size=64, dino=SMALL)
    bare = build_model(config)
    model = torch.nn.parallel.DistributedDataParallel(bare) if world_size > 1 else bare
    optimizer = torch.optim.SGD([p for p in bare.parameters() if p.requires_grad], lr=0.1)
    generator = torch.Generator().manual_seed(1)
    for step in range(STEPS):
        images = torch.randn(BATCH, 3, 64, 64, generator=generator)
        draws = torch.rand(BATCH, config.num_draws, generator=generator)
        micro_batches = torch.arange(BATCH).chunk(world_size)[rank].chunk(MICRO_BATCHES)
        bare.begin_step(step / 2)
        optimizer.zero_grad()
        for number, rows in enumerate(micro_batches, 1):
            quiet = number < MICRO_BATCHES and world_size > 1
            with model.no_sync() if quiet else contextlib.nullcontext():
                (model(images[rows], draws[rows]).loss / MICRO_BATCHES).backward()
        optimizer.step()
        bare.finish_step(step / STEPS)
    if rank == 0:
        torch.save(bare.state_dict(), output)
    if world_size > 1:
        dist.destroy_process_group()


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(int(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:])
