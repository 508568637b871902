"""The checks find what is wrong, and nothing where all is right."""

import pytest

from docs.blocks import Block
from docs.checking import command_problems, problems

WRONG = [
    ("sh", "vqtok tokenise --config F", "vqtok has no command tokenise"),
    ("sh", "vqtok tokenize --confg F", "vqtok tokenize: No such option"),
    ("sh", "vqtok tokenize", "vqtok tokenize: Missing option '--config'"),
    ("sh", "vqtok verify --config F --rate much", "vqtok verify: Invalid value for '--rate'"),
    ("sh", "vqtok status --config F extra", "vqtok status: Got unexpected extra argument (extra)"),
    ("sh", "vqtok train --config F --set train.step=3", "the configuration has no train.step"),
    ("sh", "vqtok train --config F --set train.model.beta.x=3", "the configuration has no train.model.beta.x"),
    ("sh", "vqtok train --config configs/none.yaml", "there is no configs/none.yaml"),
    ("sh", "ls | .venv/bin/vqtok clean --config F --jsn", "vqtok clean: No such option"),
    ("sh", "sbatch --wrap 'vqtok verify --config F --qick'", "vqtok verify: No such option"),
    ("sh", "make tokenise", "No rule to make target 'tokenise'"),
    ("sh", "make tokenize NPROCS=2", "the Makefile has no NPROCS"),
    ("sh", 'make tokenize ARGS="--set tokenize.batchsize=3"', "the configuration has no tokenize.batchsize"),
    ("sh", "make train NPROC=2 ARGS=--alow-change", "vqtok train: No such option"),
    ("sh", "torchrun --standalon x.py", "unrecognized arguments: --standalon"),
    ("sh", "torchrun --standalone --no-python vqtok train --confg F", "vqtok train: No such option"),
    (
        "sh",
        "torchrun --standalone scripts/examples/train_ar.py --dimension 3",
        "scripts/examples/train_ar.py has no --dimension",
    ),
    ("sh", "accelerate launch --no_python vqtok status", "vqtok status: Missing option '--config'"),
    ("sh", "accelerate launch --no_pythn vqtok", "unrecognized arguments: --no_pythn"),
    ("sh", "python scripts/none.py", "there is no scripts/none.py"),
    ("sh", "NODS=2 scripts/cluster/torchrun.sh", "scripts/cluster/torchrun.sh reads no NODS"),
    ("sh", "pytest tests/none.py", "there is no tests/none.py"),
    ("sh", 'pytest tests/files -k "locks or lokcs"', "no test is selected by -k lokcs"),
    ("sh", "pip install '.[objects,objetcs]'", "there is no extra objetcs"),
    ("sh", "for", "syntax error"),
    ("python", "import", "invalid syntax"),
    ("python", "from pipeline.loader import TokenLoader, TokenLoder", "pipeline.loader has no TokenLoder"),
    ("yaml", "source: {shard: x}", "the configuration has no source.shard"),
    ("yaml", "sorce:", "the configuration has no sorce"),
]


@pytest.mark.parametrize(("language", "code", "problem"), WRONG, ids=[code for _, code, _ in WRONG])
def test_what_is_wrong_is_found(language: str, code: str, problem: str) -> None:
    found = problems(Block("page.md", 1, language, code))
    assert problem in "\n".join(found)
    assert len(found) == 1


def test_where_all_is_right_nothing_is_found() -> None:
    right = (
        "vqtok verify --config configs/sample.yaml --rate 0.01 --set train.model.vocab_size=3 --set image.size=8\n"
        "make train CONFIG=my.yaml NPROC=8 ARGS='--set train.steps=3'\n"
        "torchrun --standalone --nproc-per-node 2 scripts/examples/train_ar.py --config my.yaml --dim=64\n"
        "CONFIG=my.yaml scripts/cluster/start_n.sh hosts.txt >log 2>&1 &\n"
        "vqtok --help; python x.py; git status; pip install '.[objects]'\n"
    )
    assert problems(Block("page.md", 1, "sh", right)) == []
    assert problems(Block("page.md", 1, "text", "for")) == []


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("vqtok tokenize", 0),  # what it requires may be missing in the text
        ("vqtok verify --rate R", 0),
        ("torchrun … --no-python vqtok train --config F", 0),
        ("accelerate launch", 0),
        ("accelerate launch --cpu --num_processes 2", 0),
        ("accelerate launch --gpu", 1),
        ("vqtok tokenize --quick", 1),
        (".venv/bin/vqtok", 0),
        ("scripts/none.py", 1),
        ("make tokenise", 1),
        ("vqtok show 'S", 1),
        ("pytest tests/none.py -k x", 2),
    ],
)
def test_commands_in_the_text_may_leave_something_out(text: str, count: int) -> None:
    assert len(command_problems(text)) == count
