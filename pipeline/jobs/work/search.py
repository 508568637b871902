"""The search of the nearest codes that a job uses."""

from pipeline.errors import TokenizerError
from pipeline.jobs.work.batch_fit import too_large
from pipeline.models.tokenizers.protocol import FastSearch, Tokenizer
from pipeline.printing import say
from pipeline.process.shortage import is_memory_shortage, memory_errors


def use_fast_search(tokenizer: Tokenizer, images: int, image_size: tuple[int, int], device: str) -> str | None:
    """Have a tokenizer search faster than torch does, if it can on its device; the name of that search.

    Where it should and does not, a line says why.

    Args:
        images: of a batch.
        device: what messages call it.

    Raises ConfigError where that is for want of memory: with more of it the store would be made in another way.
    """
    if not isinstance(tokenizer, FastSearch):
        return None
    try:
        with memory_errors():
            return tokenizer.use_fast_search(images, image_size)
    except (MemoryError, TokenizerError) as error:
        if is_memory_shortage(error):
            raise too_large(images, images // 2, device, str(error)) from error
        say(f"vqtok: codes are searched by torch, the kernel for this GPU is not used: {error}", error=True)
        return None
