"""The slim graph out of a dbt manifest, and the questions a plan asks of it.

Nodes stand in the order of their unique ids and are spoken of by their position there; a set of nodes
is a Python int used as a bitset (bit i = node i), because two closures of thousands of nodes then meet in
one machine-speed `&`. Parents and children are dbt's own `parent_map` and `child_map` (facts/dbt.md §3.2),
so tests, metrics, semantic models, saved queries and exposures are nodes like any other: an exposure
on a metric reaches the models behind it through the semantic model without a special case.

A broken manifest never hangs or recurses: ids that are named as parents but described nowhere become
nodes with `known=False`, and the members of a cycle count as upstream of each other (`cycles` names them).
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import chain
from typing import Any, NamedTuple

Json = Any

TEST_TYPES = frozenset({"test", "unit_test"})
DATA_TYPES = frozenset({"model", "seed", "snapshot", "source", "function"})
"""What holds or makes data. Everything else is a view on it (metrics, exposures) or a check of it (tests)."""


class LineageNode(NamedTuple):
    """One node of the manifest. A named tuple, not a dataclass: 45,000 are made per big manifest, 3x faster.

    `path` is `original_file_path`, relative to its package; `patch_path` the YAML file that describes it.
    `config` is the node's configuration as compact JSON without empty values and hooks (see `config_of`).
    `version` is set for versioned models only. `known` is False for an id that others name as their parent
    and nothing describes: a model of another project, or a hole in a broken manifest.
    """

    unique_id: str
    name: str
    resource_type: str
    package_name: str = ""
    fqn: tuple[str, ...] = ()
    path: str = ""
    patch_path: str = ""
    tags: tuple[str, ...] = ()
    group: str | None = None
    version: str | None = None
    source_name: str = ""
    config: str = "{}"
    known: bool = True


@dataclass(frozen=True, slots=True)
class Exposure:
    """A dbt exposure: what somebody declared to stand on the project's data (facts/dbt.md §3.2).

    `url` is free text and only ever a hint. `meta` is `config.meta`, else `meta`. `depends_on` are the
    direct parents' ids. `description` is cut to 500 characters.
    """

    unique_id: str
    name: str
    package_name: str
    label: str | None = None
    type: str | None = None
    url: str | None = None
    owner_name: str | None = None
    owner_email: str | None = None
    maturity: str | None = None
    description: str | None = None
    tags: tuple[str, ...] = ()
    meta: Mapping[str, Json] = field(default_factory=dict)
    depends_on: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Group:
    """A dbt group and whom to tell about it."""

    name: str
    owner_name: str | None = None
    owner_email: str | None = None


@dataclass(frozen=True, slots=True)
class ManifestInfo:
    """Which manifest a lineage came from. `generated_at` is the artifact's own text, UTC."""

    schema_version: int = 0
    dbt_version: str = ""
    project_name: str = ""
    adapter_type: str = ""
    invocation_id: str = ""
    generated_at: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Lineage:
    """The slim graph. Make one with `build`; equal input in any order gives equal nodes and edges.

    `parents[i]` and `children[i]` are sorted positions in `nodes`; `index` finds a position by id.
    `notes` are sentences about what was odd in the manifest. `memo` holds answers worked out before
    (closures, indexes of the selection) and is no part of the value.
    """

    info: ManifestInfo
    nodes: tuple[LineageNode, ...]
    parents: tuple[tuple[int, ...], ...]
    exposures: tuple[Exposure, ...] = ()
    groups: tuple[Group, ...] = ()
    notes: tuple[str, ...] = ()
    index: Mapping[str, int] = field(init=False, repr=False)
    children: tuple[tuple[int, ...], ...] = field(init=False, repr=False)
    memo: dict[Any, Any] = field(init=False, repr=False, default_factory=dict)

    def __post_init__(self) -> None:
        below: dict[int, list[int]] = {}
        for child, parents in enumerate(self.parents):
            for parent in parents:
                if parent in below:
                    below[parent].append(child)
                else:
                    below[parent] = [child]
        children: list[tuple[int, ...]] = [()] * len(self.nodes)
        for parent, found in below.items():
            children[parent] = tuple(found)
        object.__setattr__(self, "children", tuple(children))
        object.__setattr__(self, "index", {node[0]: i for i, node in enumerate(self.nodes)})

    @property
    def missing(self) -> tuple[str, ...]:
        """Ids named as parents that nothing in the manifest describes."""
        return tuple(node.unique_id for node in self.nodes if not node.known)

    def get(self, unique_id: str) -> LineageNode | None:
        """The node with this id, or None."""
        position = self.index.get(unique_id)
        return None if position is None else self.nodes[position]


