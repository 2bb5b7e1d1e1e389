"""dbt's artifacts decoded: real ones, old shapes, odd shapes, and what is refused with a sentence."""

import gc
import gzip
import json
import mmap
import tracemalloc
from collections import Counter
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from downriver.core.errors import BadInput
from downriver.core.lineage import Group, attached_tests, config_of, severity, upstream
from downriver.sources.artifacts import (
    decode_manifest,
    decode_manifest_file,
    decode_run_results,
    decode_run_results_file,
    decode_sources,
    decode_sources_file,
    from_slim,
    slim_bytes,
)

CASES = Path(__file__).parents[1] / "data" / "artifacts"


def manifest_bytes(case="success/1-build"):
    return gzip.decompress((CASES / case / "manifest.json.gz").read_bytes())


def results(case):
    return decode_run_results_file(CASES / case / "run_results.json")


@pytest.fixture(scope="module")
def manifest():
    return json.loads(manifest_bytes())


def decode(document, **more):
    return decode_manifest(json.dumps(document).encode(), **more)


def copy(document, *without, version=12):
    """A deep copy without some top-level keys, called another schema version."""
    copied = json.loads(json.dumps({key: value for key, value in document.items() if key not in without}))
    copied["metadata"]["dbt_schema_version"] = f"https://schemas.getdbt.com/dbt/manifest/v{version}.json"
    return copied


def edges(lineage):
    return {
        n.unique_id: {lineage.nodes[p].unique_id for p in lineage.parents[i]} for i, n in enumerate(lineage.nodes)
    }


# ------------------------------------------------------------------------------- real manifests


def test_a_real_manifest():
    lineage = decode_manifest(manifest_bytes())
    info = lineage.info
    assert (info.schema_version, info.dbt_version, info.project_name, info.adapter_type) == (
        12,
        "1.11.16",
        "jaffle",
        "duckdb",
    )
    assert info.invocation_id == results("success/1-build").invocation_id
    assert Counter(n.resource_type for n in lineage.nodes) == {
        "model": 10,
        "test": 21,
        "unit_test": 1,
        "source": 4,
        "seed": 1,
        "snapshot": 1,
        "exposure": 4,
        "metric": 1,
        "semantic_model": 1,
        "saved_query": 1,
    }
    assert lineage.missing == ()
    assert lineage.notes == ()
    assert lineage.groups == (Group("finance", "Finance", "finance@jaffle.example"),)

    model = lineage.get("model.jaffle.revenue_daily")
    assert model.fqn == ("jaffle", "marts", "finance", "revenue_daily")
    assert model.path == "models/marts/finance/revenue_daily.sql"
    assert model.patch_path == "models/marts/finance/_finance.yml"
    assert (model.tags, model.group, model.version) == (("daily", "finance"), "finance", None)
    assert config_of(model.config)["meta"] == {"tier": "gold"}
    assert config_of(model.config)["materialized"] == "table"
    assert not {"pre-hook", "post-hook"} & set(config_of(model.config))
    warns = "test.jaffle.accepted_values_stg_orders_status__placed__shipped__completed__returned"
    (status,) = [n for n in lineage.nodes if n.unique_id.startswith(warns)]
    assert severity(status) == "warn"
    assert severity(lineage.get("test.jaffle.assert_payments_are_positive")) == "error"
    assert lineage.get("source.jaffle.shop.orders").source_name == "shop"


def test_a_real_exposure():
    lineage = decode_manifest(manifest_bytes())
    weekly = next(one for one in lineage.exposures if one.name == "weekly_revenue")
    assert weekly.unique_id == "exposure.jaffle.weekly_revenue"
    assert (weekly.label, weekly.type, weekly.maturity) == ("Weekly revenue", "dashboard", "high")
    assert weekly.url == "https://app.mode.com/acme/reports/9d2da37fa91e"
    assert (weekly.owner_name, weekly.owner_email) == ("Finance", "finance@jaffle.example")
    assert weekly.description == "Turnover by store and week, read by everybody on Monday morning."
    assert weekly.meta == {
        "downriver": {"connection": "mode", "report": "9d2da37fa91e", "parameters": {"store": "all"}}
    }
    assert weekly.depends_on == ("model.jaffle.revenue_daily", "model.jaffle.store_targets")
    assert weekly.tags == ("finance",)


