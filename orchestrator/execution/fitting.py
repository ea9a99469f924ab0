"""Whether the workers of a sweep fit on the machines that there are, or that an autoscaler can add."""

from __future__ import annotations

from dataclasses import dataclass

from orchestrator.execution.machines import Look
from orchestrator.execution.placement import described, for_workers, is_refused, kinds, misfits
from schemas.errors import ResourceError
from schemas.sweep import Needs


@dataclass
class Fitting:
    """Compares what workers need with every look at the machines."""

    needs: tuple[Needs, ...]
    """What the workers of the sweep's jobs need."""
    is_private: bool
    """Whether the only machine is this one, whose workers were counted to fit."""
    default_gpus: float | None = None
    """GPUs of a worker whose needs leave them open; None until a machine for workers was seen."""
    is_checked: bool = False
    """Whether the needs were compared with machines."""
    _unmet: tuple[Needs, ...] = ()
    """Needs that no machine meets, until the autoscaler says whether it can add one that does."""
    _is_scaled: bool = False
    """Whether an autoscaler has ever told what it cannot add; a new head does not know that at once."""
    _was_empty: bool = False
    """Whether there was no machine for workers at first: machines of several kinds may join one after the other."""

    def resolved(self, needs: Needs) -> Needs:
        """Return the needs with their number of GPUs."""
        return needs if needs.gpus is not None else needs._replace(gpus=self.default_gpus or 0.0)

    def note(self, look: Look, *, is_working: bool) -> None:
        """Compare the needs with the machines.

        Args:
            look: at the machines.
            is_working: whether any worker has a job: jobs that fit are not given up for one that does not.

        Raises:
            ResourceError: No machine meets some needs, and no autoscaler could add one that does.
        """
        machines = for_workers(look.nodes)
        if not self.is_checked:
            self._was_empty |= not machines
            if machines:
                self._begin(look)
        self._is_scaled |= look.refused is not None
        self._unmet = tuple(misfits(self._unmet, machines))
        if is_working:
            return
        for needs in self._unmet:
            if not self._is_scaled or is_refused(needs, look.refused or ()):
                scaling = "" if not self._is_scaled else ", and its autoscaler can add none that is large enough"
                raise ResourceError(
                    f"A worker of {described(needs)} fits on no machine: the cluster has {kinds(machines)}{scaling}. "
                    "Lower `resources` in the sweep file (also by backbone), or add a larger machine."
                )

    def _begin(self, look: Look) -> None:
        """Decide whether workers take GPUs, and which needs are to be compared."""
        self.is_checked = True
        if self.default_gpus is None:
            self.default_gpus = 1.0 if any(node.total.gpus for node in for_workers(look.nodes)) else 0.0
        if not self._was_empty and not self.is_private:
            self._unmet = tuple(dict.fromkeys(self.resolved(needs) for needs in self.needs))
