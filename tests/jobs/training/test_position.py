"""The position in the order goes into checkpoints and comes back, whatever the number of processes now."""

from pathlib import Path

from accelerate import Accelerator

from pipeline.jobs.training.position import Position


def test_a_checkpoint_brings_its_position_back(tmp_path: Path) -> None:
    accelerator = Accelerator()
    position = Position(accelerator, per_step=12)
    position.begin(done=0)
    for _ in range(5):
        position.advance()
    accelerator.save_state(str(tmp_path))
    fewer = Accelerator()
    resumed = Position(fewer, per_step=4)
    fewer.load_state(str(tmp_path))
    resumed.begin(done=5)
    assert resumed.samples == 60
    resumed.advance()
    assert resumed.samples == 64


def test_a_checkpoint_that_does_not_say_goes_on_from_its_step(tmp_path: Path) -> None:
    accelerator = Accelerator()
    position = Position(accelerator, per_step=12)
    accelerator.save_state(str(tmp_path))
    (tmp_path / "position.json").unlink()
    accelerator.load_state(str(tmp_path))
    position.begin(done=7)
    assert position.samples == 84
