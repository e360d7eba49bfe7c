"""Every command says what it does and shows an example that the command line understands."""

from __future__ import annotations

import re
import shlex

import pytest

from stream.command_reference import commands

pytestmark = pytest.mark.unit

COMMANDS = commands()


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_a_commands_help_has_an_example_of_itself_with_options_that_it_has(
    words: tuple[str, ...],
) -> None:
    command = COMMANDS[words]
    examples = re.findall(r"`driftline ([^`]+)`", command.help or "")
    mine = [shlex.split(text) for text in examples if tuple(text.split()[: len(words)]) == words]
    assert mine, f"driftline {' '.join(words)} --help shows no example"
    known = {option for parameter in command.params for option in parameter.opts}
    for example in mine:
        used = {word.partition("=")[0] for word in example if word.startswith("-")}
        assert used <= known, example