def test_real_edges_are_those_of_the_parent_map(manifest):
    lineage = decode(manifest)
    assert edges(lineage) == {child: set(parents) for child, parents in manifest["parent_map"].items()}
    assert set(attached_tests(lineage, ["model.jaffle.stg_payments"])) == {
        one for one in manifest["child_map"]["model.jaffle.stg_payments"] if one.startswith(("test.", "unit_test."))
    }
    assert upstream(lineage, ["exposure.jaffle.revenue_target"]) >= {
        "metric.jaffle.revenue",
        "semantic_model.jaffle.orders",
        "model.jaffle.orders",
        "source.jaffle.shop.payments",
    }


@pytest.mark.parametrize("path", sorted(CASES.glob("*/*/manifest.json.gz")), ids=lambda path: path.parent.name)
def test_every_case_decodes_without_a_note(path):
    lineage = decode_manifest(gzip.decompress(path.read_bytes()))
    assert (lineage.notes, lineage.missing, len(lineage.exposures)) == ((), (), 4)


# ------------------------------------------------------------------------------- other versions


def test_maps_that_are_absent_are_made_from_what_is_there(manifest):
    whole = edges(decode(manifest))
    assert edges(decode(copy(manifest, "child_map"))) == whole
    assert edges(decode(copy(manifest, "parent_map"))) == whole
    assert edges(decode(copy(manifest, "parent_map", "child_map"))) == whole
    assert decode(copy(manifest, "parent_map", "child_map")).notes == ()


def test_a_hole_in_the_maps_is_filled_from_depends_on(manifest):
    holed = copy(manifest)
    for child in ("model.jaffle.orders", "metric.jaffle.revenue", "exposure.jaffle.weekly_revenue"):
        del holed["parent_map"][child]
        for children in holed["child_map"].values():
            if child in children:
                children.remove(child)
    assert edges(decode(holed)) == edges(decode(manifest))


# Top-level keys by the schema version that brought them (dbt 1.5, 1.6, 1.7, 1.8).
SINCE = {"groups": 9, "semantic_models": 10, "saved_queries": 11, "unit_tests": 12, "functions": 12}


@pytest.mark.parametrize("version", range(4, 13))
def test_older_schemas(manifest, version):
    """What a version did not have yet is taken away; exposures and the way up to the sources stay the same."""
    old = copy(manifest, *(key for key, since in SINCE.items() if version < since), version=version)
    if version < 10:  # before semantic models a metric stood on its model
        old["parent_map"] = {
            child: parents for child, parents in old["parent_map"].items() if not child.startswith("semantic_model.")
        }
        old["parent_map"]["metric.jaffle.revenue"] = ["model.jaffle.orders"]
    for exposure in old["exposures"].values() if version < 12 else ():
        exposure["config"] = {"enabled": True}  # until 1.10 it held nothing else
        del exposure["label"]
    for node in [*old["nodes"].values(), *old["sources"].values()] if version < 9 else ():
        for key in ("group", "version", "patch_path"):
            node.pop(key, None)
            node["config"].pop(key, None)
    del old["metadata"]["project_name"]
    lineage = decode(old)
    assert lineage.info.schema_version == version
    assert (lineage.notes, lineage.missing) == ((), ())
    weekly = next(one for one in lineage.exposures if one.name == "weekly_revenue")
    assert weekly.meta["downriver"]["report"] == "9d2da37fa91e"
    assert weekly.tags == ("finance",)
    assert lineage.get("model.jaffle.revenue_daily").group == ("finance" if version >= 9 else None)
    above = upstream(lineage, ["exposure.jaffle.revenue_target"])
    assert {"model.jaffle.orders", "source.jaffle.shop.orders"} < above
    assert ("semantic_model.jaffle.orders" in above) == (version >= 10)


@pytest.mark.parametrize(("version", "word"), [(13, "newer"), (99, "newer"), (3, "older")])
def test_a_schema_we_do_not_know_is_read_and_noted(manifest, version, word):
    future = copy(manifest, version=version)
    future["brand_new"] = {"deep": [{"er": 1}]}
    for node in future["nodes"].values():
        node["hologram"] = [None, {"a": 1.5e300}]
    lineage = decode(future)
    assert edges(lineage) == edges(decode(manifest))
    (note,) = lineage.notes
    assert word in note
    assert f"v{version}" in note


