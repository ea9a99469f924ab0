"""What happens to a cluster while a sweep runs on it: one function per scenario, and the table of all."""

from __future__ import annotations

import re
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from tests.chaos.stage import Stuck, wait_for
from tests.cluster.evidence import EPOCH_DONE, epochs_trained
from tests.cluster.hosts import Host
from tests.cluster.photographs import DATA_ROOT, write_photographs
from tests.cluster.services import Service
from tests.cluster.stage import CATEGORIES, INPUT_SIZE, RAY_PORT, Cluster, Command, Ray, short_sweep
from tests.cluster.watch import Watch

NAME = "one"
NODES = 2
STOPS = "Stopping: running jobs save"
"""What a sweep says when it begins to stop."""
LONGEST_SECONDS = 420.0
"""Longest time of a sweep before it counts as stuck."""
DRAIN_SECONDS = 20
HEAR_SECONDS = 60.0
"""Longest time from the command until the sweep has heard of it; most of it is the start of a Python process."""
PAUSE_SECONDS = 20.0
"""Longest time to pause, once the sweep has heard of it: ten seconds, the time to save, and what busy cores add."""


class Act:
    """One sweep on a cluster, and what a scenario does to both."""

    def __init__(self, cluster: Cluster, watch: Watch, scale: float, text: str) -> None:
        """
        Args:
            cluster: where it runs.
            watch: looks at the cluster.
            scale: factor on the length of outages; below 1 for the short version.
            text: the sweep file.
        """
        self.cluster, self.watch, self.scale = cluster, watch, scale
        self.file = cluster.write(text)
        self.notes: list[str] = []
        self.in_vain = 0
        """Epochs that a node trained which nobody could reach, and whose job had gone on elsewhere."""

    # -- commands -----------------------------------------------------------------------------------------------

    def sweep(self, *words: str, **settings: str) -> Command:
        """Start the sweep."""
        command = self.cluster.type("sweep", self.file, *words, **settings)
        self.watch.expect(True)
        return command

    def ends(self, command: Command) -> None:
        """Wait until a command has ended well.

        Raises:
            Stuck: it does not.
        """
        code = command.wait(LONGEST_SECONDS)
        if code != 0:
            raise Stuck(f"`orch {' '.join(command.words)}` returned exit code {code}: {command.text.strip()[-400:]}")

    def finishes(self) -> None:
        """Wait until all jobs and sweeps are finished in the store.

        Raises:
            Stuck: they do not finish.
        """
        wait_for(self._is_finished, LONGEST_SECONDS, "a sweep without a terminal to finish")

    def _is_finished(self) -> bool:
        time.sleep(1.0)
        sweeps = self.cluster.store.sweep_statuses()
        return len(self.cluster.store.finished()) == self.watch.jobs and set(sweeps) == {"FINISHED"}

    def resume(self) -> None:
        """Resume the sweep, and wait for its end."""
        self.watch.expect(True)
        self.ends(self.cluster.type("resume", NAME))

    # -- moments ------------------------------------------------------------------------------------------------

    def busy_node(self, epochs: int = 3) -> Ray:
        """Wait until a node has trained some epochs of a job that is no pre-training, and return the node."""
        found: list[Ray] = []

        def look() -> bool:
            found.extend(node for node in self.cluster.nodes.values() if node.host.alive and self._trains(node, epochs))
            return bool(found)

        wait_for(look, 240.0, f"a node to train {epochs} epochs")
        return found[0]

    def _trains(self, node: Ray, epochs: int) -> bool:
        for log in self.cluster.logs(node.host.name):
            text = log.read_text(errors="replace")
            count = len(EPOCH_DONE.findall(text))
            if "categories" not in text.split("\n")[0] and epochs <= count < 25 and "finished" not in text:
                return True
        return False

    def epochs(self) -> int:
        """Return the number of epochs that were trained up to now."""
        return epochs_trained(self.cluster.logs())

    def lasts(self, seconds: float) -> None:
        """Wait while an outage lasts."""
        time.sleep(seconds * self.scale)

    @contextmanager
    def without(self, service: Service, seconds: float, *, stopped: bool = False) -> Iterator[None]:
        """Take a service away for some seconds; what is done meanwhile counts.

        Args:
            service: to take away.
            seconds: how long.
            stopped: stop it as its operator would, rather than kill it.
        """
        until = time.monotonic() + seconds * self.scale
        service.stop() if stopped else service.kill()
        yield
        time.sleep(max(0.0, until - time.monotonic()))
        service.start()
        service.wait()


