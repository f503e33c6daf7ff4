"""Help by sections: everything stands in one, once."""

from __future__ import annotations

import re

import click
import pytest
from onnx_prune.tools.cli import cli
from onnx_prune.tools.settings.sections import SECTIONS, SectionedCommand, sections

LONG = [name for name, command in cli.commands.items() if isinstance(command, SectionedCommand)]


def test_the_long_ones_have_sections():
    assert {"prune", "sweep", "finetune", "compare"} <= set(LONG)


@pytest.mark.parametrize("name", LONG)
def test_every_option_stands_in_the_help_once(name):
    command = cli.commands[name]
    context = click.Context(command, info_name=name, terminal_width=80)
    whole = command.get_help(context)
    first = min(whole.index(f"\n{title}:") for title in SECTIONS if f"\n{title}:" in whole)
    text = whole[first:]
    flags = [flag for option in command.get_params(context) for flag in option.opts if flag.startswith("--")]
    for flag in flags:
        assert len(re.findall(rf"^  (?:-\w, )?{flag}(?![\w-])", text, re.MULTILINE)) == 1, flag
    assert max(map(len, text.splitlines())) <= 80
    assert [title for title in SECTIONS if f"\n{title}:" in text]


@pytest.mark.parametrize("name", ["prune", "sweep"])
def test_few_options_are_without_a_section(name):
    command = cli.commands[name]
    rest = sections(command.get_params(click.Context(command)))["Other options"]
    assert len(rest) <= 4, [option.name for option in rest]


def test_a_section_names_nothing_that_no_command_has():
    known = {parameter.name for command in cli.commands.values() for parameter in command.params}
    assert {name for names in SECTIONS.values() for name in names} <= known
