"""Training of the tokenizer.

    source shards ─▶ collection ─▶ order ─▶ stream ─▶ loop ─▶ tokenizer folder
    which: shards    counted       windows  batches    │ evaluation: PSNR and code use of held-out images, pictures
                                                       │ checkpoints: the whole state, to resume from exactly
                                                       └ metrics: metrics.jsonl, TensorBoard

`birth` is read before torch is imported; everything else needs torch.
"""
