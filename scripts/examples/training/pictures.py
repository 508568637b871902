"""New tokens as a picture."""

import io

import click
import numpy as np
from PIL import Image
from torch import Tensor
from torchvision.utils import make_grid

from pipeline.errors import ConfigError, TokenizerError
from pipeline.models.tokenizers.pixels import to_pixels
from pipeline.models.tokenizers.protocol import Tokenizer
from pipeline.models.tokenizers.registry import load_tokenizer
from pipeline.storage import Storage
from pipeline.store import TokenStore

COLUMNS = 8


def open_tokenizer(store: TokenStore, folder: str | None, storage: Storage | None = None) -> Tokenizer | None:
    """What decodes the store, or None after a line that says why nothing does. Raises ConfigError, TokenizerError."""
    if folder is None or not store.geometry.decodable:
        layout = f"layout {store.geometry.layout!r} leaves cells of the image out, tokenize with quadrants or raster"
        click.echo(f"no picture of new images: {'name a --tokenizer' if store.geometry.decodable else layout}")
        return None
    try:
        tokenizer = load_tokenizer(folder, store.geometry.layout, storage=storage)
    except TokenizerError as error:
        raise TokenizerError(f"{error}; only pictures need it: name it with --tokenizer, or say --no-sample") from error
    table = tokenizer.codebook.table
    if table is None or not np.array_equal(table, store.codebook):
        raise ConfigError(f"--tokenizer {folder}: its codebook is not that of the store; name the one that made it")
    return tokenizer


def png_of(img_B3HW: Tensor, tokenizer: Tokenizer) -> bytes:
    """Normalised images as one PNG, COLUMNS in a row."""
    pixels_B3HW = to_pixels(img_B3HW, tokenizer.normalization).cpu()
    file = io.BytesIO()
    Image.fromarray(make_grid(pixels_B3HW, COLUMNS).permute(1, 2, 0).numpy()).save(file, "PNG")
    return file.getvalue()
