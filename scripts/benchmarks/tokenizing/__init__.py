"""What `bench_tokenize.py` and `bench_gpu.py` measure.

    photos.py: the same JPEG files in the same tars for all
        │
        ├──▶ job.py: vqtok's own jobs              peers.py: loops as people write them, with plain.py
        ├──▶ parts.py: decoding and encoding alone, and the limit of decoding
        ├──▶ processes.py: jobs in processes of one core each
        └──▶ roofline.py: the limit of encoding    agreement.py: are the tokens the same?
                        │
    turns.py: all take turns ──▶ sides.py: all of it for one size ──▶ report.py: tables

growth.py: cost as vocabulary, image and collection grow.
Of real size: vqgan.py, a published tokenizer with random weights.
On a GPU: accelerators.py, what a GPU could do; stages.py, where its time goes.
"""
