"""dbt's `manifest.json` as a slim Lineage, and the Lineage as bytes for a cache (facts/dbt.md §3)."""

from __future__ import annotations

import mmap
from collections.abc import Iterable, Mapping
from pathlib import Path

import msgspec

from downriver.core.errors import BadInput
from downriver.core.lineage import Exposure, Group, Lineage, LineageNode, ManifestInfo, build, config_of
from downriver.core.model import Json
from downriver.sources.reading import (
    CAP_BYTES,
    Raw,
    as_mapping,
    as_object,
    as_text,
    as_words,
    check_kind,
    check_size,
    collector_paused,
    decode,
    from_file,
    unreadable,
)

_HOOKS = ("operation.", "sql operation.", "sql_operation.", "rpc.")
"""on-run-start and on-run-end hooks are in `nodes` too; nothing depends on them."""


class _Node(msgspec.Struct, gc=False):
    name: str | None = None
    resource_type: str | None = None
    package_name: str | None = None
    fqn: tuple[str, ...] | None = None
    original_file_path: str | None = None
    patch_path: str | None = None
    tags: tuple[str, ...] | str | None = None
    version: str | int | float | None = None
    source_name: str | None = None
    config: msgspec.Raw = msgspec.Raw(b"")


class _Exposure(msgspec.Struct, gc=False):
    name: Json = None
    package_name: Json = None
    fqn: Json = None
    original_file_path: Json = None
    label: Json = None
    type: Json = None
    url: Json = None
    owner: Json = None
    maturity: Json = None
    description: Json = None
    tags: Json = None
    meta: Json = None
    config: Json = None
    depends_on: Json = None


class _LooseManifest(msgspec.Struct, gc=False):
    """The same when something in it has an unexpected type: every entry is then looked at by itself."""

    metadata: Json = None
    nodes: dict[str, msgspec.Raw] | None = None
    sources: dict[str, msgspec.Raw] | None = None
    metrics: dict[str, msgspec.Raw] | None = None
    semantic_models: dict[str, msgspec.Raw] | None = None
    saved_queries: dict[str, msgspec.Raw] | None = None
    unit_tests: dict[str, msgspec.Raw] | None = None
    functions: dict[str, msgspec.Raw] | None = None
    exposures: dict[str, msgspec.Raw] | None = None
    groups: dict[str, msgspec.Raw] | None = None
    parent_map: msgspec.Raw = msgspec.Raw(b"")
    child_map: msgspec.Raw = msgspec.Raw(b"")


class _Manifest(msgspec.Struct, gc=False):
    metadata: dict[str, Json] | None = None
    nodes: dict[str, _Node] | None = None
    sources: dict[str, _Node] | None = None
    metrics: dict[str, _Node] | None = None
    semantic_models: dict[str, _Node] | None = None
    saved_queries: dict[str, _Node] | None = None
    unit_tests: dict[str, _Node] | None = None
    functions: dict[str, _Node] | None = None
    exposures: dict[str, msgspec.Raw] | None = None
    groups: dict[str, msgspec.Raw] | None = None
    parent_map: msgspec.Raw = msgspec.Raw(b"")
    child_map: msgspec.Raw = msgspec.Raw(b"")


_SECTIONS = ("nodes", "sources", "metrics", "semantic_models", "saved_queries", "unit_tests", "functions")


class _DependsOn(msgspec.Struct, gc=False):
    depends_on: Json = None


class _Edges(msgspec.Struct, gc=False):
    """The second look, taken only at manifests whose maps have holes."""

    nodes: dict[str, _DependsOn] | None = None
    sources: dict[str, _DependsOn] | None = None
    metrics: dict[str, _DependsOn] | None = None
    semantic_models: dict[str, _DependsOn] | None = None
    saved_queries: dict[str, _DependsOn] | None = None
    unit_tests: dict[str, _DependsOn] | None = None
    functions: dict[str, _DependsOn] | None = None