# -- what happens ------------------------------------------------------------------------------------------------


def worker_killed(act: Act) -> None:
    """A worker's process is killed."""
    sweep = act.sweep()
    node = act.busy_node()
    act.cluster.workers(node.host)[0].kill()
    act.ends(sweep)


def node_killed(act: Act) -> None:
    """A node goes for good, with its disk."""
    sweep = act.sweep()
    act.busy_node().host.kill()
    act.ends(sweep)


def node_cut_off(act: Act) -> None:
    """A node is cut off from the network for two minutes, and comes back."""
    sweep = act.sweep()
    node = act.busy_node()
    node.host.cut()
    logs = act.cluster.logs(node.host.name)
    before = epochs_trained(logs)
    act.lasts(120)
    unheard = epochs_trained(logs) - before
    node.host.rejoin()
    act.ends(sweep)
    if sum(act.watch.attempts.values()) > act.watch.jobs:  # another node went on with the job
        act.in_vain = unheard
        act.notes.append(f"{unheard} epochs trained in vain while cut off")


def node_frozen(act: Act) -> None:
    """A node stands still for a minute, and goes on."""
    sweep = act.sweep()
    node = act.busy_node()
    node.host.freeze()
    act.lasts(60)
    node.host.thaw()
    act.ends(sweep)


def node_drained(act: Act) -> None:
    """Ray is told that a node will be taken away in 20 seconds, and then it is."""
    sweep = act.sweep()
    node = act.busy_node()
    drain(act.cluster, node)
    time.sleep(DRAIN_SECONDS)
    node.host.kill()
    act.ends(sweep)


def drain(cluster: Cluster, node: Ray) -> None:
    """Tell Ray that a node will be taken away in DRAIN_SECONDS."""
    node.host.run(
        ["ray", "drain-node", f"--address=head:{RAY_PORT}", "--reason=DRAIN_NODE_REASON_PREEMPTION",
         "--reason-message=taken away", f"--deadline-remaining-seconds={DRAIN_SECONDS}"],
        cluster.environment,
    )  # fmt: skip


def node_joins(act: Act) -> None:
    """A sweep that runs on one node gets a second one."""
    sweep = act.sweep()
    act.busy_node()
    new = act.cluster.add_node()
    act.cluster.wait_for_nodes()
    joined = time.monotonic()
    wait_for(lambda: act.cluster.workers(new.host), 60.0, "the new node to get a worker")
    act.notes.append(f"new node used {time.monotonic() - joined:.0f} s after it joined")
    act.ends(sweep)


def starts_from_zero(act: Act) -> None:
    """The cluster has no node for jobs when the sweep starts."""
    sweep = act.sweep()
    time.sleep(25 * max(act.scale, 0.5))
    if sweep.ended() is not None:
        raise Stuck(f"the sweep ended without nodes (exit code {sweep.ended()}): {sweep.text.strip()[-400:]}")
    code, text = act.cluster.say("status", NAME)
    act.notes.append(f"status without nodes ({code}): {text.strip().splitlines()[-1:]}")
    act.cluster.add_node()
    act.cluster.add_node()
    act.ends(sweep)


