"""Checks a Ray cluster and each of its nodes, and compares them with this machine."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from importlib.metadata import version
from queue import Empty, Queue

from orchestrator.checkup.machine import judge_disk
from orchestrator.checkup.result import (
    CHECK_SECONDS,
    RESOURCES,
    Checked,
    bad,
    bounded,
    compare_clocks,
    ok,
    warning,
)
from orchestrator.checkup.survey import Node, SurveyLine, SurveyOrder
from orchestrator.execution.in_time import Hung, within
from orchestrator.execution.ray_jobs import RayJobs
from orchestrator.import_path import HOME
from orchestrator.settings import Settings
from schemas.categories import DATASETS
from schemas.errors import DataError, OrchError
from workers.code_home import code_home, difference
from workers.node_facts import LIBRARIES, NodeFacts, NodeQuestions, data_sets_of

JOIN_SECONDS = 40.0
"""Longest time until Ray has started, or joined a cluster."""


def check_cluster(settings: Settings) -> Iterator[Checked]:
    """Check that the cluster answers, and ask each node about itself, all at once.

    Args:
        settings: name the cluster; `local` starts a private Ray.
    """
    if settings.is_outside:
        yield from bounded("Ray", lambda: _check_jobs(settings.ray_address), "Is that Ray's dashboard (port 8265)?", 25)
        return
    order = SurveyOrder(
        address=settings.ray_address,
        questions=NodeQuestions(
            home=str(settings.root),
            data_root=str(settings.data_root.expanduser().absolute()) if settings.data_root else None,
            tracking_uri=settings.tracking_uri if settings.store_uri.startswith("http") else None,
            object_store=settings.object_store,
        ),
        seconds=CHECK_SECONDS,
    )
    nodes: dict[str, Node] = {}
    pushed = _pushed(settings)
    for line in _survey(order):
        if line.error is not None:
            yield bad("Ray", line.error, RESOURCES)
        elif line.nodes is not None:
            nodes = {node.id: node for node in line.nodes}
            yield _cluster(settings.ray_address, line.nodes)
        elif line.node is not None and line.node in nodes:
            yield from _check_node(nodes.pop(line.node), line, settings, pushed)
    for node in nodes.values():
        yield bad(_name(node), "no answer: Ray hangs", RESOURCES)


def _check_jobs(address: str) -> Iterator[Checked]:
    number = len(RayJobs(address).all())
    yield ok("Ray", f"the jobs API of {address} answers and accepts this machine ({number} submissions)")
    yield warning("nodes", "not checked: type `orch doctor` on a machine of the cluster to check each of them")


def _cluster(address: str, nodes: tuple[Node, ...]) -> Checked:
    cpus, gpus = sum(node.cpus for node in nodes), sum(node.gpus for node in nodes)
    what = "a private Ray starts" if address == "local" else f"{address} answers and accepts this machine"
    text = (
        f"{what}: Ray {version('ray')}, {len(nodes)} node{'' if len(nodes) == 1 else 's'}, {cpus:g} CPUs, {gpus:g} GPUs"
    )
    return ok("Ray", text) if cpus else warning("Ray", f"{text}. Jobs wait until a node with CPUs joins.")


def _survey(order: SurveyOrder) -> Iterator[SurveyLine]:
    """Yield what a surveying process tells; its last line is an error if it hangs or dies."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    process = subprocess.Popen(
        [sys.executable, "-m", "orchestrator.checkup.survey"], env=environment, cwd=HOME, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    assert process.stdin is not None
    lines: Queue[str | None] = Queue()
    threading.Thread(target=_pass_on, args=(process, lines), daemon=True).start()
    try:
        process.stdin.write(order.model_dump_json())
        process.stdin.close()
        until, is_joined = time.monotonic() + JOIN_SECONDS, False
        while True:
            try:
                text = lines.get(timeout=max(0.0, until - time.monotonic()))
            except Empty:
                if not is_joined:
                    yield SurveyLine(error=_hangs(order.address))
                return
            if text is None:
                if not is_joined:
                    yield SurveyLine(error=_died(order.address))
                return
            if not text.startswith("{"):  # Ray's own
                continue
            line = SurveyLine.model_validate_json(text)
            yield line
            if line.error is not None:
                return
            if not is_joined:
                until, is_joined = time.monotonic() + order.seconds + 5.0, True
    finally:
        process.kill()
        process.wait()


def _pass_on(process: subprocess.Popen[str], lines: Queue[str | None]) -> None:
    assert process.stdout is not None
    with process.stdout:
        for line in process.stdout:
            lines.put(line)
    lines.put(None)


