"""The YAML configuration: one frozen model per section, a sentence under each field.

source, image, tokenizer, train, tokenize, loader     a section each; whole: all of them
reading ─▶ parsing, values, places, explaining        from a file and overrides to a Config, or to what is wrong
"""

from pipeline.config.image import PIXEL_RULES, ImageConfig, RandomViews
from pipeline.config.loader import LoaderConfig
from pipeline.config.places import examples
from pipeline.config.reading import load_config, load_reader_config
from pipeline.config.section import Section
from pipeline.config.source import SourceConfig
from pipeline.config.tokenize import TokenizeConfig
from pipeline.config.tokenizer import TokenizerConfig
from pipeline.config.train import ModelConfig, TrainConfig
from pipeline.config.whole import Config, ReaderConfig

__all__ = [
    "PIXEL_RULES",
    "Config",
    "ImageConfig",
    "LoaderConfig",
    "ModelConfig",
    "RandomViews",
    "ReaderConfig",
    "Section",
    "SourceConfig",
    "TokenizeConfig",
    "TokenizerConfig",
    "TrainConfig",
    "examples",
    "load_config",
    "load_reader_config",
]