def too_large(act: Act) -> None:
    """Jobs need more CPUs than any node has: refused with the numbers. Then the sweep runs as it should."""
    needs = "resources: {by_backbone: {alexnet: {cpus_per_worker: 2}}}\n"
    file = act.cluster.write(short_sweep(NAME) + needs, "/tmp/large.yaml")
    code, text = act.cluster.say("sweep", file, seconds=120)
    if code != 5 or "worker of 2 CPUs" not in text or not re.search(r"the cluster has \d machines? of 1 CPU", text):
        raise Stuck(f"expected a refusal (exit code 5) with the numbers, got {code}: {text.strip()[-600:]}")
    act.notes.append(text.strip().splitlines()[-1])
    act.ends(act.sweep())


def head_restarted(act: Act) -> None:
    """Ray's head is killed, and started again after some seconds; the nodes join it anew."""
    sweep = act.sweep()
    act.busy_node()
    act.cluster.head.kill()
    act.lasts(15)
    act.cluster.head.start()
    act.ends(sweep)


def tracking_killed(act: Act) -> None:
    """The MLflow server is killed for a minute."""
    sweep = act.sweep()
    act.busy_node()
    with act.without(act.cluster.mlflow, 60):
        pass
    act.ends(sweep)


def database_stopped(act: Act) -> None:
    """PostgreSQL is stopped for half a minute."""
    sweep = act.sweep()
    act.busy_node()
    with act.without(act.cluster.postgres, 30, stopped=True):
        pass
    act.ends(sweep)


def objects_gone(act: Act) -> None:
    """The object store is away for a minute and a half."""
    sweep = act.sweep()
    act.busy_node()
    with act.without(act.cluster.objects, 90):
        pass
    act.ends(sweep)


def two_sweeps(act: Act) -> None:
    """Two sweeps at once share two CPUs."""
    texts = [short_sweep(f"sweep-{category[:3]}", [category]) for category in CATEGORIES]
    files = [act.cluster.write(text, f"/tmp/{number}.yaml") for number, text in enumerate(texts)]
    sweeps = [act.cluster.type("sweep", file) for file in files]
    act.watch.expect(True)
    for sweep in sweeps:
        act.ends(sweep)


def submitter_killed(act: Act) -> None:
    """A machine outside the cluster submits the sweep, and is killed."""
    _submit(act).kill()
    act.finishes()


def detached_driver_killed(act: Act) -> None:
    """The driver of a submitted sweep is killed."""
    _submit(act)
    act.busy_node()
    drivers = [process for process in act.cluster.head.host.processes("drive") if "--once" in
               process.cmdline()]  # fmt: skip
    if not drivers:
        raise Stuck("no process drives the sweep in the cluster")
    drivers[0].kill()
    act.finishes()


def _submit(act: Act) -> Host:
    """Submit the sweep from a machine without a node of Ray and return that machine."""
    laptop = act.cluster.network.add("laptop")
    act.cluster.write(short_sweep(NAME), host=laptop)
    command = act.cluster.type("sweep", act.file, "--detach", host=laptop)
    act.ends(command)
    act.notes.append(f"submitted in {time.monotonic() - command.began:.0f} s")
    act.watch.expect(True)
    return laptop


def tracking_asks_for_a_password(act: Act) -> None:
    """MLflow asks for a password: a wrong one is refused in one line, and with the right one the sweep runs."""
    refused = act.cluster.type("sweep", act.file, MLFLOW_TRACKING_PASSWORD="wrong")
    code = refused.wait(120)
    lines = refused.text.strip().splitlines()
    if code != 4 or len(lines) != 1 or "password" not in lines[0]:
        raise Stuck(f"expected exit code 4 and one line about the password, got {code}: {refused.text[-600:]}")
    act.notes.append(lines[0])
    act.ends(act.sweep())


def data_on_one_node(act: Act) -> None:
    """The photographs lie on one of two nodes and nowhere else: the other one is no place for these jobs."""
    having, lacking = act.cluster.nodes.values()
    lacking.has_data = False
    for host in (act.cluster.desk, having.host):
        write_photographs(host.disk / "photographs")
    act.ends(act.sweep(ORCH_DATA_ROOT=DATA_ROOT))
    if epochs_trained(act.cluster.logs(lacking.host.name)):
        raise Stuck(f"{lacking.host.name} has trained without the photographs")


