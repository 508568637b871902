"""Blocks run in order, and one that fails is named."""

import os
from pathlib import Path

import pytest
from fixtures_store import Child, Done

from docs.blocks import blocks_of
from docs.running import run_blocks

GOOD = """\
```python
number = 6
```

<!-- not run: ends the process -->
```sh
exit 3
```

<!-- slow: takes long -->
```sh
touch slow
```

```sh
export WORD="two words"
vqtok --version      # here
echo "$WORD" > word
```

```text
no code
```

```python
import os
from pathlib import Path
Path("product").write_text(f"{number * 7} {os.environ.get('WORD')}")
```
"""


def run(text: str, folder: Path, small: bool = True) -> Done:
    return Child(enter, folder, text, small, folder=folder / "output").wait()


def enter(folder: Path, text: str, small: bool) -> None:
    os.chdir(folder)
    run_blocks(blocks_of(text), small)


@pytest.mark.parametrize(("small", "product"), [(True, "42 two words"), (False, "42 None")])
def test_blocks_share_a_folder_and_python_blocks_their_names(tmp_path: Path, small: bool, product: str) -> None:
    """A shell's variables end with its block, but in one process."""
    done = run(GOOD, tmp_path, small)
    assert done.status == 0, done.err
    assert (tmp_path / "product").read_text() == product
    assert (tmp_path / "word").read_text() == "two words\n"
    assert (tmp_path / "slow").exists() == (not small)


@pytest.mark.parametrize(
    ("block", "message"),
    [
        ("python\n1\n1 / 0", "page.md:2: ZeroDivisionError: division by zero"),
        ("python\nmissing", "page.md:2: NameError: name 'missing' is not defined"),
        ("sh\nls nowhere", "page.md:2: BlockFailed: ls nowhere: exit status 2"),
        ("sh\nls nowhere | false", "page.md:2: BlockFailed: ls nowhere | false: exit status 1"),
        ("sh\nvqtok status --config none.yaml", "BlockFailed: vqtok status --config none.yaml: exit status 2"),
        ("sh\npython none.py", "page.md:2: FileNotFoundError: "),
        ("sh\nmake", "page.md:2: ValueError: make: *** No targets specified"),
    ],
)
def test_a_block_that_fails_is_named(tmp_path: Path, block: str, message: str) -> None:
    done = run(f"```{block}\n```\n", tmp_path)
    assert done.status == 1
    assert message in done.err
    if "1 / 0" in block:
        assert 'File "page.md", line 3, in <module>' in done.err
