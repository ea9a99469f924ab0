"""What bash and zsh run at Tab, in place of typer's scripts, of which two habits disturb.

Typer's script for zsh offers nothing at the first Tab of a shell, and both scripts end a field such as `train.epochs=`
with a space, before its value. The template of zsh asks for the answers in fish's format, a word and its help on each
line, which need not be evaluated.
"""

from __future__ import annotations

from collections.abc import Sequence

BASH = r"""
%(complete_func)s() {
    local IFS=$'\n'
    COMPREPLY=( $( env COMP_WORDS="${COMP_WORDS[*]}" \
                   COMP_CWORD=$COMP_CWORD \
                   %(autocomplete_var)s=complete_bash $1 ) )
    if [[ ${COMPREPLY[0]} == *= ]]; then
        compopt -o nospace 2>/dev/null
    fi
    return 0
}

complete -o default -F %(complete_func)s %(prog_name)s
"""

ZSH = r"""
#compdef %(prog_name)s

%(complete_func)s() {
  local line help tab=$'\t'
  local -a answers fields others
  answers=("${(@f)$(env _TYPER_COMPLETE_FISH_ACTION=get-args _TYPER_COMPLETE_ARGS="${words[1,$CURRENT]}" \
    %(autocomplete_var)s=complete_fish %(prog_name)s)}")
  for line in $answers; do
    help=""
    if [[ $line == *$tab* ]]; then
      help=":${line#*$tab}"
      line=${line%%%%$tab*}
    fi
    if [[ $line == *= ]]; then
      fields+=("${line//:/\\:}$help")
    else
      others+=("${line//:/\\:}$help")
    fi
  done
  if (( $#fields + $#others == 0 )); then
    _files
    return
  fi
  _describe -t values 'value' others -- fields -S ''
}

compdef %(complete_func)s %(prog_name)s
if [[ $zsh_eval_context[-1] == loadautofunc ]]; then
  %(complete_func)s "$@"
fi
"""


def use_own_scripts(typed: Sequence[str]) -> None:
    """Have `--install-completion` and `--show-completion` give these scripts instead of typer's.

    Args:
        typed: the words of the command line. Other commands do without this: the table is typer's own affair.
    """
    if "--install-completion" in typed or "--show-completion" in typed:
        from typer import _completion_shared

        _completion_shared._completion_scripts |= {"bash": BASH, "zsh": ZSH}
