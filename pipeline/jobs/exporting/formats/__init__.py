"""The formats: what each has a place for, and its files.

format      what every format is
arrays      npy: large numpy arrays
megatron    megatron: `.bin` and `.idx`
llm_c       bin: files of llm.c
llamagen    llamagen: a `.npy` for each image
lines       jsonl: a JSON object on each line
parquet     parquet: files that Hugging Face `datasets` opens
tars        webdataset: tars
mds         mds: shards of Mosaic streaming
fields      kept members, as formats write them
known       all of them, by name
"""
