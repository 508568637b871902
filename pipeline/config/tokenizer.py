"""Which tokenizer."""

from pipeline.config.section import PathText, Section


class TokenizerConfig(Section):
    """The tokenizer folder: written by `vqtok train`, read by `vqtok tokenize`."""

    path: PathText
    """Folder with config.json and model.safetensors; by default `runs/<name of the configuration file>/tokenizer`."""
