"""vqtok: turn image collections into VQ token stores.

    collections ──▶ decode ──▶ encode ──▶ blocks ──▶ store (Zarr) ──▶ loader ──▶ embeddings
    source          uint8      indices    idx_Bl     parts+commits    batches    x_BLC

The floors, top to bottom; imports point down only:

    cli        click: parse, call, translate errors
    jobs       a room for each command: configuration in, result out
    loader     TokenLoader: batches for autoregressive training
    store      TokenStore: birth, commits, manifest, writer, reader
    source │ models │ claims │ world
    config, files, records, errors, process
"""

__version__ = "0.1.0"