def test_versioned_models_hooks_and_unit_test_tags():
    document = {
        "metadata": {"dbt_schema_version": "https://schemas.getdbt.com/dbt/manifest/v12.json"},
        "nodes": {
            "model.p.m.v2": {"name": "m", "version": 2, "fqn": ["p", "m", "v2"], "config": {}},
            "model.p.m.v3": {"name": "m", "version": "3", "tags": "single", "config": {"group": "g"}},
            "operation.p.p-on-run-end-0": {"name": "p-on-run-end-0"},
        },
        "unit_tests": {"unit_test.p.m.u": {"name": "u", "config": {"tags": ["quick"]}}},
        "parent_map": {"model.p.m.v3": ["model.p.m.v2"], "operation.p.p-on-run-end-0": ["model.p.m.v3"]},
    }
    lineage = decode(document)
    assert [n.unique_id for n in lineage.nodes] == ["model.p.m.v2", "model.p.m.v3", "unit_test.p.m.u"]
    v2, v3, unit = lineage.nodes
    assert (v2.version, v2.resource_type, v2.package_name) == ("2", "model", "p")
    assert (v3.version, v3.tags, v3.group, v3.fqn) == ("3", ("single",), "g", ("p", "m"))
    assert unit.tags == ("quick",)


def test_parents_of_another_project_are_kept_as_unknown_nodes(manifest):
    mesh = copy(manifest)
    mesh["parent_map"]["model.jaffle.orders"].append("model.platform.currencies")
    mesh["child_map"]["model.platform.currencies"] = ["model.jaffle.orders"]
    lineage = decode(mesh)
    assert lineage.missing == ("model.platform.currencies",)
    assert "model.platform.currencies" in upstream(lineage, ["exposure.jaffle.weekly_revenue"])


# ------------------------------------------------------------------------------- odd and hostile


def test_one_odd_node_is_a_note_and_not_a_failure(manifest):
    odd = copy(manifest)
    odd["nodes"]["model.jaffle.orders"]["fqn"] = {"not": "a list"}
    odd["nodes"]["model.jaffle.customers"] = "nonsense"
    lineage = decode(odd)
    assert edges(lineage) == edges(decode(manifest))
    assert lineage.get("model.jaffle.orders").name == "orders"
    assert lineage.get("model.jaffle.revenue_daily").tags == ("daily", "finance")
    assert sorted(note.split(" ")[0] for note in lineage.notes) == [
        "manifest.json",
        "model.jaffle.customers",
        "model.jaffle.orders",
    ]


def test_odd_maps_are_read_as_far_as_they_go(manifest):
    odd = copy(manifest)
    odd["parent_map"]["model.jaffle.orders"] = [None, "model.jaffle.stg_orders", 7]
    odd["parent_map"]["model.jaffle.customers"] = None
    lineage = decode(odd)
    assert edges(lineage)["model.jaffle.orders"] == {"model.jaffle.stg_orders"}
    assert edges(lineage)["model.jaffle.customers"] == set()
    assert edges(lineage)["model.jaffle.revenue_daily"] == {"model.jaffle.orders"}
    assert any("parent_map" in note for note in lineage.notes)


