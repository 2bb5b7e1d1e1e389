"""The slim graph: building it, closures as bitsets, paths, cycles, holes."""

import random
import sys
import time
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from downriver.core.lineage import (
    Exposure,
    Group,
    LineageNode,
    ManifestInfo,
    attached_tests,
    bits,
    build,
    config_of,
    cycles,
    downstream,
    ids_of,
    mask_of,
    path,
    reach,
    severity,
    under_test_mask,
    unknown,
    upstream,
    upstream_mask,
    upstream_masks,
)


def node(unique_id, **more):
    kind, package, name = unique_id.split(".", 2)
    return LineageNode(unique_id, name, kind, package, **more)


def graph(edges, extra=()):
    """A lineage from {child: [parents]}; every id mentioned as a child or in `extra` gets a node."""
    return build([node(one) for one in {*edges, *extra}], edges)


SHOP = {
    "source.p.raw_orders": [],
    "source.p.raw_payments": [],
    "model.p.stg_orders": ["source.p.raw_orders"],
    "model.p.stg_payments": ["source.p.raw_payments"],
    "model.p.orders": ["model.p.stg_orders", "model.p.stg_payments"],
    "model.p.lonely": [],
    "semantic_model.p.orders": ["model.p.orders"],
    "metric.p.revenue": ["semantic_model.p.orders"],
    "exposure.p.board": ["metric.p.revenue"],
    "test.p.not_null": ["model.p.stg_payments"],
    "test.p.relation": ["model.p.orders", "model.p.stg_orders"],
    "unit_test.p.orders.adds_up": ["model.p.orders"],
}


@pytest.fixture
def shop():
    return graph(SHOP)


def test_nodes_stand_in_the_order_of_their_ids_whatever_the_input_order(shop):
    shuffled = list(SHOP.items())
    random.Random(3).shuffle(shuffled)
    other = graph({child: parents[::-1] for child, parents in shuffled})
    assert [n.unique_id for n in shop.nodes] == sorted(SHOP)
    assert (other.nodes, other.parents, other.children) == (shop.nodes, shop.parents, shop.children)


def test_upstream_holds_the_ids_themselves_and_all_above(shop):
    assert upstream(shop, ["model.p.orders"]) == {
        "model.p.orders",
        "model.p.stg_orders",
        "model.p.stg_payments",
        "source.p.raw_orders",
        "source.p.raw_payments",
    }
    assert upstream(shop, ["model.p.lonely"]) == {"model.p.lonely"}
    assert upstream(shop, []) == frozenset()


def test_downstream_holds_tests_and_exposures(shop):
    assert downstream(shop, ["model.p.stg_payments"]) == {
        "model.p.stg_payments",
        "model.p.orders",
        "semantic_model.p.orders",
        "metric.p.revenue",
        "exposure.p.board",
        "test.p.not_null",
        "test.p.relation",
        "unit_test.p.orders.adds_up",
    }


def test_an_exposure_on_a_metric_reaches_models_and_sources(shop):
    above = upstream(shop, ["exposure.p.board"])
    assert {"semantic_model.p.orders", "model.p.orders", "source.p.raw_payments"} <= above
    assert "model.p.lonely" not in above


def test_masks_and_ids_are_two_views_of_one_set(shop):
    some = ["model.p.orders", "exposure.p.board", "unit_test.p.orders.adds_up"]
    assert ids_of(shop, mask_of(shop, some)) == tuple(sorted(some))
    assert mask_of(shop, []) == 0
    assert ids_of(shop, 0) == ()
    assert ids_of(shop, upstream_mask(shop, ["exposure.p.board"])) == tuple(
        sorted(upstream(shop, ["exposure.p.board"]))
    )


@given(st.sets(st.integers(0, 3000)))
def test_bits_gives_the_positions_back(positions):
    assert bits(sum(1 << i for i in positions)) == sorted(positions)


def test_tests_are_those_attached_to_the_very_nodes(shop):
    assert attached_tests(shop, ["model.p.orders"]) == ("test.p.relation", "unit_test.p.orders.adds_up")
    assert attached_tests(shop, ["model.p.stg_payments", "model.p.stg_orders"]) == (
        "test.p.not_null",
        "test.p.relation",
    )
    assert attached_tests(shop, ["model.p.lonely", "model.p.who"]) == ()


