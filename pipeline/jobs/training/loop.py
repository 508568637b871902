"""The training loop, on any number of processes."""

from collections.abc import Generator
from contextlib import closing
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, gather_object, set_seed
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR

from pipeline.config import Config, TrainConfig
from pipeline.errors import ConfigError
from pipeline.jobs.training.birth import TrainResult, begin, record_result
from pipeline.jobs.training.checkpoints import Checkpoints
from pipeline.jobs.training.collection import Ranks, count_samples
from pipeline.jobs.training.evaluation import evaluate, load_held_out
from pipeline.jobs.training.index_cache import IndexCache
from pipeline.jobs.training.lock import only_training
from pipeline.jobs.training.position import Position
from pipeline.jobs.training.reporter import Reporter
from pipeline.jobs.training.schedule import WarmupThenCosine
from pipeline.jobs.training.shards import require_usable_image, training_shards
from pipeline.jobs.training.stepper import Stepper, Window
from pipeline.jobs.training.stream import Place, TrainBatch, training_batches
from pipeline.models import SimpleVQVAE
from pipeline.models.pretrained import save_tokenizer
from pipeline.records import Normalization


class Training:
    """One process of a training run.

    The steps come in intervals of `train.checkpoint_every`. From one interval to the next nothing lives on but what a
    checkpoint holds, and the stream of batches, which the position in a checkpoint makes again. So resuming and going
    on are the same thing.

    Raises ConfigError and SourceError for a configuration or images that cannot be trained on.
    """

    def __init__(self, config: Config) -> None:
        self._config = config
        self._folder = Path(config.tokenizer.path)
        self._shards = training_shards(config)
        self._accelerator = _accelerator(config.train, self._folder)
        self._held_out = load_held_out(config, self._accelerator.process_index, self._accelerator.num_processes)
        require_usable_image(config, self._shards)
        self._normalization = Normalization()
        set_seed(config.train.seed)
        self._model = SimpleVQVAE(**config.train.model.model_dump())
        self._stepper = self._prepare()
        self._checkpoints = Checkpoints(self._folder / "checkpoints", self._accelerator)
        batches = config.train.gradient_accumulation * self._accelerator.num_processes
        self._position = Position(self._accelerator, config.train.batch_size * batches)

    def run(self) -> TrainResult:
        """Train from the newest checkpoint, or from the start, to the end, and save the tokenizer.

        Raises TokenizerError while another process trains in the folder.
        """
        if not self._accelerator.is_main_process:
            return self._run()
        with only_training(self._folder):
            begin(self._config)
            result = self._run()
            record_result(self._config, result)
            return result

    def _run(self) -> TrainResult:
        train = self._config.train
        done = self._checkpoints.resume()
        self._position.begin(done)
        with (
            closing(Reporter(self._accelerator, self._folder, train, resumed_from=done)) as reporter,
            closing(self._batches(train.steps - done)) as batches,
        ):
            while done < train.steps:
                end = min(done - done % train.checkpoint_every + train.checkpoint_every, train.steps)
                self._run_interval(done, end, batches, reporter)
                self._checkpoints.save(end)
                done = end
        return self._finish(reporter)

    def _prepare(self) -> Stepper:
        train = self._config.train
        optimizer = AdamW(self._model.parameters(), lr=train.learning_rate, weight_decay=train.weight_decay)
        schedule = LambdaLR(optimizer, WarmupThenCosine(train.warmup_steps, train.steps))
        model, prepared_optimizer, scheduler = self._accelerator.prepare(self._model, optimizer, schedule)
        return Stepper(self._accelerator, model, prepared_optimizer, scheduler, self._normalization, train)

    def _batches(self, steps: int) -> Generator[TrainBatch, None, None]:
        """The batches of the next `steps` steps."""
        accelerator = self._accelerator
        rank, size = accelerator.process_index, accelerator.num_processes
        needed = self._position.samples + steps * self._position.per_step
        ranks, cache = Ranks(rank, size, gather_object), IndexCache(self._folder, self._config.source)
        collection = count_samples(self._config, self._shards, needed, ranks, cache)
        place = Place(self._position.samples, rank, size)
        yield from training_batches(self._config, collection, place, pin_memory=accelerator.device.type == "cuda")

    def _run_interval(
        self, done: int, end: int, batches: Generator[TrainBatch, None, None], reporter: Reporter
    ) -> None:
        """Steps done + 1 to end."""
        train = self._config.train
        window = Window()
        for step in range(done + 1, end + 1):
            self._stepper.step(batches, window)
            self._position.advance()
            reporter.advance()
            if step % train.log_every == 0 or step == end:
                reporter.train(step, self._stepper.summarize(window, train.model.vocab_size))
                window = Window()
            if step % train.evaluate_every == 0 or step == train.steps:
                self._evaluate(step, reporter)

    def _evaluate(self, step: int, reporter: Reporter) -> None:
        if self._held_out is None:
            return
        batch_size = self._config.train.batch_size
        evaluation = evaluate(self._accelerator, self._model, self._held_out, self._normalization, batch_size)
        reporter.held_out(step, evaluation)

    def _finish(self, reporter: Reporter) -> TrainResult:
        """Save the tokenizer; the same result on every process."""
        held_out = reporter.latest_held_out()
        result = TrainResult(
            steps=self._config.train.steps,
            vocab_size=self._config.train.model.vocab_size,
            **{name: held_out.get(name) for name in ("psnr", "perplexity", "codes_used")},
        )
        if self._accelerator.is_main_process:
            summary = {**self._config.train.model_dump(mode="json"), "result": result.model_dump()}
            size = self._config.image.size
            save_tokenizer(self._folder, self._model, self._normalization, summary, image_size=size)
        results = [result]
        broadcast_object_list(results)
        self._accelerator.end_training()
        return results[0]


def _accelerator(train: TrainConfig, folder: Path) -> Accelerator:
    try:
        return Accelerator(
            # Said outright, for several processes without it would not find each other on CPUs.
            cpu=not torch.accelerator.is_available(),
            mixed_precision="no" if train.precision == "fp32" else train.precision,
            gradient_accumulation_steps=train.gradient_accumulation,
            # The schedule counts optimizer steps, whatever the number of processes.
            step_scheduler_with_optimizer=False,
            log_with="tensorboard",
            project_dir=folder,
        )
    except ValueError as error:
        raise ConfigError(f"train.precision: {train.precision} cannot be used here: {error}") from error
