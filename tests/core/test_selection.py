"""Selection: the same answers as a real dbt, and errors that point at the character."""

import gzip
import json
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from downriver.core.errors import BadInput
from downriver.core.lineage import LineageNode, ManifestInfo, build
from downriver.core.selection import SelectionError, Selector, Term, count_matches, parse, select
from downriver.sources.artifacts import decode_manifest

DATA = Path(__file__).parent / "data"
EXPECTED = json.loads((DATA / "selection_expected.json").read_text())


@pytest.fixture(scope="module")
def lineage():
    return decode_manifest(gzip.decompress((DATA / "selection_manifest.json.gz").read_bytes()))


def test_the_table_asks_for_enough():
    assert len(EXPECTED) > 130
    assert sum(bool(case["ids"]) for case in EXPECTED) > 120


@pytest.mark.parametrize("case", EXPECTED, ids=lambda case: f"{case['select']} - {case['exclude']}")
def test_selects_what_dbt_selects(lineage, case):
    exclude = parse(case["exclude"]) if case["exclude"] else None
    assert sorted(select(lineage, parse(case["select"]), exclude)) == case["ids"]


def test_a_list_is_a_union(lineage):
    together = select(lineage, parse(["orders", "tag:hourly source:support.*"]))
    assert together == select(lineage, parse("orders tag:hourly source:support.*"))
    assert together == frozenset().union(
        *(select(lineage, parse(one)) for one in ("orders", "tag:hourly", "source:support.*"))
    )


def test_the_tree_is_what_was_written():
    assert parse("2+orders+,tag:a  @b") == Selector(
        (
            (
                Term("2+orders+", "fqn", "orders", parents=True, parents_depth=2, children=True, position=0),
                Term("tag:a", "tag", "a", position=10),
            ),
            (Term("@b", "fqn", "b", childrens_parents=True, position=17),),
        )
    )
    assert parse("config.meta.tier:gold").terms[0].arguments == ("meta", "tier")
    assert parse("models/x").terms[0].method == "path"
    assert parse("x.SQL").terms[0].method == "file"
    assert str(parse(["a  b,c", "+d"])) == "a b,c +d"
    assert hash(parse("a")) == hash(parse("a"))


@pytest.mark.parametrize(
    ("text", "position", "says", "suggestion"),
    [
        ("tga:finance", 0, "no method `tga`", "tag"),
        ("orders +soruce:shop", 8, "no method `soruce`", "source"),
        ("2+expozure:x", 2, "no method `expozure`", "exposure"),
        ("state:modified", 0, "finished run", None),
        ("a result:success+", 2, "by themselves", None),
        ("source_status:fresher+", 0, "sources: fresh", None),
        ("tag:", 4, "value is missing", None),
        ("tag: finance", 4, "value is missing", None),
        ("+", 1, "value is missing", None),
        ("orders +", 8, "value is missing", None),
        ("@", 1, "value is missing", None),
        ("orders,", 6, "comma stands between", None),
        ("a,,b", 1, "comma stands between", None),
        (",a", 0, "comma stands between", None),
        ("a, b", 1, "comma stands between", None),
        ("@orders+", 7, "already takes everything below", None),
        ("orders+customers", 6, "blank between two names", None),
        ("x ++orders", 3, "blank between two names", None),
        ("+@orders", 1, "blank between two names", None),
        ("résumé x y:", 9, "no method `y`", None),
        ("config:table", 6, "needs a key", None),
        ("config.:table", 6, "needs a key", None),
        ("tag.daily:x", 3, "takes no key", None),
        ("source:a.b.c.d", 7, "at most package.source.table", None),
        ("exposure:a.b.c", 9, "at most package.exposure_name", None),
        ("resource_type:modle", 14, "no resource type `modle`", "model"),
        ("", 0, "empty", None),
        ("   ", 0, "empty", None),
    ],
)
def test_errors_point_at_the_character(text, position, says, suggestion):
    with pytest.raises(SelectionError) as caught:
        parse(text)
    error = caught.value
    assert (error.position, error.suggestion) == (position, suggestion)
    assert says in error.problem
    lines = str(error).split("\n")
    assert lines[-2:] == ["  " + text, "  " + " " * position + "^"]
    assert suggestion is None or f"did you mean `{suggestion}`" in lines[0]
    assert isinstance(error, BadInput)


def test_an_empty_list_is_an_error_and_a_list_shows_the_item_that_is_wrong():
    with pytest.raises(SelectionError, match="empty"):
        parse([])
    with pytest.raises(SelectionError) as caught:
        parse(["orders", "tag:"])
    assert caught.value.text == "tag:"


def test_counts_tell_which_term_finds_nothing(lineage):
    counts = count_matches(lineage, parse("+orders tag:nobody,tag:daily source:shop.nothing+"))
    assert [(one.term.text, one.matched) for one in counts] == [
        ("+orders", 2),
        ("tag:nobody", 0),
        ("tag:daily", 5),
        ("source:shop.nothing+", 0),
    ]
    assert counts[0].selected > counts[0].matched


def test_ids_that_nothing_describes_are_never_selected():
    lineage = build([LineageNode("model.p.a", "a", "model", "p", ("p", "a"))], {"model.p.a": ["model.q.hidden"]})
    for text in ("+a", "@a", "hidden", "package:q", "*", "resource_type:model+"):
        assert select(lineage, parse(text)) <= {"model.p.a"}


def _node(name, **more):
    return LineageNode(
        f"model.p.{name}", name, "model", "p", ("p", "marts", name), f"models/marts/{name}.sql", **more
    )


def test_names_with_dots_are_split_as_dbt_does():
    lineage = build([_node("core.orders"), _node("other")], {})
    for text in ("core.orders", "marts.core.orders", "marts.core", "p.marts.core", "marts.core.*"):
        assert select(lineage, parse(text)) == {"model.p.core.orders"}, text
    for text in ("core", "orders", "marts.core.orders.more"):
        assert select(lineage, parse(text)) == frozenset(), text


def test_paths_of_windows_and_numbers_in_configurations():
    lineage = build(
        [_node("a")._replace(path="models\\marts\\a.sql"), _node("b", config='{"meta":{"level":1,"hot":false}}')], {}
    )
    assert select(lineage, parse("path:models/marts/a.sql file:a")) == {"model.p.a"}
    # dbt compares text with text: a number never equals it, a boolean does.
    assert select(lineage, parse("config.meta.level:1")) == frozenset()
    assert select(lineage, parse("config.meta.hot:False")) == {"model.p.b"}
    assert select(lineage, parse("config.meta.hot.deeper:x")) == frozenset()


def test_without_a_project_name_this_is_a_package_like_any_other():
    assert select(build([_node("a")], {}), parse("package:this")) == frozenset()
    named = build([_node("a")], {}, info=ManifestInfo(project_name="p"))
    assert select(named, parse("package:this")) == {"model.p.a"}


@given(st.text(max_size=60))
@example("[")
@example("path:[")
@example("path:**/[!a-")
@example("tag:[z-a]")
@example("path:[z-a]/x")
@example("path:[\\]/x")
@example("path:///")
@example("path:/abs/*")
@example("9" * 50 + "+a")
def test_any_text_is_read_or_refused_with_a_place(lineage, text):
    try:
        selector = parse(text)
    except SelectionError as refused:
        place = refused.position
        selector = None
    if selector is None:
        assert 0 <= place <= len(text)
        return
    assert select(lineage, selector) <= frozenset(lineage.index)
    assert str(parse(str(selector))) == str(selector)
