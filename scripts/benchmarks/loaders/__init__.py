"""The loaders that `bench_loader.py` compares, and the comparison itself.

rows.py: the same rows for all ──▶ peer.py: what a loader must be able to do ──▶ cell.py: one loader, one condition
                                        vqtok, memmap, blocks (Zarr),                 counted once, then timed
                                        litdata, mosaic, webdataset                        │
          report.py: tables ◀── rounds.py: loaders take turns ◀── child.py: each loader in a process of its own
"""