def test_a_test_counts_where_what_it_looks_at_meets_the_upstream(shop):
    looked_at = under_test_mask(shop, ["test.p.relation"])
    assert ids_of(shop, looked_at) == ("model.p.orders", "model.p.stg_orders")
    assert looked_at & upstream_mask(shop, ["exposure.p.board"])
    assert not looked_at & upstream_mask(shop, ["model.p.lonely"])


def test_unknown_ids_are_left_out_and_can_be_reported(shop):
    assert upstream(shop, ["model.p.who", "model.p.lonely"]) == {"model.p.lonely"}
    assert unknown(shop, ["model.p.who", "model.p.lonely", "model.p.absent"]) == ("model.p.absent", "model.p.who")
    assert shop.get("model.p.who") is None
    assert shop.get("model.p.lonely").name == "lonely"


def test_a_parent_that_nothing_describes_becomes_a_node_and_is_named():
    lineage = graph({"model.p.mart": ["model.other.hidden", "model.p.stg"], "model.p.stg": []})
    assert lineage.missing == ("model.other.hidden",)
    stranger = lineage.get("model.other.hidden")
    assert (stranger.resource_type, stranger.package_name, stranger.name) == ("model", "other", "hidden")
    assert not stranger.known
    assert "model.other.hidden" in upstream(lineage, ["model.p.mart"])
    assert path(lineage, "model.other.hidden", "model.p.mart") == ("model.other.hidden", "model.p.mart")


def test_unknown_parents_keep_what_is_known_of_their_own_parents():
    lineage = build(
        [node("model.p.mart")], {"model.p.mart": ["model.q.a"], "model.q.a": ["model.q.b"], "x.y.z": ["w"]}
    )
    assert lineage.missing == ("model.q.a", "model.q.b")
    assert path(lineage, "model.q.b", "model.p.mart") == ("model.q.b", "model.q.a", "model.p.mart")


def test_edges_of_children_without_a_node_are_dropped():
    lineage = build([node("model.p.a")], {"operation.p.hook": ["model.p.gone"], "model.p.a": []})
    assert [n.unique_id for n in lineage.nodes] == ["model.p.a"]
    assert lineage.missing == ()


@pytest.mark.parametrize("odd", ["x", "model", "model.p", "", "...", "model..x"])
def test_an_odd_id_is_no_reason_to_fail(odd):
    lineage = graph({"model.p.a": [odd]})
    assert upstream(lineage, ["model.p.a"]) == {"model.p.a", odd}


def test_path_is_the_shortest_and_always_the_same(shop):
    assert path(shop, "source.p.raw_payments", "exposure.p.board") == (
        "source.p.raw_payments",
        "model.p.stg_payments",
        "model.p.orders",
        "semantic_model.p.orders",
        "metric.p.revenue",
        "exposure.p.board",
    )
    assert path(shop, "model.p.orders", "model.p.orders") == ("model.p.orders",)
    assert path(shop, "exposure.p.board", "model.p.orders") == ()
    assert path(shop, "model.p.lonely", "exposure.p.board") == ()
    assert path(shop, "model.p.who", "exposure.p.board") == ()
    ways = graph(
        {"model.p.z": ["model.p.b", "model.p.c"], "model.p.b": ["model.p.a"], "model.p.c": ["model.p.a"]},
        ["model.p.a"],
    )
    assert path(ways, "model.p.a", "model.p.z") == ("model.p.a", "model.p.b", "model.p.z")


def test_members_of_a_cycle_are_upstream_of_each_other():
    lineage = graph(
        {
            "model.p.a": ["model.p.c", "source.p.raw"],
            "model.p.b": ["model.p.a"],
            "model.p.c": ["model.p.b"],
            "model.p.below": ["model.p.c"],
            "model.p.self": ["model.p.self"],
            "source.p.raw": [],
        }
    )
    ring = {"model.p.a", "model.p.b", "model.p.c"}
    assert cycles(lineage) == (("model.p.a", "model.p.b", "model.p.c"), ("model.p.self",))
    for member in ring:
        assert upstream(lineage, [member]) == ring | {"source.p.raw"}
        assert set(ids_of(lineage, upstream_mask(lineage, [member]))) == ring | {"source.p.raw"}
    assert set(ids_of(lineage, upstream_mask(lineage, ["model.p.below"]))) == ring | {"source.p.raw", "model.p.below"}
    assert path(lineage, "model.p.b", "model.p.a") == ("model.p.b", "model.p.c", "model.p.a")
    assert cycles(graph(SHOP)) == ()