def build(
    nodes: Iterable[LineageNode],
    parents: Mapping[str, Sequence[str]],
    *,
    info: ManifestInfo | None = None,
    exposures: Iterable[Exposure] = (),
    groups: Iterable[Group] = (),
    notes: Iterable[str] = (),
) -> Lineage:
    """A lineage from nodes and their parents' ids, whatever their order. Edges of unknown children are dropped."""
    by_id = {node[0]: node for node in nodes}
    try:
        ids, edges = _edges(by_id, parents)
    except KeyError:  # rare: somebody's parent is described nowhere; it may have parents of its own
        new: Iterable[str] = list(by_id)
        while new:
            new = set(chain.from_iterable(parents.get(one, ()) for one in new)).difference(by_id)
            by_id |= {stranger: _stranger(stranger) for stranger in new}
        ids, edges = _edges(by_id, parents)
    return Lineage(
        info=info or ManifestInfo(),
        nodes=tuple([by_id[unique_id] for unique_id in ids]),
        parents=tuple(edges),
        exposures=tuple(sorted(exposures, key=lambda exposure: exposure.unique_id)),
        groups=tuple(sorted(groups, key=lambda group: group.name)),
        notes=tuple(notes),
    )


def _edges(
    by_id: Mapping[str, LineageNode], parents: Mapping[str, Sequence[str]]
) -> tuple[list[str], list[tuple[int, ...]]]:
    ids = sorted(by_id)
    position = {unique_id: i for i, unique_id in enumerate(ids)}
    edges: list[tuple[int, ...]] = []
    for unique_id in ids:
        above = parents.get(unique_id)
        if not above:
            edges.append(())
        elif len(above) == 1:  # most nodes are tests with one parent, and this loop is a third of `build`
            edges.append((position[above[0]],))
        else:
            edges.append(tuple(sorted({position[parent] for parent in above})))
    return ids, edges


def _stranger(unique_id: str) -> LineageNode:
    kind, _, rest = unique_id.partition(".")
    package, _, name = rest.partition(".")
    return LineageNode(unique_id, name or rest or kind, kind, package, known=False)


@lru_cache(maxsize=8192)
def config_of(text: str) -> Mapping[str, Json]:
    """The configuration behind `LineageNode.config`. Shared and cached: read it, do not change it."""
    value = json.loads(text)
    return value if isinstance(value, dict) else {}


def severity(node: LineageNode) -> str:
    """A test's severity in lower case, `error` unless the project says otherwise."""
    word = config_of(node.config).get("severity")
    return word.lower() if isinstance(word, str) and word else "error"


def mask_of(lineage: Lineage, ids: Iterable[str]) -> int:
    """The bitset of these ids; ids the lineage does not know are left out (see `unknown`)."""
    return mask_at(_positions(lineage, ids))