def data_pushed(act: Act) -> None:
    """One of two nodes has the photographs; they were pushed to the object store, and the other one pulls them."""
    having, lacking = act.cluster.nodes.values()
    for host in (act.cluster.desk, having.host):
        write_photographs(host.disk / "photographs")
    _push(act)
    act.ends(act.sweep(ORCH_DATA_ROOT=DATA_ROOT))
    pulled = {node.host.name: _pulled_sets(node.host) for node in (having, lacking)}
    act.notes.append(f"sets pulled: {pulled}")
    if pulled[having.host.name] or not pulled[lacking.host.name]:
        raise Stuck(f"{lacking.host.name} alone had to pull prepared photographs; pulled: {pulled}")
    if not epochs_trained(act.cluster.logs(lacking.host.name)):
        raise Stuck(f"{lacking.host.name} has trained nothing")


def data_pushed_late(act: Act) -> None:
    """No node has the photographs, and the sweep says what to type; once that is typed, both nodes pull them."""
    write_photographs(act.cluster.desk.disk / "photographs")
    sweep = act.sweep(ORCH_DATA_ROOT=DATA_ROOT)
    act.watch.expect(False)
    wait_for(lambda: "Run: orch data push voc_part" in sweep.text, 120.0, "the sweep to say that data are to be pushed")
    _push(act)
    pushed = time.monotonic()
    nodes = act.cluster.nodes.values()
    wait_for(lambda: any(_pulled_sets(node.host) for node in nodes), 60.0, "a node to pull the photographs")
    act.notes.append(f"pulled {time.monotonic() - pushed:.0f} s after the push")
    act.watch.expect(True)
    act.ends(sweep)


def _push(act: Act) -> None:
    """Push the photographs of the desk to the object store."""
    words = ("data", "push", "voc_part", "--data-root", DATA_ROOT, "--size", str(INPUT_SIZE))
    act.ends(act.cluster.type(*words))


def _pulled_sets(host: Host) -> int:
    return len(list((host.disk / "orch/cache/image-sets").glob("*/pulled.json")))


# -- a pause in each state of the cluster -----------------------------------------------------------------------

Leave = Callable[[], None]


class State(NamedTuple):
    """A state of the cluster in which a sweep is paused."""

    name: str
    enter: Callable[[Cluster, Ray], Leave]
    """Brings the cluster into the state, given the node that trains, and returns what ends the state."""
    restarts: int = 0
    """Most attempts that it ends, and that begin anew before the sweep hears of the pause."""
    interrupts: bool = False
    """Whether Ctrl-C stops the sweep, because a request could not be stored."""


def _nothing() -> None: ...


def _kill_worker(cluster: Cluster, node: Ray) -> Leave:
    cluster.workers(node.host)[0].kill()
    return _nothing


def _kill_node(cluster: Cluster, node: Ray) -> Leave:
    node.host.kill()
    return _nothing


def _kill_all_nodes(cluster: Cluster, node: Ray) -> Leave:
    for each in cluster.nodes.values():
        each.host.kill()

    def leave() -> None:
        cluster.add_node()
        cluster.wait_for_nodes()

    return leave


def _cut_node(cluster: Cluster, node: Ray) -> Leave:
    node.host.cut()
    return node.host.rejoin


def _freeze_node(cluster: Cluster, node: Ray) -> Leave:
    node.host.freeze()
    return node.host.thaw


def _kill_head(cluster: Cluster, node: Ray) -> Leave:
    cluster.head.kill()

    def leave() -> None:
        cluster.head.start()
        cluster.wait_for_nodes()

    return leave


