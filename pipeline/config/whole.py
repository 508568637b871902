"""All sections of a file, and those that a reader of a store needs."""

from pipeline.config.image import ImageConfig
from pipeline.config.loader import LoaderConfig
from pipeline.config.section import Section
from pipeline.config.source import SourceConfig
from pipeline.config.tokenize import TokenizeConfig
from pipeline.config.tokenizer import TokenizerConfig
from pipeline.config.train import TrainConfig


class Config(Section):
    """The whole file."""

    source: SourceConfig
    image: ImageConfig
    tokenizer: TokenizerConfig
    tokenize: TokenizeConfig
    train: TrainConfig = TrainConfig()
    loader: LoaderConfig = LoaderConfig()


class ReaderConfig(Section):
    """The sections that a reader of the store needs. It may run where neither the images nor the environment
    variables that name them are."""

    tokenize: TokenizeConfig
    loader: LoaderConfig = LoaderConfig()
