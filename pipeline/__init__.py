"""vqtok: turn image collections into VQ token stores.

    tar shards ──▶ decode ──▶ encode ──▶ blocks ──▶ store (Zarr) ──▶ loader ──▶ embeddings
    source          uint8      indices    idx_Bl      parts+commits     batches    x_BLC

The floors, top to bottom; imports point down only:

    cli        click: parse, call, translate errors
    jobs       sample, train, tokenize, status, verify, report: configuration in, result out
    loader     TokenLoader: batches for autoregressive training
    store      birth, commits, manifest, writer, reader
    source │ models │ claims │ world
    config, files, records, errors
"""

__version__ = "0.1.0"
