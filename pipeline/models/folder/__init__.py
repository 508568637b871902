"""The tokenizer folder, whatever kind of tokenizer it holds and as far as it can be read without torch.

contents    config.json and the files that it names: read, compared with their digest, written
weights     what a safetensors file holds, and digests of it and of other files
copies      those of folders at URLs, on this machine
versions    whether files are as they were when they were last read
"""
