"""What `make gpu-check` looks at on a real GPU.

check        a line of the result, and what a check is given
collection   images and tokenizers of random weights to work on
processes    `vqtok` in processes of its own, and which GPUs they are on
tokens       the same tokens twice, in every precision, in short batches, on two streams
search       the nearest codes of large codebooks
decoding     nvJPEG beside a busy encoder
failures     too large a batch, an assertion on the device, SIGKILL
sharing      several processes on a GPU, launchers, contexts on other GPUs
training     the same weights twice, killed and resumed, and over NCCL
"""
