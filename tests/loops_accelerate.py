"""A training loop with Accelerate, for torchrun: who gets which rows. Arguments: store, output folder."""

import contextlib
import json
import sys
from pathlib import Path

import torch
from accelerate import Accelerator
from torch.distributed.algorithms.join import Join

from pipeline.loader import TokenLoader
from pipeline.store import TokenStore
from pipeline.world import end_process

BATCH_SIZE, EPOCHS = 20, 2
CHECKPOINT = (1, 3)
"""Epoch and steps in it."""


def train(store: TokenStore, folder: Path, remainder: str, resume: bool) -> dict[int, list[int]]:
    """Rows of this rank by epoch."""
    accelerator = Accelerator(cpu=True)
    loader = TokenLoader(
        store,
        batch_size=BATCH_SIZE,
        seed=1,
        rank=accelerator.process_index,
        world_size=accelerator.num_processes,
        remainder=remainder,  # type: ignore[arg-type]
    )
    model = torch.nn.Embedding(store.vocab_size, 4)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    prepared = accelerator.prepare(loader)
    assert prepared is loader  # left alone: no DataLoader
    model, optimizer = accelerator.prepare(model, optimizer)
    accelerator.register_for_checkpointing(loader)
    begin = 0
    if resume:
        accelerator.load_state(str(folder / remainder))
        begin = CHECKPOINT[0]
    rows: dict[int, list[int]] = {}
    steps = []
    for epoch in range(begin, EPOCHS):
        loader.set_epoch(epoch)
        # With GPUs accelerator.join_uneven_inputs([model], even_batches=False); on CPUs that does nothing.
        joined = Join([model]) if remainder == "uneven" else contextlib.nullcontext()
        own = rows.setdefault(epoch, [])
        with joined:
            for step, batch in enumerate(loader, start=1):
                batch = batch.to(accelerator.device, non_blocking=True)
                loss = model(batch.idx_Bl[0]).square().mean()
                accelerator.backward(loss)
                optimizer.step()
                optimizer.zero_grad()
                own += batch.row.tolist() if batch.mask is None else batch.row[batch.mask.numpy()].tolist()
                steps.append(epoch)
                if (epoch, step) == CHECKPOINT and not resume:
                    accelerator.save_state(str(folder / remainder))
                    (folder / f"{remainder}-seen-{accelerator.process_index}.json").write_text(json.dumps(own))
    weights = accelerator.gather(accelerator.unwrap_model(model).weight.detach()[None])
    assert torch.equal(weights[0], weights[-1])  # one model, trained by all
    return rows


def main(store: str, out: str) -> None:
    folder = Path(out)
    for remainder in ("uneven", "drop", "pad"):
        for name, resume in (("whole", False), ("resumed", True)):
            rows = train(TokenStore(store), folder, remainder, resume)
            (folder / f"{remainder}-{name}-{torch.distributed.get_rank()}.json").write_text(json.dumps(rows))
    torch.distributed.destroy_process_group()
    end_process()


if __name__ == "__main__":
    main(*sys.argv[1:])