def test_hostile_exposures():
    exposures = {
        "exposure.p.empty": {},
        "exposure.p.nulls": dict.fromkeys(["name", "url", "owner", "meta", "config", "depends_on", "tags", "fqn"]),
        "exposure.p.wrong": {
            "name": 7,
            "url": ["x"],
            "owner": "me",
            "meta": [],
            "config": 1,
            "depends_on": "a",
            "tags": 3,
        },
        "exposure.p.long": {"url": "https://x/" + "y" * 10_000, "description": "z" * 10_000},
        "exposure.p.free": {"url": "reports.example.org", "owner": {"email": ["a@p.example", "b@p.example"]}},
        "exposure.p.both": {"meta": {"old": 1}, "config": {"meta": {"new": 2}, "tags": ["t"]}},
        "exposure.p.old": {"meta": {"old": 1}, "config": {"enabled": True}, "tags": ["t"]},
        "exposure.p.gone": {"depends_on": {"nodes": ["model.p.gone"]}},
        "exposure.p.broken": "<script>",
    }
    document = {"metadata": {"dbt_schema_version": "/dbt/manifest/v12"}, "exposures": exposures}
    lineage = decode(document)
    found = {one.name: one for one in lineage.exposures}
    assert set(found) == {"empty", "nulls", "wrong", "long", "free", "both", "old", "gone", "broken"}
    assert found["long"].url is None
    assert len(found["long"].description) == 500
    assert found["free"].url == "reports.example.org"
    assert found["free"].owner_email == "a@p.example"
    assert (found["both"].meta, found["both"].tags) == ({"new": 2}, ("t",))
    assert (found["old"].meta, found["old"].tags) == ({"old": 1}, ("t",))
    assert (found["wrong"].url, found["wrong"].meta) == ("x", {})
    assert lineage.missing == ("model.p.gone",)
    assert {note.split(" ")[0] for note in lineage.notes} == {"the", "exposure.p.broken"}


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "is empty"),
        (b"  \n", "is empty"),
        (b'{"metadata": {"dbt_sch', "is cut off"),
        (b"\x1f\x8b\x08\x00rubbish", "gzip-compressed"),
        (b"<!doctype html><title>Sign in</title>", "HTML"),
        (b"dbt was here", "not JSON"),
        (b"[1, 2]", "shape"),
        (b'{"metadata": 3}', "metadata.dbt_schema_version is ''"),
        (b"{}", "metadata.dbt_schema_version is ''"),
        (b'{"metadata": {"dbt_schema_version": "https://example.org/x.json"}}', "https://example.org/x.json"),
        (b'{"nodes": [], "metadata": {"dbt_schema_version": "/dbt/manifest/v12"}}', "shape"),
        (b'{"x": ' + b"[" * 100_000, "cannot be read|cut off|can be read"),
        (b'{"metadata": {"dbt_schema_version": "\xff"}}', "not JSON"),
        (b'{"x": NaN}', "not JSON"),
    ],
)
def test_what_is_refused_says_which_file_and_why(data, says):
    with pytest.raises(BadInput, match=says) as caught:
        decode_manifest(data, name="target/manifest.json")
    assert str(caught.value).startswith("target/manifest.json ")


def test_swapped_files_are_recognised():
    ran = (CASES / "success/1-build/run_results.json").read_bytes()
    fresh = (CASES / "fresh_sources/1-freshness/sources.json").read_bytes()
    with pytest.raises(BadInput, match=r"m\.json holds a run_results\.json, not a manifest\.json.*swapped"):
        decode_manifest(ran, name="m.json")
    with pytest.raises(BadInput, match=r"r\.json holds a manifest\.json, not a run_results\.json.*swapped"):
        decode_run_results(manifest_bytes(), name="r.json")
    with pytest.raises(BadInput, match=r"holds a sources\.json, not a run_results\.json"):
        decode_run_results(fresh)
    with pytest.raises(BadInput, match=r"holds a run_results\.json, not a sources\.json"):
        decode_sources(ran)


def test_the_cap_is_checked_before_anything_is_read(tmp_path):
    with pytest.raises(BadInput, match="more than the cap of 0 MiB"):
        decode_manifest(b"x" * 11, cap=10)
    sparse = tmp_path / "manifest.json"
    with sparse.open("wb") as file:
        file.truncate(600 * 1024 * 1024)
    with pytest.raises(BadInput, match=r"manifest\.json has 600 MiB, more than the cap of 512 MiB"):
        decode_manifest_file(sparse)


def test_files_that_are_absent_empty_or_not_files(tmp_path):
    with pytest.raises(BadInput, match="does not exist; run `dbt build` first"):
        decode_manifest_file(tmp_path / "manifest.json")
    empty = tmp_path / "run_results.json"
    empty.touch()
    with pytest.raises(BadInput, match=r"run_results\.json is empty"):
        decode_run_results_file(empty)
    with pytest.raises(BadInput, match="cannot be read"):
        decode_sources_file(tmp_path)
    cut = tmp_path / "cut.json"
    cut.write_bytes(manifest_bytes()[:-100])
    with pytest.raises(BadInput, match=r"cut\.json is cut off"):
        decode_manifest_file(cut)