def mask_at(positions: Iterable[int]) -> int:
    """The bitset with these bits set."""
    mask = bytearray(max(positions := set(positions), default=0) // 8 + 1)
    for position in positions:
        mask[position >> 3] |= 1 << (position & 7)
    return int.from_bytes(mask, "little")


def ids_of(lineage: Lineage, mask: int) -> tuple[str, ...]:
    """The ids of a bitset, in the lineage's order."""
    nodes = lineage.nodes
    return tuple(nodes[i].unique_id for i in bits(mask))


def bits(mask: int) -> list[int]:
    """The positions of the set bits, ascending."""
    found = []
    digits = f"{mask:b}"[::-1]
    at = digits.find("1")
    while at >= 0:
        found.append(at)
        at = digits.find("1", at + 1)
    return found


def unknown(lineage: Lineage, ids: Iterable[str]) -> tuple[str, ...]:
    """Those of `ids` the lineage has no node for, sorted: what a caller should report."""
    return tuple(sorted(set(ids).difference(lineage.index)))


def _positions(lineage: Lineage, ids: Iterable[str]) -> set[int]:
    index = lineage.index
    return {index[unique_id] for unique_id in ids if unique_id in index}


def reach(edges: Sequence[tuple[int, ...]], start: Iterable[int], depth: int | None = None) -> set[int]:
    """What is reached from `start` along `edges` in 1 to `depth` steps (any number when None).

    A start node is in the answer only if another start node, or a cycle, leads to it.
    """
    found: set[int] = set()
    layer = set(start)
    steps = 0
    while layer and (depth is None or steps < depth):
        layer = set(chain.from_iterable(edges[i] for i in layer)).difference(found)
        found |= layer
        steps += 1
    return found


def upstream(lineage: Lineage, ids: Iterable[str]) -> frozenset[str]:
    """These ids and everything above them. Unknown ids are left out."""
    start = _positions(lineage, ids)
    return frozenset(lineage.nodes[i].unique_id for i in start | reach(lineage.parents, start))


def downstream(lineage: Lineage, ids: Iterable[str]) -> frozenset[str]:
    """These ids and everything below them, tests and exposures included. Unknown ids are left out."""
    start = _positions(lineage, ids)
    return frozenset(lineage.nodes[i].unique_id for i in start | reach(lineage.children, start))


def attached_tests(lineage: Lineage, ids: Iterable[str]) -> tuple[str, ...]:
    """The tests and unit tests attached to these very nodes, in the lineage's order."""
    below = set(chain.from_iterable(lineage.children[i] for i in _positions(lineage, ids)))
    return tuple(lineage.nodes[i].unique_id for i in sorted(below) if lineage.nodes[i].resource_type in TEST_TYPES)


def under_test_mask(lineage: Lineage, test_ids: Iterable[str]) -> int:
    """The nodes that these tests look at: a test counts for a dashboard when this meets its upstream mask."""
    return mask_at(chain.from_iterable(lineage.parents[i] for i in _positions(lineage, test_ids)))


def upstream_mask(lineage: Lineage, ids: Iterable[str]) -> int:
    """The bitset of these ids and everything above them. For many sets use `upstream_masks`."""
    (mask,) = upstream_masks(lineage, [ids])
    return mask


def upstream_masks(lineage: Lineage, targets: Sequence[Iterable[str]]) -> tuple[int, ...]:
    """For each set of ids the bitset of them and everything above, all in one sweep; answers are remembered.

    Ask for all dashboards at once: the sweep walks the graph once in topological order and forgets
    a node's bitset as soon as its last child has used it, so 2,000 closures cost little more than one.
    """
    wanted = [frozenset(_positions(lineage, ids)) for ids in targets]
    known: dict[frozenset[int], int] = lineage.memo.setdefault("closures", {})
    new = list(set(wanted).difference(known))
    if new:
        known.update(zip(new, _sweep(lineage, new), strict=True))
    return tuple([known[positions] for positions in wanted])


def _union(masks: Iterable[int]) -> int:
    total = 0
    for mask in masks:
        total |= mask
    return total


def _sweep(lineage: Lineage, targets: Sequence[frozenset[int]]) -> list[int]:
    wanted_by: dict[int, list[int]] = {}
    for number, positions in enumerate(targets):
        for i in positions:
            wanted_by.setdefault(i, []).append(number)
    results = [0] * len(targets)
    for i, mask in _closures(lineage, wanted_by.keys()):
        for number in wanted_by.get(i, ()):
            results[number] |= mask
    return results


def _closures(lineage: Lineage, below: Iterable[int]) -> Iterator[tuple[int, int]]:
    """Every node at or above `below`, parents first, with the bitset of itself and all above it."""
    parents = lineage.parents
    order, in_cycle = _order(lineage)
    start = set(below)
    needed = start | reach(parents, start)
    uses = Counter(chain.from_iterable(parents[i] for i in needed))
    masks: dict[int, int] = {}
    for i in order:
        if i not in needed:
            continue
        if i in in_cycle:  # kept to the end, and worked out for all its members at the first of them
            ring = in_cycle[i]
            if i not in masks:
                mask = _union(chain((1 << k for k in ring), (masks.get(p, 0) for k in ring for p in parents[k])))
                masks.update(dict.fromkeys(ring, mask))
            yield i, masks[i]
            continue
        mask = 1 << i
        for p in parents[i]:
            mask |= masks[p]
            uses[p] -= 1
            if not uses[p] and p not in in_cycle:
                del masks[p]
        if i in uses:
            masks[i] = mask
        yield i, mask


def cycles(lineage: Lineage) -> tuple[tuple[str, ...], ...]:
    """The sets of nodes that depend on themselves, each sorted; empty for every manifest dbt itself accepts."""
    _, in_cycle = _order(lineage)
    # By identity: hashing a group once for each of its members would be quadratic.
    groups = {id(group): group for group in in_cycle.values()}.values()
    return tuple(tuple(lineage.nodes[i].unique_id for i in group) for group in sorted(groups))


def _order(lineage: Lineage) -> tuple[list[int], dict[int, tuple[int, ...]]]:
    """A topological order, and for each member of a cycle all members of it. Worked out once."""
    known = lineage.memo.get("order")
    if known is not None:
        order, in_cycle = known
        return order, in_cycle
    waiting = [len(above) for above in lineage.parents]
    order = [i for i, count in enumerate(waiting) if not count]
    for i in order:  # grows while it is walked
        for child in lineage.children[i]:
            waiting[child] -= 1
            if not waiting[child]:
                order.append(child)
    in_cycle = {}
    if len(order) < len(waiting):
        for group in _components(lineage.parents, [i for i, count in enumerate(waiting) if count]):
            order.extend(group)
            if len(group) > 1 or group[0] in lineage.parents[group[0]]:
                in_cycle.update(dict.fromkeys(group, group))
    lineage.memo["order"] = (order, in_cycle)
    return order, in_cycle


def _components(edges: Sequence[tuple[int, ...]], among: Sequence[int]) -> list[tuple[int, ...]]:
    """Tarjan's strongly connected components among these nodes, without recursion; what they point at first."""
    inside = set(among)
    number: dict[int, int] = {}
    low: dict[int, int] = {}
    stack: list[int] = []
    on_stack: set[int] = set()
    groups: list[tuple[int, ...]] = []
    for root in among:
        if root in number:
            continue
        work = [(root, iter(edges[root]))]
        number[root] = low[root] = len(number)
        stack.append(root)
        on_stack.add(root)
        while work:
            node, rest = work[-1]
            target = next((t for t in rest if t in inside and (t not in number or t in on_stack)), None)
            if target is None:
                work.pop()
                if work:
                    low[work[-1][0]] = min(low[work[-1][0]], low[node])
                if low[node] == number[node]:
                    group = [stack.pop()]
                    while group[-1] != node:
                        group.append(stack.pop())
                    on_stack.difference_update(group)
                    groups.append(tuple(sorted(group)))
            elif target in number:
                low[node] = min(low[node], number[target])
            else:
                number[target] = low[target] = len(number)
                stack.append(target)
                on_stack.add(target)
                work.append((target, iter(edges[target])))
    return groups


def path(lineage: Lineage, from_id: str, to_id: str) -> tuple[str, ...]:
    """The shortest way down from one node to another, both ends included; empty when there is none.

    Of several shortest ways always the same one is taken, so explanations do not flicker.
    """
    start, goal = lineage.index.get(from_id), lineage.index.get(to_id)
    if start is None or goal is None:
        return ()
    below: dict[int, int] = {goal: goal}
    layer = [goal]
    while layer and start not in below:
        upper = []
        for node in layer:
            for parent in lineage.parents[node]:
                if parent not in below:
                    below[parent] = node
                    upper.append(parent)
        layer = upper
    if start not in below:
        return ()
    way = [start]
    while way[-1] != goal:
        way.append(below[way[-1]])
    return tuple(lineage.nodes[i].unique_id for i in way)
