"""Blocks are found where they stand, and none is overlooked."""

import pytest

from docs.blocks import blocks_of, commands_in_text, keys_in_text

PAGE = """\
# Title

`make lint`, `store[0]` and `vqtok status --config F`. `source.shards`, `train.json`, `image.decoder: nvjpeg`.

```sh
make sample
```

<!-- not run: needs a GPU -->
```python
import torch
```
<!-- slow: starts a server -->

```sh
`make test` is no text here
```

```text
a picture
```
"""


def test_blocks_have_their_line_language_code_and_mark() -> None:
    found = [(block.place, block.language, block.code, block.mark) for block in blocks_of(PAGE, "docs/page.md")]
    assert found == [
        ("docs/page.md:6", "sh", "make sample\n", ""),
        ("docs/page.md:11", "python", "import torch\n", "not run"),
        ("docs/page.md:16", "sh", "`make test` is no text here\n", "slow"),
        ("docs/page.md:20", "text", "a picture\n", ""),
    ]


def test_commands_are_found_outside_of_blocks() -> None:
    assert commands_in_text(PAGE) == ["make lint", "vqtok status --config F"]


def test_keys_are_found_outside_of_blocks() -> None:
    assert keys_in_text(PAGE) == ["source.shards", "image.decoder"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<!-- notrun: why -->\n```sh\nx\n```\n", r"page.md:3: 'notrun' is none of the marks not run, slow"),
        ("<!-- not run -->\n```sh\nx\n```\n", r"a mark is on no block"),
        ("<!-- slow: why -->\nText.\n```sh\nx\n```\n", r"a mark is on no block"),
        ("```sh\nx\n", r"1 fences for 0 blocks"),
        ("- item\n  ```sh\n  x\n  ```\n", r"2 fences for 0 blocks; is one indented"),
        ("```sh title\nx\n```\n", r"2 fences for 0 blocks"),
    ],
)
def test_what_would_be_overlooked_is_an_error(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        blocks_of(text)
