"""Tokenizers of every kind, and the one door through which they come.

    registry    which module reads a folder; `load_tokenizer`, `tokenizer_identity`
    vqtok       our own kind, which `vqtok train` makes; every other kind is a module like it
    vqgan       published kinds that run on a network of ours
    guests      kinds that are run by diffusers and transformers
    kind        what such a module says: how to check an identity, which layouts there are, how to load
    protocol    what is known of a tokenizer above: encode, decode, codebook, layout and rule, never its kind
    network     a torch network as a tokenizer: devices, precisions, geometry; most kinds need no class of their own
    importer    what a kind says of how it is imported
    trust       a trial at loading
    pixels      between uint8 pixels and what a tokenizer takes

Another kind is one more module with a `KIND`, and its line in `registry.KINDS`.
"""
