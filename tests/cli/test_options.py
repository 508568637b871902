"""Options that several commands have."""

import pytest
from click.testing import CliRunner

from pipeline.cli import main


@pytest.mark.parametrize(
    "words",
    [
        ["ray", "--gpus", "nan"],
        ["ray", "--cpus", "inf"],
        ["ray", "--wait-for-nodes", "nan"],
        ["estimate", "--price", "nan"],
        ["inspect", "x", "--seconds", "inf"],
        ["status", "--watch", "nan"],
    ],
)
def test_what_is_no_number_is_refused(words: list[str]) -> None:
    done = CliRunner().invoke(main, [*words, "--config", "none.yaml"] if words[0] != "inspect" else words)
    assert done.exit_code == 2
    assert f"'{words[-1]}' is no number" in done.output
