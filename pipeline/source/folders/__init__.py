"""Folders as collections: which of their files make a source shard, and that this never changes.

scan ─▶ planning ─▶ listings          what is there; what is new, cut into source shards; what was decided, for good
        names                         files into samples: keys and extensions
"""
