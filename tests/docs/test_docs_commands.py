"""Every command in README and docs exists and takes the arguments that it is given there. Nothing is run."""

import itertools
import re

import pytest
import typer
from doc_blocks import PAGES, ROOT, all_blocks, name, ubt_module

COMMANDS = [(block.where, words) for block in all_blocks("bash") for words in block.commands]
NOT_OURS = {"aws", "chmod", "docker", "export", "helm", "kubectl", "optuna-dashboard", "sacct", "scancel", "scp"}
NOT_OURS |= {"cd", "mlflow", "squeue", "tail"}


def root():
    return typer.main.get_command(ubt_module().app)


def parse(command, words):
    """Parse the words as the command line would, down to the last sub-command, without running anything."""
    if not hasattr(command, "commands"):
        command.make_context(command.name, list(words))
        return
    assert words, f"`{command.name}` needs a sub-command"
    assert words[0] in command.commands, f"no such command: {words[0]}"
    parse(command.commands[words[0]], words[1:])


def is_before_the_program(word):
    return word == "srun" or re.match(r"[A-Z_]+=", word)


@pytest.mark.parametrize(("where", "words"), COMMANDS, ids=[f"{where} {' '.join(words)}" for where, words in COMMANDS])
def test_a_command_is_understood(where, words):
    program, *arguments = itertools.dropwhile(is_before_the_program, words)
    arguments = list(itertools.takewhile(lambda word: word != ">", arguments))
    if program == "ubt":
        parse(root(), arguments)
    elif program == "ray":
        from ray.scripts.scripts import cli

        parse(cli, arguments)
        for quoted in arguments:
            if quoted.startswith("ubt "):
                parse(root(), quoted.split()[1:])
    elif program == "make":
        makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
        for target, is_set, _ in (argument.partition("=") for argument in arguments):
            assert re.search(
                rf"^(export .*\b{target}\b|{target} [?]=)" if is_set else rf"^{target}:", makefile, re.MULTILINE
            ), where
    elif program == "python" and arguments[:2] == ["-m", "pytest"]:
        assert all((ROOT / path).exists() for path in arguments[2:] if "/" in path), where
    elif program == "python":
        source = (ROOT / arguments[0]).read_text(encoding="utf-8")
        assert all(option in source for option in arguments if option.startswith("--")), where
    elif program == "sbatch":
        file, *behind = itertools.dropwhile(lambda word: word.startswith("--"), arguments)
        assert (ROOT / file).is_file(), where
        listed = any(option.startswith("--array") for option in arguments)
        parse(root(), ["sweep", *(["demo", *behind[1:]] if listed else behind)])
    else:
        assert program in NOT_OURS, f"{where}: what is `{program}`?"


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_commands_and_options_in_the_text_exist(page):
    known = root().commands
    for said in re.findall(r"`ubt ([a-z][^`]*)`", page.read_text(encoding="utf-8")):
        command, *rest = said.split()
        assert command in known, said
        options = {option for parameter in known[command].params for option in parameter.opts}
        if hasattr(known[command], "commands"):
            assert not rest or rest[0] in known[command].commands, said
            options |= {o for c in known[command].commands.values() for p in c.params for o in p.opts}
        assert {word.partition("=")[0] for word in rest if word.startswith("--")} <= options, said


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_make_targets_in_the_text_exist(page):
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"`make (\w+)`", page.read_text(encoding="utf-8")):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