def _take_away(choose: Callable[[Cluster], Service]) -> Callable[[Cluster, Ray], Leave]:
    def enter(cluster: Cluster, node: Ray) -> Leave:
        service = choose(cluster)
        service.kill()

        def leave() -> None:
            service.start()
            service.wait()

        return leave

    return enter


STATES = (
    State("nothing wrong", lambda cluster, node: _nothing),
    State("worker killed", _kill_worker, restarts=1),
    State("node killed", _kill_node, restarts=1),
    State("no nodes", _kill_all_nodes),
    State("node cut off", _cut_node),
    State("node frozen", _freeze_node),
    State("head away", _kill_head),
    State("head gone", _kill_head, interrupts=True),
    State("tracking away", _take_away(lambda cluster: cluster.mlflow), interrupts=True),
    State("database away", _take_away(lambda cluster: cluster.postgres), interrupts=True),
    State("objects away", _take_away(lambda cluster: cluster.objects)),
)


def pauses_in(state: State) -> Callable[[Act], None]:
    """Return the scenario that pauses in a state, ends the state and resumes."""

    def play(act: Act) -> None:
        sweep = act.sweep()
        leave = state.enter(act.cluster, act.busy_node())
        act.watch.expect(False)
        began = time.monotonic()
        if state.interrupts:
            sweep.send(signal.SIGINT)
        else:
            act.cluster.type("pause", NAME)
        wait_for(lambda: sweep.ended() is not None or STOPS in sweep.text, HEAR_SECONDS, "the sweep to hear of it")
        heard = time.monotonic()
        sweep.wait(PAUSE_SECONDS)
        act.notes.append(
            f"paused in {time.monotonic() - began:.0f} s, {time.monotonic() - heard:.1f} s after it was heard "
            f"(exit code {sweep.ended()})"
        )
        leave()
        act.resume()

    play.__doc__ = f"The sweep is {'interrupted' if state.interrupts else 'paused'} with {state.name}, and resumed."
    return play


class Scenario(NamedTuple):
    """A scenario, and the cluster it needs."""

    name: str
    play: Callable[[Act], None]
    nodes: int = NODES
    most_lost: int = 10
    """Most epochs that may be trained twice."""
    more_attempts: int = 0
    """Most attempts beyond one per job."""
    sweeps: int = 1
    authenticates: bool = False
    images: str = "generated"
    """Images of its jobs: `generated` or `photographs`."""
    short: bool = False
    """Whether it is part of the short version."""

    @property
    def what(self) -> str:
        """What happens, in a sentence."""
        return (self.play.__doc__ or "").strip()


SCENARIOS = (
    Scenario("worker killed", worker_killed, more_attempts=1, short=True),
    Scenario("node killed", node_killed, more_attempts=1, short=True),
    Scenario("node cut off", node_cut_off, more_attempts=1),
    Scenario("node frozen", node_frozen, more_attempts=1),
    Scenario("node drained", node_drained, most_lost=0, more_attempts=1),
    Scenario("node joins", node_joins, nodes=1),
    Scenario("from zero", starts_from_zero, nodes=0),
    Scenario("too large", too_large),
    Scenario("head restarted", head_restarted, more_attempts=2),
    Scenario("tracking killed", tracking_killed),
    Scenario("database stopped", database_stopped),
    Scenario("objects gone", objects_gone),
    Scenario("data on one node", data_on_one_node, most_lost=0, more_attempts=1, images="photographs"),
    Scenario("data pushed", data_pushed, most_lost=0, images="photographs"),
    Scenario("data pushed late", data_pushed_late, most_lost=0, more_attempts=2, images="photographs"),
    Scenario("two sweeps", two_sweeps, sweeps=2),
    Scenario("submitter killed", submitter_killed),
    Scenario("driver killed", detached_driver_killed, more_attempts=2),
    Scenario("password", tracking_asks_for_a_password, authenticates=True),
    *(Scenario(f"pause, {state.name}", pauses_in(state), more_attempts=NODES + state.restarts) for state in STATES),
)
