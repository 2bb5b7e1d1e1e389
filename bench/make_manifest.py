"""Write big dbt manifests of the shape dbt-core 1.11 writes, to measure with (facts/dbt.md §3.4).

Every node carries all the keys a real one has, because most of the time of a partial decode goes into skipping
them. The same size and seed give the same bytes.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PROJECT = "warehouse"
WORDS = ("order", "payment", "customer", "session", "account", "invoice", "product", "region", "channel", "refund")


@dataclass(frozen=True)
class Size:
    """How big. `code` and `columns` are per model: characters of SQL and described columns.

    `domains` are groups of models that depend on each other only; `reach` how far up a model looks for its
    parents, which sets how many nodes stand above an exposure.
    """

    name: str
    models: int
    tests: int
    sources: int
    exposures: int
    code: int
    columns: int
    source_columns: int
    domains: int = 20
    reach: int = 60
    compiled: bool = False


BIG = Size("70 MB", 2_300, 6_700, 9_900, 40, code=3_000, columns=24, source_columns=4, domains=12)
HUGE = Size("200 MB", 20_000, 20_000, 3_000, 2_000, code=1_000, columns=7, source_columns=6, reach=40, compiled=True)


def scaled(models: int) -> Size:
    """The huge one with fewer models, everything else in proportion: to see how time grows."""
    part = models / HUGE.models
    return Size(
        f"{models // 1000}k models",
        models,
        int(HUGE.tests * part),
        int(HUGE.sources * part),
        int(HUGE.exposures * part),
        code=HUGE.code,
        columns=HUGE.columns,
        source_columns=HUGE.source_columns,
        domains=max(1, int(HUGE.domains * part)),
        reach=HUGE.reach,
        compiled=True,
    )


def write_manifest(path: Path, size: Size) -> None:
    """Write the manifest of `size` to `path`, section by section."""
    maker = _Maker(size)
    with path.open("w", encoding="utf-8") as file:
        file.write('{"metadata": ' + json.dumps(_metadata()))
        for section, entries in maker.sections():
            file.write(f', "{section}": {{')
            for i, (key, value) in enumerate(entries):
                file.write((", " if i else "") + json.dumps(key) + ": " + json.dumps(value))
            file.write("}")
        for section in ("selectors", "disabled", "group_map", "saved_queries", "semantic_models", "unit_tests"):
            file.write(f', "{section}": {{}}')
        file.write("}")


class _Maker:
    def __init__(self, size: Size) -> None:
        self.size = size
        self.random = random.Random(7)
        self.parents: dict[str, list[str]] = {}
        per_domain = -(-size.models // size.domains)
        self.models = [
            f"model.{PROJECT}.{self._layer(i % per_domain, per_domain)}_{WORDS[i % len(WORDS)]}_{i}"
            for i in range(size.models)
        ]
        self.sources = [f"source.{PROJECT}.raw_{i % 40}.table_{i}" for i in range(size.sources)]
        for i, model in enumerate(self.models):
            self.parents[model] = self._pick_parents(i, i % per_domain)
        self.per_domain = per_domain

    @staticmethod
    def _layer(place: int, of: int) -> str:
        return "stg" if place < of * 0.25 else "int" if place < of * 0.6 else "fct"

    def _pick_parents(self, i: int, place: int) -> list[str]:
        if place < 4 or self.random.random() < 0.12:
            return sorted({self.random.choice(self.sources) for _ in range(2)})
        near = range(max(i - place, i - self.size.reach), i)
        return sorted({self.models[k] for k in self.random.choices(near, k=self.random.choice([1, 2, 2, 3]))})

    def sections(self) -> Iterator[tuple[str, Iterator[tuple[str, Any]]]]:
        yield "nodes", self._nodes()
        yield "sources", ((key, self._source(key)) for key in self.sources)
        yield "macros", ((f"macro.dbt.m{i}", _macro(i)) for i in range(700))
        yield "docs", iter([("doc.dbt.__overview__", {"block_contents": "x" * 2_000})])
        yield "exposures", self._exposures()
        yield "metrics", iter([])
        yield "groups", iter([])
        yield "parent_map", ((key, self.parents.get(key, [])) for key in [*self.parents, *self.sources])
        yield "child_map", self._child_map()

    def _nodes(self) -> Iterator[tuple[str, Any]]:
        for i, key in enumerate(self.models):
            yield key, self._model(i, key)
        for i in range(self.size.tests):
            on = self.random.choice(self.models)
            column = f"column_{i % 7}"
            name = f"{'unique' if i % 2 else 'not_null'}_{on.rsplit('.', 1)[-1]}_{column}"
            key = f"test.{PROJECT}.{name}.{hashlib.md5(f'{name}{i}'.encode()).hexdigest()[:10]}"
            self.parents[key] = [on]
            yield key, _test(key, name, on, column)

    def _model(self, i: int, key: str) -> dict[str, Any]:
        name = key.rsplit(".", 1)[-1]
        folder = ["marts", f"domain_{i // self.per_domain}", name.split("_", 1)[0]]
        sql = "/".join(["models", *folder, name + ".sql"])
        code = ("select " + ", ".join(f"column_{k} as {name}_{k}" for k in range(400)) + " from x")[: self.size.code]
        meta = {"owner": f"team_{i % 30}", "tier": "gold"} if i % 10 else {"owner": f"person_{i}", "pager": i}
        config = {**_config(), "tags": ["nightly"], "meta": meta, "materialized": "table"}
        made = {
            **_common(key, name, "model", sql, [PROJECT, *folder, name]),
            "config": config,
            "tags": ["nightly"],
            "meta": meta,
            "description": f"What is known of {name}. " * 6,
            "columns": {f"column_{k}": _column(f"column_{k}") for k in range(self.size.columns)},
            "patch_path": f"{PROJECT}://models/{folder[0]}/{folder[1]}/schema.yml",
            "unrendered_config": {"materialized": "table", "tags": ["nightly"], "meta": meta},
            "relation_name": f'"db"."analytics"."{name}"',
            "raw_code": code,
            "refs": [{"name": p.rsplit(".", 1)[-1], "package": None, "version": None} for p in self.parents[key]],
            "depends_on": {"macros": ["macro.dbt.m3", "macro.dbt.m17"], "nodes": self.parents[key]},
            "access": "protected",
            "primary_key": ["column_0"],
        }
        if self.size.compiled:
            made |= {"compiled": True, "compiled_code": code + code, "compiled_path": "target/compiled/" + sql}
        return made

    def _source(self, key: str) -> dict[str, Any]:
        raw, name = key.split(".")[2:]
        file = f"models/sources/{raw}.yml"
        return {
            **_common(key, name, "source", file, [PROJECT, "sources", raw, raw, name]),
            "source_name": raw,
            "source_description": "What the loader brings. " * 4,
            "loader": "loader",
            "identifier": name,
            "quoting": dict.fromkeys(["database", "schema", "identifier", "column"]),
            "loaded_at_field": "_loaded_at",
            "freshness": {
                "warn_after": {"count": 12, "period": "hour"},
                "error_after": {"count": 1, "period": "day"},
            },
            "columns": {f"column_{k}": _column(f"column_{k}") for k in range(self.size.source_columns)},
            "config": {"enabled": True, "event_time": None, "meta": {}, "tags": []},
            "source_meta": {},
            "relation_name": f'"db"."{raw}"."{name}"',
            "patch_path": None,
            "unrendered_config": {},
        }

    def _exposures(self) -> Iterator[tuple[str, Any]]:
        for i in range(self.size.exposures):
            key = f"exposure.{PROJECT}.board_{i}"
            domain = i % self.size.domains * self.per_domain
            last = range(domain + int(self.per_domain * 0.75), min(domain + self.per_domain, self.size.models))
            self.parents[key] = sorted({self.models[k] for k in self.random.choices(last, k=2)})
            meta = {"downriver": {"connection": "mode", "report": f"{i:012x}"}}
            yield (
                key,
                {
                    **_common(key, f"board_{i}", "exposure", "models/exposures.yml", [PROJECT, f"board_{i}"]),
                    "type": "dashboard",
                    "owner": {"name": "Team", "email": "team@warehouse.example"},
                    "label": f"Board {i}",
                    "maturity": "high",
                    "meta": meta,
                    "config": {"enabled": True, "tags": [], "meta": meta},
                    "url": f"https://app.mode.com/warehouse/reports/{i:012x}",
                    "depends_on": {"macros": [], "nodes": self.parents[key]},
                },
            )

    def _child_map(self) -> Iterator[tuple[str, Any]]:
        children: dict[str, list[str]] = {key: [] for key in [*self.parents, *self.sources]}
        for child, parents in self.parents.items():
            for parent in parents:
                children[parent].append(child)
        return iter(children.items())


def _metadata() -> dict[str, Any]:
    return {
        "dbt_schema_version": "https://schemas.getdbt.com/dbt/manifest/v12.json",
        "dbt_version": "1.11.16",
        "generated_at": "2026-09-01T05:00:00.000000Z",
        "invocation_id": "00000000-0000-4000-8000-000000000000",
        "env": {},
        "project_name": PROJECT,
        "adapter_type": "duckdb",
    }


def _common(key: str, name: str, kind: str, file: str, fqn: list[str]) -> dict[str, Any]:
    return {
        "database": "db",
        "schema": "analytics",
        "name": name,
        "resource_type": kind,
        "package_name": PROJECT,
        "path": file.removeprefix("models/"),
        "original_file_path": file,
        "unique_id": key,
        "fqn": fqn,
        "alias": name,
        "checksum": {"name": "sha256", "checksum": hashlib.sha256(key.encode()).hexdigest()},
        "tags": [],
        "description": "",
        "columns": {},
        "meta": {},
        "group": None,
        "docs": {"show": True, "node_color": None},
        "patch_path": None,
        "build_path": None,
        "unrendered_config": {},
        "created_at": 1795494265.941144,
        "relation_name": None,
        "raw_code": "",
        "doc_blocks": [],
        "language": "sql",
        "refs": [],
        "sources": [],
        "metrics": [],
        "functions": [],
        "depends_on": {"macros": [], "nodes": []},
        "compiled_path": None,
        "contract": {"enforced": False, "alias_types": True, "checksum": None},
    }


def _config() -> dict[str, Any]:
    return {
        "enabled": True,
        "alias": None,
        "schema": None,
        "database": None,
        "group": None,
        "static_analysis": None,
        "incremental_strategy": None,
        "batch_size": None,
        "lookback": 1,
        "begin": None,
        "persist_docs": {},
        "post-hook": [],
        "pre-hook": [],
        "quoting": {},
        "column_types": {},
        "full_refresh": None,
        "unique_key": None,
        "on_schema_change": "ignore",
        "on_configuration_change": "apply",
        "grants": {},
        "packages": [],
        "docs": {"show": True, "node_color": None},
        "contract": {"enforced": False, "alias_types": True},
        "event_time": None,
        "concurrent_batches": None,
        "access": "protected",
        "freshness": None,
    }


def _column(name: str) -> dict[str, Any]:
    return {
        "name": name,
        "description": f"What {name} holds, in a sentence.",
        "meta": {},
        "data_type": None,
        "constraints": [],
        "quote": None,
        "config": {"meta": {}, "tags": []},
        "tags": [],
        "granularity": None,
        "doc_blocks": [],
    }


def _test(key: str, name: str, on: str, column: str) -> dict[str, Any]:
    kind = name.partition("_" + on.rpartition(".")[2])[0]
    return {
        **_common(key, name, "test", "models/schema.yml", [PROJECT, "marts", name]),
        "config": {**_config(), "materialized": "test", "severity": "ERROR", "fail_calc": "count(*)", "meta": {}},
        "raw_code": f"{{{{ test_{kind}(**_dbt_generic_test_kwargs) }}}}",
        "depends_on": {"macros": [f"macro.dbt.test_{kind}"], "nodes": [on]},
        "column_name": column,
        "file_key_name": "models.schema",
        "attached_node": on,
        "test_metadata": {"name": kind, "kwargs": {"column_name": column, "model": "{{ get_where_subquery(x) }}"}},
    }


def _macro(i: int) -> dict[str, Any]:
    return {
        "name": f"m{i}",
        "resource_type": "macro",
        "package_name": "dbt",
        "path": f"macros/m{i}.sql",
        "original_file_path": f"macros/m{i}.sql",
        "unique_id": f"macro.dbt.m{i}",
        "macro_sql": "{% macro m() -%}\n  select 1\n{%- endmacro %}\n" * 24,
        "depends_on": {"macros": []},
        "description": "",
        "meta": {},
        "docs": {"show": True, "node_color": None},
        "arguments": [],
        "created_at": 1795494264.2327182,
    }
