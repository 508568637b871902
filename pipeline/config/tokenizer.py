"""Which tokenizer."""

from pipeline.config.section import PathText, Reached, Section
from pipeline.storage import Storage


class TokenizerConfig(Section):
    """The tokenizer folder: written by `vqtok train`, read by `vqtok tokenize`."""

    path: PathText
    """Folder with config.json and model.safetensors, or its URL, of which `~/.cache/vqtok` keeps a copy; by
    default `runs/<name of the configuration file>/tokenizer`."""
    storage: Reached = Storage()
    """How such a URL is reached: endpoint, profile, region, anonymous, patience_s."""
