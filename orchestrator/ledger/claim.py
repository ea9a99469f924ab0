"""Whether a driver still holds its sweep, and the errors for a driver that does not."""

from __future__ import annotations

from orchestrator.ledger.base import LedgerReader, LedgerWriter
from orchestrator.ledger.lease import Lease
from orchestrator.wording import when
from schemas.errors import SweepBusy


def check_claim(ledger: LedgerReader, name: str, lease: Lease) -> None:
    """Check that no other driver has taken a sweep over, for example while this machine was suspended.

    Args:
        ledger: The store.
        name: Name of the sweep.
        lease: The lease of this driver.

    Raises:
        SweepBusy: Another driver holds the sweep.
    """
    record = ledger.sweep(name)
    other = record.lease if record is not None else None
    if other is not None and not other.is_of(lease):
        raise SweepBusy(
            f"Sweep {name!r} was taken over by process {other.pid} on {other.host} because this driver did not renew "
            "its lease in time. The jobs that ran here were stopped and nothing was overwritten. Watch the sweep with "
            f"`orch status {name} --watch`."
        )


def renew(ledger: LedgerWriter, name: str, lease: Lease, now: float) -> Lease:
    """Sign a lease again.

    Args:
        ledger: The store.
        name: Name of the sweep.
        lease: The lease of this driver.
        now: Unix seconds.

    Returns:
        The lease with the new signature.

    Raises:
        SweepBusy: Another driver holds the sweep; nothing is written.
    """
    check_claim(ledger, name, lease)
    signed = lease.model_copy(update={"sign_at": now})
    ledger.set_lease(name, signed)
    return signed


def busy(name: str, lease: Lease | None) -> SweepBusy:
    """Return the error for a sweep that another process drives.

    Args:
        name: Name of the sweep.
        lease: The lease of its driver; None while that process is still starting.
    """
    if lease is None:
        return SweepBusy(f"Sweep {name!r} is being started by another process. Check it with `orch status {name}`.")
    return SweepBusy(
        f"Sweep {name!r} is already driven by process {lease.pid} on {lease.host}, since {when(lease.since)}. "
        f"Watch it with `orch status {name} --watch`, or stop it in order with `orch pause {name}`."
    )
