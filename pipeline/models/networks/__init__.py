"""The torch modules that tokenizers are made of, and how their codes are searched and learned.

vqvae         SimpleVQVAE: convolutions around a quantizer
quantizer     VectorQuantizer, with its codebook kept up by kmeans (k-means) and ranks (several processes)
search        the nearest code of each vector, in float32
state         what a network holds, as the bytes of a file
"""
