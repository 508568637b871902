"""Training of the tokenizer.

    source shards ─▶ collection ─▶ order ─▶ stream ─▶ loop ─▶ tokenizer folder
    which: shards    counted       windows  batches    │ evaluation: PSNR and code use of held-out images, pictures
                                                       │ checkpoints: the whole state, to resume from exactly
                                                       │ divergence: ends a training that has gone wrong
                                                       └ metrics: metrics.jsonl, TensorBoard

`birth` and `schedule` are read before torch is imported; everything else needs torch.
"""
