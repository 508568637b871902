"""Rules by which a block index list becomes the embedding sequence that a model is trained on.

rule        what every rule is: name, arrays, sequence length, apply
lookup      the rule of most tokenizers: a row of the codebook for each token
multiscale  the rule of tokenizers whose scales add up; resizing takes them from grid to grid
known       all rules that this version can apply, by the name that stores have
embedder    a rule with its codebook and arrays, on every device that asks
"""