def _hangs(address: str) -> str:
    if address == "local":
        return f"A private Ray has not started within {JOIN_SECONDS:.0f} s. See that /tmp and memory have room."
    return (
        f"What listens at {address} does not answer as Ray within {JOIN_SECONDS:.0f} s. Check that it is the port of "
        "Ray's head (`ray start --head` says which; 6379 by default), and that RAY_AUTH_MODE and the token are those "
        "of the cluster."
    )


def _died(address: str) -> str:
    return (
        f"Ray's library ended while it joined {address}. Check that RAY_AUTH_MODE and RAY_AUTH_TOKEN (or "
        f"RAY_AUTH_TOKEN_PATH) are those of the cluster, and that it runs Ray {version('ray')}, as this machine does."
    )


def _name(node: Node) -> str:
    return f"node {node.host}"


def _pushed(settings: Settings) -> frozenset[str]:
    """Return the data sets in the object store; none if it does not answer, of which its own check tells."""
    from workers.data.pushed.pulling import read_head
    from workers.objects.base import open_objects

    if settings.data_root is None or settings.object_store is None:
        return frozenset()
    with suppress(Hung, OrchError):
        store = open_objects(settings.object_store, hurried=True)
        names = {*DATASETS, *(data_sets_of(settings.data_root.expanduser()) or ())}
        return within(CHECK_SECONDS, lambda: frozenset(name for name in names if read_head(store, name)))
    return frozenset()


def _check_node(node: Node, line: SurveyLine, settings: Settings, pushed: Collection[str]) -> Iterator[Checked]:
    name, facts = _name(node), line.facts
    if facts is None:
        yield bad(name, line.problem or "no answer", RESOURCES)
        return
    if not node.cpus and not node.gpus:
        yield ok(name, "has no CPUs, so no job runs there")
        return
    problems = list(_problems(name, facts, settings, pushed))
    gpus = ", ".join(facts.gpus) or "no GPU"
    if not any(one.exit_code for one in problems):
        yield ok(name, f"{node.cpus:g} CPUs, {gpus}, {facts.free_gb:.0f} GB free, same orch, reaches the stores")
    yield from problems


def _problems(name: str, facts: NodeFacts, settings: Settings, pushed: Collection[str]) -> Iterator[Checked]:
    """Yield what is wrong with a node, and which data it will pull; nothing else of what is right."""
    if found := difference(code_home(), facts.code):
        text = (
            f"its orch in {', '.join(facts.code.folders)} differs from the one here in {HOME}. Install the same orch."
        )
        yield warning(name, text) if settings.code_check == "warn" and found else bad(name, text, RESOURCES)
    yield from _versions(name, facts.versions)
    for one in (
        judge_disk(name, facts.free_gb, facts.home),
        compare_clocks(name, facts.time, time.time()),
    ):
        if one.level != "ok":
            yield one
    yield from _absent_data(name, facts, settings, pushed)
    if facts.tracking:
        yield bad(name, f"cannot use the tracking server {settings.tracking_uri}: {facts.tracking}")
    if facts.objects:
        yield bad(name, f"cannot use the object store: {facts.objects}")


def _absent_data(name: str, facts: NodeFacts, settings: Settings, pushed: Collection[str]) -> Iterator[Checked]:
    """Yield which of this machine's data sets a node lacks, and whether it can pull them."""
    if settings.data_root is None:
        return
    there = facts.data_sets or ()
    absent = [each for each in data_sets_of(settings.data_root.expanduser()) or () if each not in there]
    if pulled := [each for each in absent if each in pushed]:
        yield ok(name, f"lacks {', '.join(pulled)}, which the object store has: the first job there pulls it")
    copy = f"Copy or mount {settings.data_root} there, or set ORCH_DATA_ROOT there."
    if missing := [each for each in absent if each not in pushed]:
        if settings.object_store:
            push = f"Run: orch data push {' '.join(missing)}"
            yield warning(name, f"lacks {', '.join(missing)}, and the object store does not have it. {push}")
        elif there:
            yield warning(name, f"lacks {', '.join(missing)}; its jobs run elsewhere. {copy}")
    if not there and not settings.object_store:
        what = "is not there" if facts.data_sets is None else "holds no data set there"
        yield bad(name, f"the data root {what}. {copy}", DataError.exit_code)


def _versions(name: str, theirs: Mapping[str, str]) -> Iterator[Checked]:
    for library in LIBRARIES:
        here, there = version(library), theirs.get(library, "")
        if not there:
            yield bad(name, f"{library} is not installed there. Install {library}=={here}.", RESOURCES)
        elif here != there:
            yield warning(name, f"{library} {there}; here it is {here}, so results may differ in the last digits")
