"""The torch modules that tokenizers are made of, and how their codes are searched and learned.

vqvae         SimpleVQVAE: convolutions around a quantizer
quantizer     VectorQuantizer, with its codebook kept up by kmeans (k-means) and ranks (several processes)
search        the nearest code of each vector, in float32; search_fused finds it faster on a GPU (search_kernels is what
              runs there), and search_trial sees whether it does
vqgan         networks of the VQ-GAN family, and the names they are published under
multiscale    MultiscaleQuantizer: scales that add up
checkpoint    published files, opened without running what is in them; accounting: every tensor has its place
images        which images a network takes
state         what a network holds, as the bytes of a file
"""
