"""What one step of training on many processes sends and takes, from how a graph is cut, a program's plan and a machine.

Nothing is run here. Bytes are counted; times are those of moving them, between processes and in memory.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Machine:
    """One process of a cluster.

    bandwidth  bytes a second that it sends, while it receives as many
    latency    seconds a message takes besides
    edge, row  seconds to compute a step for an edge, and for an own node
    cores      how many cores all processes share, each on one thread; inf where each has its own
    copy, call seconds of the processor for a byte that is sent, and for an exchange; none where a card sends by itself
    """

    name: str
    bandwidth: float
    latency: float
    edge: float
    row: float
    cores: float = math.inf
    copy: float = 0.0
    call: float = 0.0


@dataclass(frozen=True)
class Cut:
    """What each process has: edges, own nodes, rows that it receives and sends in an exchange, and how many others it
    speaks to."""

    edges: Sequence[float]
    rows: Sequence[float]
    received: Sequence[float]
    sent: Sequence[float]
    peers: Sequence[int]


@dataclass(frozen=True)
class Plan:
    """A step of training.

    widths   bytes of a row in each exchange, also of gradients on their way back
    reduced  bytes of what is summed over all processes, such as gradients of parameters
    agreed   how often processes tell each other what they do
    """

    widths: Sequence[int]
    reduced: int
    agreed: int = 0


def sent(plan: Plan, cut: Cut) -> float:
    """Bytes of rows that all processes send."""
    return sum(plan.widths) * float(sum(cut.received))


def computing(plan: Plan, cut: Cut, machine: Machine) -> float:
    """Seconds of its processor that the busiest process takes for a step."""
    copied = machine.copy * sum(plan.widths)
    compute = max(
        machine.edge * edges + machine.row * rows + copied * max(received, sent_)
        for edges, rows, received, sent_ in zip(cut.edges, cut.rows, cut.received, cut.sent, strict=True)
    )
    return compute + (machine.call * (len(plan.widths) + plan.agreed) if len(cut.edges) > 1 else 0.0)


def seconds(plan: Plan, cut: Cut, machine: Machine) -> float:
    """Of a step on the wall: processes wait for the slowest, and compute nothing while they speak.

    What they compute takes as long as the busiest of them does, and no less than all of them together on the cores that
    they share. What the processor spends on a message is in the time of the message, which is that of all speaking at
    once.
    """
    busy = [machine.edge * edges + machine.row * rows for edges, rows in zip(cut.edges, cut.rows, strict=True)]
    most = max(max(a, b) for a, b in zip(cut.received, cut.sent, strict=True))
    messages = (len(plan.widths) + plan.agreed) * max(cut.peers) * machine.latency
    processes = len(cut.edges)
    ring = 2 * (processes - 1) / processes * plan.reduced / machine.bandwidth + 2 * (processes - 1) * machine.latency
    spoken = most * sum(plan.widths) / machine.bandwidth + messages + (ring if processes > 1 else 0.0)
    return max(*busy, sum(busy) / machine.cores) + spoken


@dataclass(frozen=True)
class Sizes:
    """A graph that is too large to be cut here: each edge counts in its direction. ``spread``: of the logarithm of a
    node's degree."""

    name: str
    nodes: float
    edges: float
    spread: float = 1.2


def by_hash(graph: Sizes, parts: int, samples: int = 4096) -> Cut:
    """What each process has, on average, of nodes that are owned by chance.

    A node with d edges out of it is read by each other process with the chance 1 - (1 - 1/p) ** d. Degrees are taken as
    log-normal, cut at one.
    """
    mean = graph.edges / graph.nodes
    middle = math.log(mean) - graph.spread**2 / 2
    law = statistics.NormalDist(middle, graph.spread)
    degrees = [math.exp(law.inv_cdf((k + 0.5) / samples)) for k in range(samples)]
    met = sum(-math.expm1(d * math.log1p(-1 / parts)) for d in degrees) / samples if parts > 1 else 0.0
    rows = graph.nodes / parts
    halo = graph.nodes * (1 - 1 / parts) * met
    return Cut(*([value] * parts for value in (graph.edges / parts, rows, halo, halo)), [parts - 1] * parts)


def shrunk(cut: Cut, factor: float) -> Cut:
    """The same with fewer rows between processes, as a better cut has."""
    return replace(cut, received=[factor * n for n in cut.received], sent=[factor * n for n in cut.sent])
