"""dbt's artifacts, decoded: `manifest.json`, `run_results.json`, `sources.json` (facts/dbt.md §3).

Manifests reach 200 MB and we need a tenth of them, so they are decoded by type, straight from the mapped file,
and every field not named is skipped without becoming a Python object. Nothing is validated strictly: dbt
itself refuses to. Manifest v4 to v12, run results v4 to v6, sources v1 to v3 and what Fusion and dbt v2 write
are read alike; keys may be missing, unknown ones are ignored, unknown statuses are kept as given, one odd node
becomes a note and not a failure. What is refused, with BadInput naming the file: what is no JSON, cut off, too
big, no dbt artifact, or another artifact than was asked for.
"""

from __future__ import annotations

from downriver.sources.manifest import decode_manifest, decode_manifest_file, from_slim, slim_bytes
from downriver.sources.reading import CAP_BYTES, Raw
from downriver.sources.results import (
    BUILDING,
    RunResults,
    SourceFreshness,
    SourcesFreshness,
    decode_run_results,
    decode_run_results_file,
    decode_sources,
    decode_sources_file,
    merge_results,
)

__all__ = [
    "BUILDING",
    "CAP_BYTES",
    "Raw",
    "RunResults",
    "SourceFreshness",
    "SourcesFreshness",
    "decode_manifest",
    "decode_manifest_file",
    "decode_run_results",
    "decode_run_results_file",
    "decode_sources",
    "decode_sources_file",
    "from_slim",
    "merge_results",
    "slim_bytes",
]
