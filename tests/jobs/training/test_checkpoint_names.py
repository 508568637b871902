"""Which folders are checkpoints."""

from pathlib import Path

from pipeline.jobs.training.checkpoint_names import checkpointed_steps


def test_only_a_folder_with_the_name_of_a_step_is_a_checkpoint(tmp_path: Path) -> None:
    for name in ("step-000012", "step-000400.bak", "step-", "step-12x", "step-13", "step-0000014", "step-1000000"):
        (tmp_path / "checkpoints" / name).mkdir(parents=True)
    (tmp_path / "checkpoints/step-000500").touch()
    assert checkpointed_steps(tmp_path) == [12, 1_000_000]
