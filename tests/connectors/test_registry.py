"""Kinds from the product and from installed packages, made here as real distributions on a path of their own."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from downriver.connectors.base import ConnectorSpec
from downriver.connectors.mode import SPEC
from downriver.connectors.registry import BUILT_IN, discover
from downriver.core.errors import ConfigError

GOOD = """
from dataclasses import replace
from downriver.connectors.mode import SPEC as MODE
SPEC = replace(MODE, kind={kind!r}, title="Lighthouse")
"""

Install = Callable[..., None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Install a package: (its name, {kind: target}, {module: source})."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def add(name: str, points: dict[str, str], modules: dict[str, str]) -> None:
        info = tmp_path / f"{name}-1.2.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.2\n")
        lines = "".join(f"{kind} = {target}\n" for kind, target in points.items())
        (info / "entry_points.txt").write_text(f"[downriver.connectors]\n{lines}")
        for module, source in modules.items():
            (tmp_path / f"{module}.py").write_text(source)

    return add


def test_the_built_in_kinds_load() -> None:
    registry = discover([])
    assert registry.kinds == tuple(sorted(BUILT_IN))
    for kind in registry.kinds:
        spec = registry.spec(kind)
        assert isinstance(spec, ConnectorSpec)
        assert spec.kind == kind
        assert registry.spec(kind) is spec
    assert registry.spec("mode") is SPEC
    assert registry.problems() == ()


def test_the_environment_we_run_in_has_no_problems() -> None:
    assert set(BUILT_IN) <= set(discover().kinds)
    assert discover().problems() == ()


def test_an_installed_package_adds_a_kind(install: Install, tmp_path: Path) -> None:
    install("acme-lighthouse", {"lighthouse": "acme_light_a:SPEC"}, {"acme_light_a": GOOD.format(kind="lighthouse")})
    registry = discover([str(tmp_path)])
    assert registry.kinds == ("lighthouse", "mode")
    assert registry.spec("lighthouse").title == "Lighthouse"
    assert discover().spec("lighthouse").kind == "lighthouse"  # as installed: found on sys.path


def test_an_unknown_kind_gets_the_nearest_one() -> None:
    with pytest.raises(ConfigError, match=r'no connector of type "mod"\. Did you mean "mode"\? Known types: mode'):
        discover([]).spec("mod")


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("raise RuntimeError('kaputt')", "RuntimeError: kaputt"),
        ("import no_such_module_anywhere", "no_such_module_anywhere"),
        ("def broken(:", "SyntaxError"),
        ("X = 1", "has no attribute 'SPEC'"),
        ("SPEC = 17", "is no ConnectorSpec: .* is a int"),
        (GOOD.format(kind="searchlight"), 'but it calls itself "searchlight"'),
    ],
)
def test_a_broken_package_is_named_and_hides_nobody(
    install: Install, tmp_path: Path, source: str, words: str
) -> None:
    module = f"acme_bad_{abs(hash(source))}"
    install("acme-bad", {"lighthouse": f"{module}:SPEC"}, {module: source})
    install("acme-fine", {"beacon": f"{module}_fine:SPEC"}, {f"{module}_fine": GOOD.format(kind="beacon")})
    registry = discover([str(tmp_path)])
    assert registry.kinds == ("beacon", "lighthouse", "mode")
    with pytest.raises(ConfigError, match=words) as caught:
        registry.spec("lighthouse")
    assert "acme-bad 1.2" in str(caught.value)
    assert registry.problems() == (str(caught.value),)
    assert registry.spec("mode") is SPEC
    assert registry.spec("beacon").kind == "beacon"


def test_two_packages_with_one_kind_are_both_refused(install: Install, tmp_path: Path) -> None:
    install("acme-one", {"lighthouse": "acme_two_a:SPEC"}, {"acme_two_a": GOOD.format(kind="lighthouse")})
    install("acme-two", {"lighthouse": "acme_two_b:SPEC"}, {"acme_two_b": GOOD.format(kind="lighthouse")})
    with pytest.raises(ConfigError, match=r"offered by acme-one 1\.2 and acme-two 1\.2: uninstall all but one"):
        discover([str(tmp_path)]).spec("lighthouse")


def test_a_built_in_kind_stays_ours(install: Install, tmp_path: Path) -> None:
    install("acme-sneaky", {"mode": "acme_sneaky:SPEC"}, {"acme_sneaky": "raise SystemExit('imported')"})
    registry = discover([str(tmp_path)])
    assert registry.spec("mode") is SPEC
    (problem,) = registry.problems()
    assert problem.startswith('acme-sneaky 1.2 offers a connector of type "mode", which Downriver has itself')


def test_looking_imports_no_connector_and_no_http_library() -> None:
    """`downriver --help` must stay fast: what is not used is not imported."""
    code = (
        "import sys; from downriver.connectors.registry import discover; discover().kinds; "
        "found = {'aiohttp', 'downriver.connectors.mode'} & set(sys.modules); assert not found, found; "
        "discover().spec('mode'); assert 'aiohttp' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
