"""`vqtok check`: whether all that a job needs is there, before the hours are spent.

job ─▶ places ─▶ lines        store and source, each by the requests that the job will make of it
    ├▶ model                  the tokenizer, or the one that is yet to be trained
    ├▶ way                    one image, all the way into a store of its own, which is removed
    └▶ space                  whether the disk has room for the rest

Whether the job may go on in its store is asked of the code that `vqtok tokenize` asks.
"""
