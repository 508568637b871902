"""Simple commands in shell code: their words, without running them."""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import takewhile

_OPERATORS = frozenset("();<>|&")
_COMMENT = re.compile(r"(^|\s)#.*")
_QUOTED = re.compile(r"'[^']*'|\"[^\"$`]*\"")


@dataclass(frozen=True)
class Command:
    """One simple command."""

    words: tuple[str, ...]
    variables: dict[str, str]
    """What stands before its first word, as in `A=b command`."""

    @property
    def name(self) -> str:
        """The program, without its folder; `` where variables are all there is."""
        return self.words[0].rpartition("/")[2] if self.words else ""

    @property
    def is_launch(self) -> bool:
        """Whether it starts another command, in several processes."""
        return self.name == "torchrun" or (self.name == "accelerate" and self.words[1:2] == ("launch",))


def lines_of(code: str) -> list[str]:
    """The lines of shell code that hold commands; one that ends in a backslash goes on in the next."""
    return [line for line in code.replace("\\\n", " ").splitlines() if _tokens(line)]


def commands_of(line: str) -> list[Command]:
    """The simple commands of a line, also those in parentheses and in a quoted word, as of `sbatch --wrap`."""
    found = []
    for tokens in _split(_tokens(line)):
        count = sum(1 for _ in takewhile(_sets_variable, tokens))
        found.append(Command(tuple(tokens[count:]), dict(token.split("=", 1) for token in tokens[:count])))
        for token in tokens[count:]:
            if re.match(r"(\S+/)?vqtok ", token):
                found += commands_of(token)
    return found


def is_plain(line: str) -> bool:
    """Whether a line is a single command whose words the shell takes as they are written."""
    return not set("$`&|;<>*?(){}") & set(_QUOTED.sub("", _COMMENT.sub("", line)))


def _tokens(line: str) -> list[str]:
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    return list(lexer)


def _split(tokens: list[str]) -> Iterator[list[str]]:
    words: list[str] = []
    for token in [*tokens, ";"]:
        if not token or set(token) - _OPERATORS:
            words.append(token)
        elif words:
            yield words
            words = []


def _sets_variable(token: str) -> bool:
    name, equals, _ = token.partition("=")
    return bool(equals) and name.isidentifier()
