"""The photographs of the sample set."""

from pathlib import Path

import pytest

from pipeline.errors import VqtokError
from pipeline.jobs.sampling import job as sample
from pipeline.jobs.sampling import photographs
from pipeline.jobs.sampling.photographs import PHOTOGRAPHS


def test_the_views_of_one_scene_stay_on_one_side_of_the_split() -> None:
    assert len({p.held_out for p in PHOTOGRAPHS if p.name.startswith("motorcycle")}) == 1
    assert 0 < sum(p.crops for p in PHOTOGRAPHS if p.held_out) < sum(p.crops for p in PHOTOGRAPHS) / 5


def test_missing_photographs_name_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chelsea = PHOTOGRAPHS[1]
    for gone, message in (
        ({"package": "skimage_that_is_not_installed"}, "is not installed"),
        ({"path": "data/gone.png"}, "the photograph is missing"),
        ({"path": "data/README.txt"}, "cannot be read as a photograph"),
    ):
        monkeypatch.setattr(sample, "PHOTOGRAPHS", (chelsea.model_copy(update=gone),))
        with pytest.raises(VqtokError, match=message) as caught:
            sample.run(tmp_path)
        assert photographs.REMEDY in str(caught.value)
    assert list(tmp_path.iterdir()) == []
