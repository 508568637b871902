"""The training loop, on any number of processes."""

import itertools
import signal
from collections.abc import Generator, Iterator
from contextlib import closing
from pathlib import Path
from typing import NoReturn

import torch
from accelerate import Accelerator
from accelerate.utils import GradientAccumulationPlugin, broadcast_object_list, gather_object, set_seed
from torch import Tensor
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR

from pipeline.config import Config, TrainConfig
from pipeline.errors import ConfigError
from pipeline.jobs.training.agreement import StopAgreement
from pipeline.jobs.training.birth import TrainResult, begin, find_result, record_result
from pipeline.jobs.training.changes import configuration_of
from pipeline.jobs.training.checkpoints import Checkpoints
from pipeline.jobs.training.collection import Ranks, count_samples
from pipeline.jobs.training.disk import explaining_a_full_disk
from pipeline.jobs.training.display import Display
from pipeline.jobs.training.divergence import Verdict
from pipeline.jobs.training.evaluation import evaluate, load_held_out, mean_image_psnr
from pipeline.jobs.training.gpu_memory import explaining_little_memory
from pipeline.jobs.training.index_cache import IndexCache
from pipeline.jobs.training.lock import only_training
from pipeline.jobs.training.network import network_to_train
from pipeline.jobs.training.position import Position
from pipeline.jobs.training.schedule import WarmupThenCosine
from pipeline.jobs.training.shards import require_usable_image, training_shards
from pipeline.jobs.training.stepper import Interval, Stepper
from pipeline.jobs.training.stream import Place, TrainBatch, training_batches
from pipeline.jobs.work.precision import refuse_slow_training
from pipeline.models.determinism import same_each_time
from pipeline.models.tokenizers.vqtok import save_tokenizer
from pipeline.printing import say
from pipeline.process.cublas import set_repeatable_workspaces
from pipeline.process.signals import StopRequest, exit_status
from pipeline.records import Normalization
from pipeline.source.folders.listings import Mode
from pipeline.world import describe_unusable_gpu


