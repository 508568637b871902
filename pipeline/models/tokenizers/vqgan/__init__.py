"""Published tokenizers of the VQ-GAN family, which run on one network of ours.

grids       tokenizers of one grid: their identity, their folders
llamagen    LlamaGen's VQ-16 and VQ-8
taming      those of taming-transformers and latent-diffusion
var         VAR's, of several scales
trial       at loading: what the quantizer uses is what its indices stand for
"""
