"""The table of wrong changes that tests must notice: trying them all takes long, that they can be tried does not."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "scripts"))

from mutants import PACKAGE, Mutant, mutated, read_table  # noqa: E402


@pytest.mark.parametrize("mutant", read_table(), ids=lambda mutant: mutant.name)
def test_every_wrong_change_can_be_tried(mutant: Mutant) -> None:
    source = (ROOT / PACKAGE / mutant.file).read_text(encoding="utf-8")
    changed = mutated(source, mutant)
    assert ast.dump(ast.parse(changed)) != ast.dump(ast.parse(source)), "it changes nothing, or is no Python"
    for test in mutant.tests:
        file, _, function = test.partition("::")
        assert (ROOT / file).exists()
        if function:
            assert f"\ndef {function.partition('[')[0]}(" in (ROOT / file).read_text(encoding="utf-8")


def test_a_change_of_text_that_is_gone_is_refused() -> None:
    gone = Mutant(name="", file="a.py", old="x = 1", new="x = 2", tests=())
    with pytest.raises(ValueError, match=r"a\.py: the old text occurs 0 times"):
        mutated("y = 1", gone)
    with pytest.raises(ValueError, match="occurs 2 times"):
        mutated("x = 1\nx = 1", gone)
