"""Tab in a real zsh: the installed script, what a line becomes, and what is offered beside it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.ledger import opening
from orchestrator.ledger.records import StoredPlan
from orchestrator.settings import Settings
from tests.support.doubles import plan_of

ROOT = Path(__file__).parents[3]
RC = r"""
unset zle_bracketed_paste
compadd() {
  local -a found
  builtin compadd -O found "$@"
  offered+=($found)
  builtin compadd "$@"
}
try() {
  offered=()
  zle expand-or-complete
  print -r -- "LINE[$BUFFER]${(j:|:)${(@u)offered}}END"
  BUFFER=
}
zle -N try
bindkey '^T' try
print STARTED
"""
"""What an inner zsh has in addition: Ctrl-T completes a line, prints what became of it, and empties it."""
DRIVER = r"""
orch --install-completion > /dev/null || exit 9
print -r -- "$RC" >> ~/.zshrc
zmodload zsh/zpty
zpty -b inner zsh -d -i
zpty -r inner answer '*STARTED*' || exit 8
for line in "$@"; do
  zpty -w -n inner "$line"$'\C-t'
  zpty -r inner answer '*LINE\[*END*' || exit 7
  answer=${answer##*LINE\[}
  print -r -- "${answer%%END*}"
done
zpty -d inner
"""


@pytest.fixture
def tab(tmp_path: Path, new_home: Callable[[], Settings]) -> Callable[..., list[tuple[str, list[str]]]]:
    """Return what types lines into one zsh, with Tab after each, and gives each line as it became and the offers."""
    if shutil.which("zsh") is None:
        pytest.skip("zsh is not installed")
    settings = new_home()
    sweep = plan_of("first", sets={"backbone": "torchvision:resnet18@layer4"}, name="first-look")
    plan = StoredPlan.of("first-look", "laptop", None, sweep.jobs, sweep.upstream_keys, sweep.resources)
    ledger = opening.open_ledger(settings)
    ledger.begin_sweep(plan, 1.0)
    for job in sweep.jobs:
        ledger.add(job, "first-look", 1.0)
    program = tmp_path / "bin" / "orch"
    program.parent.mkdir()
    program.write_text(f"#!{sys.executable}\nfrom orchestrator.cli.main import main\nmain()\n")
    program.chmod(0o755)
    (tmp_path / "photographs").mkdir()
    environment = os.environ | {
        "HOME": str(tmp_path), "ZDOTDIR": str(tmp_path), "ORCH_HOME": str(settings.root), "PYTHONPATH": str(ROOT),
        "PATH": f"{program.parent}:{os.environ['PATH']}", "RC": RC, "TERM": "dumb",
    }  # fmt: skip

    def type_(*lines: str) -> list[tuple[str, list[str]]]:
        done = subprocess.run(
            ["zsh", "-f", "-c", DRIVER, "driver", *lines], env=environment, cwd=tmp_path, capture_output=True,
            text=True, check=False, timeout=300,
        )  # fmt: skip
        assert done.returncode == 0, (done.returncode, done.stdout, done.stderr)
        answers = [answer.replace("\r", "").partition("]") for answer in done.stdout.splitlines()]
        return [(line, [word for word in offered.strip().split("|") if word]) for line, _, offered in answers]

    return type_


def test_commands_names_fields_and_values_complete_from_the_first_tab_on(
    tab: Callable[..., list[tuple[str, list[str]]]],
) -> None:
    far = "--backbone torchvision:resnet18@layer4 --set 'filter_loss={weight: 1}' --set"
    first, second, sweep, field, values, value, quoted, category, jobs, file = tab(
        "orch swee", "orch swee", "orch status fir", "orch sweep --set train.epo", "orch sweep --set los",
        "orch sweep --set loss=so", f"orch plan {far} vari", "orch plan --set category=voc_part/c", "orch show ",
        "orch plan --data-root phot",
    )  # fmt: skip
    assert first == second == ("orch sweep ", ["sweep"])
    assert sweep == ("orch status first-look ", ["first-look"])
    assert field == ("orch sweep --set train.epochs=", ["train.epochs="])
    assert values == ("orch sweep --set loss=", ["loss=logistic", "loss=softmax"])
    assert value == ("orch sweep --set loss=softmax ", ["loss=softmax"])
    assert quoted == (f"orch plan {far} variant=", ["variant=ordinary", "variant=interpretable"])
    assert category[1] == ["category=voc_part/cat", "category=voc_part/cow"]
    assert jobs[0] == "orch show "
    assert len(jobs[1]) >= 2
    assert all(len(word) == 12 and int(word, 16) for word in jobs[1]), "a title is no offer"
    assert file == ("orch plan --data-root photographs/", ["photographs"])