def test_a_long_chain_or_ring_neither_recurses_nor_hangs():
    size = 30_000
    assert size > sys.getrecursionlimit() * 10
    ids = [f"model.p.m{i:05}" for i in range(size)]
    chain = graph({ids[i]: ids[i - 1 : i] for i in range(size)})
    ring = graph({ids[i]: [ids[i - 1]] for i in range(size)})
    start = time.perf_counter()
    assert upstream_mask(chain, [ids[-1]]).bit_count() == size
    assert len(path(chain, ids[0], ids[-1])) == size
    assert upstream_mask(ring, [ids[7]]).bit_count() == size
    assert [len(group) for group in cycles(ring)] == [size]
    # A quadratic walk would take minutes here.
    assert time.perf_counter() - start < 20


EDGES = st.lists(st.tuples(st.integers(0, 24), st.integers(0, 24)), max_size=70)


def _naive_upstream(edges, start):
    found, todo = set(), [start]
    while todo:
        one = todo.pop()
        if one not in found:
            found.add(one)
            todo.extend(edges.get(one, ()))
    return found


@settings(max_examples=300)
@given(EDGES, st.booleans(), st.randoms(use_true_random=False))
def test_closures_agree_with_a_plain_search(pairs, acyclic, shuffler):
    """On any graph, cycles and self-loops included, in any input order, asked at once or one by one."""
    edges = {f"model.p.{i}": [] for i in range(25)}
    for child, parent in pairs:
        if not acyclic or parent < child:
            edges[f"model.p.{child}"].append(f"model.p.{parent}")
    ids = list(edges)
    shuffler.shuffle(ids)
    lineage = build([node(one) for one in ids], {one: edges[one] for one in ids})
    targets = ids[:7]
    at_once = upstream_masks(lineage, [[one] for one in targets])
    for one, mask in zip(targets, at_once, strict=True):
        expected = _naive_upstream(edges, one)
        assert set(ids_of(lineage, mask)) == expected
        assert upstream(lineage, [one]) == expected
        assert upstream_mask(lineage, [one]) == mask
        assert all(one in downstream(lineage, [above]) for above in expected)
    both = upstream_mask(lineage, ids[:3])
    assert both == at_once[0] | at_once[1] | at_once[2]
    assert bool(cycles(lineage)) == any(
        one in _naive_upstream(edges, parent) for one in edges for parent in edges[one]
    )


@given(EDGES)
def test_a_path_is_real_and_exists_exactly_where_upstream_says_so(pairs):
    edges = {f"model.p.{i}": [] for i in range(25)}
    for child, parent in pairs:
        edges[f"model.p.{child}"].append(f"model.p.{parent}")
    lineage = graph(edges)
    for goal in ("model.p.0", "model.p.24"):
        above = upstream(lineage, [goal])
        for start in edges:
            way = path(lineage, start, goal)
            assert bool(way) == (start in above)
            if way:
                assert (way[0], way[-1]) == (start, goal)
                assert all(upper in edges[lower] for upper, lower in pairwise(way))


def test_reach_counts_steps(shop):
    orders = {shop.index["model.p.orders"]}

    def names(found):
        return {shop.nodes[i].name for i in found}

    assert names(reach(shop.parents, orders, 1)) == {"stg_orders", "stg_payments"}
    assert names(reach(shop.parents, orders, 0)) == set()
    assert names(reach(shop.parents, orders)) == {"stg_orders", "stg_payments", "raw_orders", "raw_payments"}


def test_configuration_and_severity():
    assert config_of('{"materialized":"view"}') == {"materialized": "view"}
    assert config_of("[]") == {}
    assert severity(node("test.p.t", config='{"severity":"WARN"}')) == "warn"
    assert severity(node("test.p.t")) == "error"
    assert severity(node("test.p.t", config='{"severity":7}')) == "error"


def test_exposures_and_groups_are_sorted_too():
    lineage = build(
        [],
        {},
        info=ManifestInfo(project_name="p"),
        exposures=[Exposure("exposure.p.b", "b", "p"), Exposure("exposure.p.a", "a", "p")],
        groups=[Group("y"), Group("x", "X", "x@p.example")],
        notes=["odd"],
    )
    assert [exposure.name for exposure in lineage.exposures] == ["a", "b"]
    assert [group.name for group in lineage.groups] == ["x", "y"]
    assert lineage.notes == ("odd",)
