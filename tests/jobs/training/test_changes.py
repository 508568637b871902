"""Which keys of a configuration may change when a training goes on, and which are refused."""

import pytest
from fixtures_training import TrainingJob
from support import sampled

from pipeline.errors import TokenizerError
from pipeline.jobs.training.birth import find_result

pytest_plugins = ["fixtures_store", "fixtures_training"]

ALLOW = "--allow-change goes on from step 18 and writes the change into train.json"


@pytest.mark.parametrize(
    "override",
    sampled(
        *("train.workers=3", "train.steps=30", "train.steps=18", "train.learning_rate=0.5"),
        *("train.checkpoint_every=5", "train.log_every=1", "train.evaluate_every=1"),
        *("source.label=null", "source.classes=names.txt", "source.keep=txt", "source.allow_unterminated=true"),
    ),
)
def test_what_changes_nothing_about_the_past_may_change(override: str, halted: TrainingJob) -> None:
    assert find_result(halted.config(override)) is None


def test_views_are_nothing_to_training(halted: TrainingJob) -> None:
    """It takes the centre of each image, whatever is tokenized."""
    assert find_result(halted.config("image.views=flip")) is None
    assert find_result(halted.config("image.views={random: 3}")) is None


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("train.batch_size=8", "train.batch_size: 8 here, 4 there"),
        ("train.gradient_accumulation=2", "train.gradient_accumulation: 2 here, 1 there"),
        ("train.warmup_steps=3", "train.warmup_steps: 3 here, 2 there"),
        ("train.seed=1", "train.seed: 1 here, 0 there"),
        ("train.precision=bf16", "train.precision: bf16 here, fp32 there"),
        ("train.shuffle_buffer=7", "train.shuffle_buffer: 7 here, 6 there"),
        ("train.model.beta=1", "train.model.beta: 1.0 here, 0.25 there"),
        ("train.model.revive_after=null", "train.model.revive_after: null here, 1 there"),
        ("image.size=[16,32]", "image.size: [16, 32] here, [16, 16] there"),
        ("image.interpolation=bilinear", "image.interpolation: bilinear here, bicubic there"),
        ("image.resize_to=20", "image.resize_to: 20 here, null there"),
        ("source.image=jpg", "source.image: jpg here, null there"),
        ("source.exclude=train-1.tar", "source.shards[train-1.tar]: null here, "),
        ("train.holdout=[]", "train.holdout[heldout.tar]: null here, "),
    ],
)
def test_what_matters_is_refused_by_name_unless_it_is_allowed(override: str, line: str, halted: TrainingJob) -> None:
    with pytest.raises(TokenizerError) as caught:
        find_result(halted.config(override))
    message = str(caught.value)
    assert f"\n  {line}" in message
    assert message.count("\n") == 2
    assert "set another tokenizer.path, or delete the folder" in message
    assert ALLOW in message
    assert find_result(halted.config(override), allow_change=True) is None


def test_all_that_differs_is_named_at_once(halted: TrainingJob) -> None:
    with pytest.raises(TokenizerError) as caught:
        find_result(halted.config("train.seed=1", "train.batch_size=8", "train.steps=99"))
    assert "train.seed" in str(caught.value)
    assert "train.batch_size" in str(caught.value)
    assert "train.steps" not in str(caught.value)