class Training:
    """One process of a training run.

    From one step to the next nothing lives on but what a checkpoint holds, and the stream of batches, which the
    position in a checkpoint makes again. So resuming and going on are the same thing.

    Raises ConfigError and SourceError for a configuration or images that cannot be trained on.
    """

    def __init__(self, config: Config, *, allow_slow: bool = False) -> None:
        self._config = config
        self._folder = Path(config.tokenizer.path)
        self._shards = training_shards(config)
        self._accelerator = _accelerator(config.train, self._folder)
        self._held_out = load_held_out(config, self._accelerator.process_index, self._accelerator.num_processes)
        require_usable_image(config, self._shards)
        self._normalization = Normalization()
        set_seed(config.train.seed)
        self._model = model = network_to_train(config.train.model, config.image)
        if self._accelerator.is_main_process and (unusable := describe_unusable_gpu()):
            say(f"vqtok: {unusable}", error=True)
        if not allow_slow:
            refuse_slow_training(config, model, self._accelerator)
        self._optimizer = AdamW(
            self._model.parameters(), lr=config.train.learning_rate, weight_decay=config.train.weight_decay
        )
        self._schedule = LambdaLR(self._optimizer, _factor(config.train))
        self._stepper = self._prepare()
        self._checkpoints = Checkpoints(self._folder, self._accelerator, self._state_bytes)
        batches = config.train.gradient_accumulation * self._accelerator.num_processes
        self._position = Position(self._accelerator, config.train.batch_size * batches)

    def run(self, request: StopRequest, *, allow_change: bool = False) -> TrainResult:
        """Train from the newest checkpoint, or from the start, to the end, and save the tokenizer.

        When `request` comes to any of the processes, all save a checkpoint after the same step and raise SystemExit.
        Raises TokenizerError while another process trains in the folder, when it holds the work of another
        configuration, and when the disk is full; TrainingDiverged when the training goes wrong: then no tokenizer is
        there, and no checkpoint of what went wrong.
        """
        with (
            same_each_time(self._accelerator.device),
            explaining_a_full_disk(self._folder, self._state_bytes),
            explaining_little_memory(self._config.train, self._accelerator.device),
        ):
            if not self._accelerator.is_main_process:
                return self._run(request)
            with only_training(self._folder):
                find_result(self._config, allow_change=allow_change)  # as it is now that nobody else trains
                return self._run(request)

    def _run(self, request: StopRequest) -> TrainResult:
        train = self._config.train
        done = self._checkpoints.resume()
        self._position.begin(done)
        _set_rates(self._optimizer, self._schedule, train)
        self._stepper.settle(self._config.image.size)
        if self._accelerator.is_main_process:
            begin(self._config, done)
        if any(shard.listing is not None for shard in self._shards):
            # All processes take the files that the main one has listed, whatever has come since they looked. They meet
            # by a message: Accelerate's barrier names the GPU by local rank, and a process may see its own alone.
            gather_object([None])
            self._shards = training_shards(self._config, Mode.LISTED)
        with (
            closing(Display(self._accelerator, self._folder, train, resumed_from=done)) as reporter,
            closing(self._batches(train.steps - done)) as batches,
        ):
            verdict = Verdict(self._accelerator, self._folder, self._model, train, reporter.earlier_figures(), done)
            if done:
                self._evaluate(done, reporter)  # when the run before was stopped or killed at this step
            # Samples are counted first, which takes its time in a large collection. What was counted is kept; until
            # the first step there is nothing else to save.
            first = list(itertools.islice(batches, int(done < train.steps)))
            with request.postponed():
                self._train(done, itertools.chain(first, batches), reporter, verdict, StopAgreement(request))
                return self._finish(reporter)

    def _prepare(self) -> Stepper:
        model, optimizer, scheduler = self._accelerator.prepare(self._model, self._optimizer, self._schedule)
        return Stepper(self._accelerator, model, optimizer, scheduler, self._normalization, self._config.train)

    def _batches(self, steps: int) -> Generator[TrainBatch, None, None]:
        """The batches of the next `steps` steps."""
        accelerator = self._accelerator
        rank, size = accelerator.process_index, accelerator.num_processes
        needed = self._position.samples + steps * self._position.per_step
        ranks, cache = Ranks(rank, size, gather_object), IndexCache(self._folder, self._config.source)
        collection = count_samples(self._config, self._shards, needed, ranks, cache)
        place = Place(self._position.samples, rank, size)
        yield from training_batches(self._config, collection, place, accelerator.device)

    def _train(
        self,
        done: int,
        batches: Iterator[TrainBatch],
        reporter: Display,
        verdict: Verdict,
        agreement: StopAgreement,
    ) -> None:
        """Steps done + 1 to the last.

        Raises SystemExit when a process was asked to stop, and TrainingDiverged when the training goes wrong.
        """
        train = self._config.train
        window = Interval()
        for step in range(done + 1, train.steps + 1):
            self._stepper.step(batches, window)
            self._position.advance()
            reporter.advance()
            signum = agreement.signum()
            saves = signum is not None or step % train.checkpoint_every == 0 or step == train.steps
            if saves or step % train.log_every == 0:
                figures, newest = self._stepper.summarize(window, train.model.vocab_size), window.last
                reporter.train(step, figures)
                verdict.on_figures(step, figures)
                window = Interval()
            if step == train.steps:  # before the last checkpoint: one of a bad outcome is not kept
                self._judge_outcome(verdict, self._evaluate(step, reporter), figures["psnr"], newest)
            saved = saves and self._save(step, reporter, verdict)
            if signum is not None:
                agreement.settle()
                self._stop(signum, step, saved, reporter)
            if step < train.steps:
                self._evaluate(step, reporter)
        agreement.settle()

    def _save(self, step: int, reporter: Display, verdict: Verdict) -> bool:
        """Save a checkpoint, unless the state is not worth going on from; whether it was saved."""
        reporter.sync()  # in either case: at the last step the tokenizer is saved whatever the last line says
        if not verdict.may_save(step):
            return False
        self._checkpoints.save(step)
        return True

    def _judge_outcome(
        self, verdict: Verdict, held_out_psnr: float | None, psnr: float, newest: tuple[Tensor, Tensor, Tensor] | None
    ) -> None:
        """By the held-out images, or by the newest batch of training images where those have no mean image to compare.

        Raises TrainingDiverged.
        """
        mean = None
        if self._held_out is not None and held_out_psnr is not None:
            mean = mean_image_psnr(self._accelerator, self._held_out.img_B3HW)
        if mean is not None and held_out_psnr is not None:
            verdict.on_end("held-out", held_out_psnr, mean)
        elif newest is not None:
            verdict.on_end("training", psnr, mean_image_psnr(self._accelerator, newest[0]))

    def _stop(self, signum: int, step: int, saved: bool, reporter: Display) -> NoReturn:
        name = signal.Signals(signum).name
        goes_on = (
            "which is saved; the same command goes on from there"
            if saved
            else "which is not saved; the same command goes on from the newest checkpoint, if there is one"
        )
        reporter.say(f"vqtok: {name}: stopped after step {step}, {goes_on}")
        self._accelerator.end_training()
        raise SystemExit(exit_status(signum))

    def _evaluate(self, step: int, reporter: Display) -> float | None:
        """Take the figures of the held-out images when it is time for them and they are not there.

        Returns their PSNR in dB when it was taken.
        """
        train = self._config.train
        if self._held_out is None or (step % train.evaluate_every and step != train.steps):
            return None
        missing = [reporter.latest_held_out().get("step") != step]
        broadcast_object_list(missing)
        if not missing[0]:
            return None
        evaluation = evaluate(self._accelerator, self._model, self._held_out, self._normalization, train.batch_size)
        reporter.held_out(step, evaluation)
        return evaluation.tally.psnr

    def _finish(self, reporter: Display) -> TrainResult:
        """Save the tokenizer; the same result on every process."""
        held_out = reporter.latest_held_out()
        result = TrainResult(
            steps=self._config.train.steps,
            vocab_size=self._config.train.model.vocab_size,
            **{name: held_out.get(name) for name in ("psnr", "perplexity", "codes_used")},
        )
        if self._accelerator.is_main_process:
            summary = {**configuration_of(self._config)["train"], "result": result.model_dump()}
            size = self._config.image.size
            save_tokenizer(self._folder, self._model, self._normalization, summary, image_size=size)
            record_result(self._config, result)
        results = [result]
        broadcast_object_list(results)
        self._accelerator.end_training()
        return results[0]

    def _state_bytes(self) -> int:
        """Bytes of a checkpoint, about: the weights, and the two moments that AdamW keeps of each."""
        state = [*self._model.state_dict().values(), *self._model.parameters(), *self._model.parameters()]
        return sum(int(value.nbytes) for value in state)