def test_bytes_views_and_mapped_files_give_the_same(tmp_path):
    data = manifest_bytes()
    file = tmp_path / "manifest.json"
    file.write_bytes(data)
    want = slim_bytes(decode_manifest(data))
    assert slim_bytes(decode_manifest(memoryview(data))) == want
    assert slim_bytes(decode_manifest(bytearray(data))) == want
    assert slim_bytes(decode_manifest_file(file)) == want
    with file.open("rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        assert slim_bytes(decode_manifest(mapped)) == want
        # Leaving the `with` closes the map, which fails if the lineage still held a view of it.


def test_the_collector_is_left_as_it_was():
    assert gc.isenabled()
    decode_manifest(manifest_bytes())
    with pytest.raises(BadInput):
        decode_manifest(b"{")
    assert gc.isenabled()
    gc.disable()
    try:
        decode_manifest(manifest_bytes())
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_skipped_text_is_not_kept(manifest):
    """Ten megabytes of SQL in the file leave nothing in memory."""
    big = copy(manifest)
    big["nodes"]["model.jaffle.orders"]["compiled_code"] = "select 1 -- " + "x" * 10_000_000
    data = json.dumps(big).encode()
    tracemalloc.start()
    lineage = decode_manifest(data)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(lineage.nodes) == len(decode(manifest).nodes)
    assert peak < 2_000_000


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_any_damage_gives_a_lineage_or_a_bad_input(data):
    """Cut it anywhere, or put any JSON value in any place two levels down: never another exception."""
    whole = manifest_bytes("nothing/2-build")
    cut = data.draw(st.integers(0, len(whole) - 1))
    with pytest.raises(BadInput):
        decode_manifest(whole[:cut])
    document = json.loads(whole)
    section = data.draw(st.sampled_from(sorted(document)))
    value = data.draw(
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.text(),
            lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
            max_leaves=4,
        )
    )
    if isinstance(document[section], dict) and document[section] and data.draw(st.booleans()):
        document[section][data.draw(st.sampled_from(sorted(document[section])))] = value
    else:
        document[section] = value
    try:
        lineage = decode(document)
    except BadInput:
        return
    assert from_slim(slim_bytes(lineage)).nodes == lineage.nodes


@given(st.permutations(range(8)))
@example(list(range(8))[::-1])
def test_the_order_of_keys_does_not_matter(order):
    document = json.loads(manifest_bytes())
    keys = sorted(document)
    mixed = {keys[i]: document[keys[i]] for i in order} | document
    mixed["nodes"] = dict(sorted(document["nodes"].items(), key=lambda item: hash((item[0], order[0]))))
    mixed["parent_map"] = {child: parents[::-1] for child, parents in reversed(document["parent_map"].items())}
    assert slim_bytes(decode(mixed)) == slim_bytes(decode(document))


# ------------------------------------------------------------------------------- the slim form


def test_the_slim_form_gives_everything_back():
    lineage = decode_manifest(manifest_bytes())
    slim = slim_bytes(lineage)
    again = from_slim(slim)
    for name in ("info", "nodes", "parents", "children", "exposures", "groups", "notes", "index"):
        assert getattr(again, name) == getattr(lineage, name), name
    assert slim_bytes(again) == slim
    assert len(slim) < len(manifest_bytes()) / 4


@pytest.mark.parametrize(
    "damage", [lambda b: b[:-9], lambda b: b"", lambda b: b"{}", lambda b: b + b"x", lambda b: b"\x97\x63" + b[2:]]
)
def test_a_damaged_or_foreign_slim_form_is_refused(damage):
    with pytest.raises(BadInput, match="decode the manifest again"):
        from_slim(damage(slim_bytes(decode_manifest(manifest_bytes()))))


def test_a_slim_form_with_edges_to_nowhere_is_refused():
    parts = msgspec.msgpack.decode(slim_bytes(decode_manifest(manifest_bytes())))
    parts[3][0] = [999]
    with pytest.raises(BadInput, match="decode the manifest again"):
        from_slim(msgspec.msgpack.encode(parts))
