"""The networks of VQ-GAN (Esser et al. 2021, https://arxiv.org/abs/2012.09841) and of those that took them over.

architecture   widths, depths and places of attention: what tensors of which shapes there are, and back
blocks         residual blocks, attention, down- and upsampling
coders         encoder and decoder
model          Vqgan: both of them around a quantizer
dialects       what published checkpoints call the same tensors
"""