class _Slim(msgspec.Struct, array_like=True, gc=False):
    version: int
    info: ManifestInfo
    nodes: list[LineageNode]
    parents: list[tuple[int, ...]]
    exposures: list[Exposure]
    groups: list[Group]
    notes: list[str]


def decode_manifest_file(path: Path, *, cap: int = CAP_BYTES, name: str | None = None) -> Lineage:
    """The lineage of a manifest on disk, decoded from the mapped file. Raises BadInput."""
    return from_file(path, cap, lambda data: decode_manifest(data, name=name or path.name, cap=cap))


def decode_manifest(data: Raw, *, name: str = "manifest.json", cap: int = CAP_BYTES) -> Lineage:
    """The slim lineage of a manifest; nothing in it keeps `data` alive. Raises BadInput naming `name`."""
    check_size(len(data), cap, name)
    with collector_paused():
        return _decode_manifest(data, name)


def _decode_manifest(data: Raw, name: str) -> Lineage:
    notes: list[str] = []
    try:
        manifest: _Manifest | _LooseManifest = msgspec.json.decode(data, type=_Manifest)
    except msgspec.ValidationError as error:
        manifest = decode(data, _LooseManifest, name)
        notes.append(f"{name} has an unexpected shape, read entry by entry: {error}")
    except (ValueError, RecursionError) as error:
        raise unreadable(data, name, error) from error
    metadata = as_mapping(manifest.metadata)
    info = _info(metadata, check_kind(metadata, "manifest", name, notes))
    reader = _Reader(notes)
    nodes: list[LineageNode] = []
    for section in _SECTIONS:
        nodes += reader.nodes(getattr(manifest, section) or {})
    exposures = [reader.exposure(unique_id, raw) for unique_id, raw in (manifest.exposures or {}).items()]
    nodes += [_exposure_node(exposure, fqn, path) for exposure, fqn, path in exposures]
    groups = [reader.group(raw) for raw in (manifest.groups or {}).values()]
    if isinstance(data, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
        data.madvise(mmap.MADV_DONTNEED)  # what comes now reads the end of the file only: give the rest back
    parents = _parents(data, manifest, nodes, notes)
    for exposure, _, _ in exposures:
        parents[exposure.unique_id] = (*parents.get(exposure.unique_id, ()), *exposure.depends_on)
    return build(
        nodes,
        parents,
        info=info,
        exposures=[exposure for exposure, _, _ in exposures],
        groups=[group for group in groups if group.name],
        notes=notes,
    )


def _info(metadata: Mapping[str, Json], version: int) -> ManifestInfo:
    def word(key: str) -> str:
        return as_text(metadata.get(key)) or ""

    return ManifestInfo(
        schema_version=version,
        dbt_version=word("dbt_version"),
        project_name=word("project_name"),
        adapter_type=word("adapter_type"),
        invocation_id=word("invocation_id"),
        generated_at=word("generated_at"),
    )


def _exposure_node(exposure: Exposure, fqn: tuple[str, ...], path: str) -> LineageNode:
    return LineageNode(
        exposure.unique_id,
        exposure.name,
        "exposure",
        exposure.package_name,
        fqn or (exposure.package_name, exposure.name),
        path,
        tags=exposure.tags,
    )


class _Reader:
    """Turns decoded entries into ours, and keeps repeated strings and configurations once."""

    def __init__(self, notes: list[str]) -> None:
        self._notes = notes
        self._configs: dict[bytes, str] = {b"": "{}"}
        self._once: dict[str, str] = {"": ""}
        self._patches: dict[str | None, str] = {None: ""}
        self._decoder = msgspec.json.Decoder(_Node)
        self._exposures = msgspec.json.Decoder(_Exposure)

    def nodes(self, entries: Mapping[str, _Node | msgspec.Raw]) -> list[LineageNode]:
        """All nodes of a section. One flat loop: it runs 50,000 times on a big manifest."""
        made = []
        once, configs, patches = self._once.setdefault, self._configs, self._patches
        for unique_id, read in entries.items():
            if unique_id.startswith(_HOOKS):
                continue
            entry = self._entry(unique_id, read) if isinstance(read, msgspec.Raw) else read
            raw = bytes(entry.config)
            config = configs.get(raw)
            if config is None:
                config = self._config(raw)
            kind = entry.resource_type or unique_id.partition(".")[0]
            package = entry.package_name or (unique_id.split(".", 2)[1:] or [""])[0]
            name = entry.name or unique_id.rpartition(".")[2]
            path = entry.original_file_path or ""
            tags, version, patch = entry.tags, entry.version, entry.patch_path
            if type(tags) is not tuple:
                tags = _tags(tags, config)
            # Not the node's own `group`: a test there repeats the group of its model, and dbt selects by the config.
            group = as_text(config_of(config).get("group")) if '"group"' in config else None
            made.append(
                LineageNode(
                    unique_id,
                    name,
                    once(kind, kind),
                    once(package, package),
                    entry.fqn or (package, name),
                    once(path, path),
                    patches[patch] if patch in patches else self._patch(patch),
                    tags,
                    group,
                    version if version is None else str(version),
                    entry.source_name or "",
                    config,
                )
            )
        return made

    def _entry(self, unique_id: str, raw: msgspec.Raw) -> _Node:
        try:
            return self._decoder.decode(raw)
        except (ValueError, RecursionError) as error:
            self._notes.append(f"{unique_id} is read by its id alone: {error}")
            return _Node()

    def _patch(self, patch: str | None) -> str:
        made = self._patches[patch] = (patch or "").rpartition("://")[2]
        return made

    def _config(self, raw: bytes) -> str:
        """Compact, sorted, without empty values and hooks (SQL we have no use for); equal ones once.

        A project has thousands of nodes and few different configurations, so each is decoded once.
        """
        kept = {
            word: value
            for word, value in as_object(raw).items()
            if value not in (None, {}, [], "") and word.replace("_", "-") not in {"pre-hook", "post-hook"}
        }
        text = msgspec.json.encode(kept, order="sorted").decode()
        config = self._configs[raw] = self._once.setdefault(text, text)
        return config

    def exposure(self, unique_id: str, raw: msgspec.Raw) -> tuple[Exposure, tuple[str, ...], str]:
        """An exposure, its fqn and its file. Values of a wrong type are left out: they are free text anyway."""
        try:
            entry = self._exposures.decode(raw)
        except (ValueError, RecursionError) as error:
            self._notes.append(f"{unique_id} is read by its id alone: {error}")
            entry = _Exposure()
        config, owner = as_mapping(entry.config), as_mapping(entry.owner)
        _, package, name = (*unique_id.split(".", 2), "", "")[:3]
        exposure = Exposure(
            unique_id=unique_id,
            name=as_text(entry.name) or name,
            package_name=as_text(entry.package_name) or package,
            label=as_text(entry.label),
            type=as_text(entry.type),
            url=_url(entry.url, unique_id, self._notes),
            owner_name=as_text(owner.get("name")),
            owner_email=as_text(owner.get("email")),
            maturity=as_text(entry.maturity),
            description=(as_text(entry.description) or "")[:500] or None,
            tags=as_words(entry.tags or config.get("tags")),
            meta=as_mapping(config.get("meta")) or as_mapping(entry.meta),
            depends_on=as_words(as_mapping(entry.depends_on).get("nodes")),
        )
        return exposure, as_words(entry.fqn), as_text(entry.original_file_path) or ""

    def group(self, raw: msgspec.Raw) -> Group:
        """A group and its owner; without a name when it cannot be read."""
        entry = as_object(raw)
        owner = as_mapping(entry.get("owner"))
        return Group(as_text(entry.get("name")) or "", as_text(owner.get("name")), as_text(owner.get("email")))


def _tags(tags: str | tuple[str, ...] | None, config: str) -> tuple[str, ...]:
    """Tags that are one word, or stand in the configuration only (unit tests)."""
    if tags is None:
        return as_words(config_of(config).get("tags")) if '"tags"' in config else ()
    return as_words(tags)


def _parents(
    data: Raw, manifest: _Manifest | _LooseManifest, nodes: Iterable[LineageNode], notes: list[str]
) -> dict[str, tuple[str, ...]]:
    """Everybody's parents: from `parent_map`; for who is not in it from `child_map`, then from `depends_on`."""
    parents = _map(manifest.parent_map, "parent_map", notes)
    # Sources have no parents, and exposures bring their own.
    holes = {
        node.unique_id
        for node in nodes
        if node.unique_id not in parents and node.resource_type not in {"source", "exposure"}
    }
    if not holes:
        return parents
    for parent, children in _map(manifest.child_map, "child_map", notes).items():
        for child in holes.intersection(children):
            parents[child] = (*parents.get(child, ()), parent)
    holes.difference_update(parents)
    if not holes:
        return parents
    try:
        edges = msgspec.json.decode(data, type=_Edges)
    except (ValueError, RecursionError) as error:
        notes.append(f"depends_on cannot be read, {len(holes)} nodes stand without parents: {error}")
        return parents
    for section in _SECTIONS:
        entries: Mapping[str, _DependsOn] = getattr(edges, section) or {}
        for unique_id in holes.intersection(entries):
            parents[unique_id] = as_words(as_mapping(entries[unique_id].depends_on).get("nodes"))
    return parents


def _map(raw: msgspec.Raw, name: str, notes: list[str]) -> dict[str, tuple[str, ...]]:
    if not memoryview(raw).nbytes:
        return {}
    try:
        return msgspec.json.decode(raw, type=dict[str, tuple[str, ...]])
    except ValueError as error:
        notes.append(f"{name} has an unexpected shape: {error}")
    return {key: as_words(value) for key, value in as_object(raw).items()}


def _url(value: Json, unique_id: str, notes: list[str]) -> str | None:
    url = as_text(value)
    if url is not None and len(url) > 2048:
        notes.append(f"the url of {unique_id} has {len(url)} characters and is left out")
        return None
    return url


_SLIM_VERSION = 1
_slim_decoder = msgspec.msgpack.Decoder(_Slim)


def slim_bytes(lineage: Lineage) -> bytes:
    """The lineage as compact bytes (MessagePack) for a cache; `from_slim` gives it back."""
    return msgspec.msgpack.encode(
        _Slim(
            version=_SLIM_VERSION,
            info=lineage.info,
            nodes=list(lineage.nodes),
            parents=list(lineage.parents),
            exposures=list(lineage.exposures),
            groups=list(lineage.groups),
            notes=list(lineage.notes),
        )
    )


def from_slim(data: Raw) -> Lineage:
    """The lineage that `slim_bytes` wrote. Raises BadInput for bytes of another version or damaged ones."""
    with collector_paused():
        return _from_slim(data)


def _from_slim(data: Raw) -> Lineage:
    try:
        slim = _slim_decoder.decode(data)
        fits = all(not above or above[-1] < len(slim.nodes) for above in slim.parents)
        if slim.version != _SLIM_VERSION or len(slim.parents) != len(slim.nodes) or not fits:
            raise ValueError(f"version {slim.version}")
    except ValueError as error:
        raise BadInput(f"a cached lineage cannot be used ({error}); decode the manifest again") from error
    return Lineage(
        info=slim.info,
        nodes=tuple(slim.nodes),
        parents=tuple(slim.parents),
        exposures=tuple(slim.exposures),
        groups=tuple(slim.groups),
        notes=tuple(slim.notes),
    )
