"""The README keeps its word: its programs run as printed, its commands can be found, its map is the package.

Every ```python block is a whole program. It runs in a fresh process, must end within seconds with nothing on stderr,
and must print exactly what the ```text block right after it says, or nothing where there is none.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
SECONDS = 20

FENCED = re.compile(r"^```(?P<language>\w*)\n(?P<body>.*?)^```$\n?(?P<gap>\s*)", re.MULTILINE | re.DOTALL)


class Program(NamedTuple):
    """A ```python block: where it stands, what it says, and what it has to print."""

    line: int
    source: str
    expected: str


def programs(text: str) -> list[Program]:
    """List the ```python blocks of a text, each with the ```text block that follows it at once."""
    blocks = list(FENCED.finditer(text))
    found = []
    for index, block in enumerate(blocks):
        if block["language"] != "python":
            continue
        after = blocks[index + 1] if index + 1 < len(blocks) else None
        is_output = after is not None and after["language"] == "text" and after.start() == block.end()
        line = text.count("\n", 0, block.start("body")) + 1
        found.append(Program(line, block["body"], after["body"] if after is not None and is_output else ""))
    return found


def command(text: str, name: str) -> str:
    """Return the fenced block right below `<!-- command: NAME -->`; `.ci/run` finds it by the same mark."""
    match = re.search(rf"^<!-- command: {name} -->\n```\w*\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert match, f"README.md has no <!-- command: {name} --> with a fenced block right below"
    return match[1]


def run(program: Program, directory: Path) -> subprocess.CompletedProcess[str]:
    """Run a program as a file of its own, its line numbers those of the README, with every warning an error."""
    script = directory / "readme.py"
    script.write_text("\n" * (program.line - 1) + program.source, "utf-8")
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error", "PYTHONUTF8": "1"}
    command = [sys.executable, str(script)]
    return subprocess.run(command, cwd=directory, env=environment, capture_output=True, text=True, timeout=SECONDS)


def mapped_places(text: str) -> list[str]:
    """List what the README's map names: every word in code in the first column of its table."""
    section = re.search(r"^## The map$(.*?)^## ", text, re.MULTILINE | re.DOTALL)
    assert section, "README.md has no section `## The map`"
    first_columns = re.findall(r"^\| (`[^|]+) \|", section[1], re.MULTILINE)
    return [name for column in first_columns for name in column.split("`")[1::2]]


TEXT = README.read_text("utf-8")
PROGRAMS = programs(TEXT)


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: f"line-{program.line}")
def test_program_of_the_readme_prints_what_the_readme_says(program: Program, tmp_path: Path) -> None:
    done = run(program, tmp_path)
    assert done.stderr == ""
    assert done.stdout == program.expected
    assert done.returncode == 0


def test_readme_has_programs_and_each_imports_greenswitch() -> None:
    assert len(PROGRAMS) == TEXT.count("```python\n") >= 3
    assert [program.line for program in PROGRAMS if "greenswitch" not in program.source] == []


def test_both_commands_are_one_line_and_install_what_they_run() -> None:
    for name, ending in (("echo", "-m greenswitch.echo\n"), ("test", "-m pytest\n")):
        text = command(TEXT, name)
        assert text.count("\n") == 1 and text.endswith(ending) and "pip install" in text


def test_map_names_every_place_of_the_package_and_no_other() -> None:
    package = ROOT / "greenswitch"
    there = {path.name for path in package.glob("*.py") if not path.name.startswith("__")}
    there |= {f"{path.parent.name}/" for path in package.glob("*/*.py")}
    assert sorted(mapped_places(TEXT)) == sorted(there)


def test_every_path_that_the_readme_links_to_exists() -> None:
    links = [target for target in re.findall(r"\]\(([^)#]+)\)", TEXT) if "://" not in target]
    assert [target for target in links if not (ROOT / target).exists()] == []


def test_output_belongs_to_a_program_only_if_it_follows_at_once() -> None:
    text = "# t\n```python\na\n```\n\n```text\n1\n```\n```python\nb\n```\nprose\n```text\n2\n```\n"
    assert programs(text) == [Program(3, "a\n", "1\n"), Program(10, "b\n", "")]


@pytest.mark.parametrize(
    ("source", "stdout", "stderr"),
    [
        ("print('other')\n", "other\n", ""),
        ("import warnings\nwarnings.warn('old')\n", "", "UserWarning: old"),
        ("1 / 0\n", "", "readme.py\", line 7"),
    ],
)
def test_planted_lie_is_noticed(source: str, stdout: str, stderr: str, tmp_path: Path) -> None:
    done = run(Program(7, source, "said\n"), tmp_path)
    assert done.stdout == stdout
    assert stderr in done.stderr and bool(stderr) == bool(done.stderr)