def _factor(train: TrainConfig) -> WarmupThenCosine:
    return WarmupThenCosine(train.warmup_steps, train.steps)


def _set_rates(optimizer: AdamW, schedule: LambdaLR, train: TrainConfig) -> None:
    """Have a resumed training follow the configuration, where the checkpoint holds the rates that it was saved with."""
    factor = _factor(train)
    schedule.lr_lambdas = [factor]
    schedule.base_lrs = [train.learning_rate]
    rate = train.learning_rate * factor(schedule.last_epoch)
    schedule._last_lr = [rate]
    for group in optimizer.param_groups:
        group.update(initial_lr=train.learning_rate, lr=rate, weight_decay=train.weight_decay)


def _accelerator(train: TrainConfig, folder: Path) -> Accelerator:
    set_repeatable_workspaces()  # before it takes hold of a device
    if not torch.accelerator.is_available():
        _require_precision(train, "cpu", has_fp16=False)
    try:
        accelerator = Accelerator(
            # Without it several processes on CPUs would not form one group.
            cpu=not torch.accelerator.is_available(),
            mixed_precision="no" if train.precision == "fp32" else train.precision,
            # As a plugin: the environment variable ACCELERATE_GRADIENT_ACCUMULATION_STEPS would override a number.
            gradient_accumulation_plugin=GradientAccumulationPlugin(num_steps=train.gradient_accumulation),
            # The schedule counts optimizer steps, whatever the number of processes.
            step_scheduler_with_optimizer=False,
            log_with="tensorboard",
            project_dir=folder,
        )
    except ValueError as error:
        raise ConfigError(f"train.precision: {train.precision} cannot be used here: {error}") from error
    _require_precision(train, accelerator.device.type, has_fp16=accelerator.scaler is not None)
    return accelerator


def _require_precision(train: TrainConfig, device: str, has_fp16: bool) -> None:
    """Refuse what Accelerate would do in float32 without a word."""
    if train.precision == "fp16" and not has_fp16:
        raise ConfigError(f"train.precision: fp16 is for GPUs, and this device is {device}; set fp32")
