"""What a processor has instructions for."""

from pathlib import Path

import pytest

from pipeline.jobs.work.instructions import cpu_has_bf16


@pytest.mark.parametrize(
    ("cpuinfo", "has"),
    [
        ("flags\t\t: fpu avx2 avx512f avx512_bf16\n", True),
        ("flags\t\t: fpu avx2 avx512f\n", False),
        ("Features\t: fp asimd bf16\n", True),
        ("model name\t: bf16\n", False),
    ],
)
def test_bfloat16_is_found_among_the_flags_of_the_processor(tmp_path: Path, cpuinfo: str, has: bool) -> None:
    assert not cpu_has_bf16(tmp_path / "cpuinfo")  # not told, as on other systems
    (tmp_path / "cpuinfo").write_text(cpuinfo)
    assert cpu_has_bf16(tmp_path / "cpuinfo") is has
