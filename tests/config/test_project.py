from pathlib import Path

import pytest

from downriver.config.project import data_home, find_project
from downriver.core.errors import ConfigError


@pytest.fixture
def project(tmp_path):
    (tmp_path / "p" / "a" / "b").mkdir(parents=True)
    (tmp_path / "p" / "downriver.yml").write_text("version: 1\n")
    (tmp_path / "q").mkdir()
    (tmp_path / "q" / "downriver.yaml").write_text("version: 1\n")
    return tmp_path


@pytest.mark.parametrize("below", ["", "a", "a/b"])
def test_it_is_found_upwards(project, below):
    assert find_project(project / "p" / below, None, {}) == project / "p" / "downriver.yml"


def test_the_other_spelling(project):
    assert find_project(project / "q", None, {}) == project / "q" / "downriver.yaml"


def test_what_is_said_outright_goes_first(project):
    environ = {"DOWNRIVER_PROJECT_DIR": str(project / "p")}
    assert find_project(project / "q", None, environ) == project / "p" / "downriver.yml"
    assert find_project(project / "p" / "a", project / "q", environ) == project / "q" / "downriver.yaml"
    assert find_project(project / "p" / "a", project / "q" / "downriver.yaml", {}) == project / "q" / "downriver.yaml"
    relative = find_project(project, (project / "p").relative_to(project), {})
    assert relative == project / "p" / "downriver.yml"
    assert find_project(project / "q", None, {"DOWNRIVER_PROJECT_DIR": " "}) == project / "q" / "downriver.yaml"


def test_nothing_there_says_where_it_was_looked_for(project):
    with pytest.raises(ConfigError, match="--project-dir") as caught:
        find_project(Path("/"), None, {})
    assert "No downriver.yml in / or any directory above it" in str(caught.value)
    assert "downriver init" in str(caught.value)
    with pytest.raises(ConfigError, match=r"--project-dir says .*/p/a, but there is no downriver.yml"):
        find_project(project, project / "p" / "a", {})
    with pytest.raises(ConfigError, match=r"DOWNRIVER_PROJECT_DIR says .*/nowhere, but there is no such directory"):
        find_project(project, None, {"DOWNRIVER_PROJECT_DIR": str(project / "nowhere")})


def test_both_spellings_are_one_too_many(project):
    (project / "p" / "downriver.yaml").write_text("")
    with pytest.raises(ConfigError, match="has both"):
        find_project(project / "p", None, {})


def test_the_data_home(project):
    file = project / "p" / "downriver.yml"
    assert data_home(file, {}) == project / "p" / ".downriver"
    assert data_home(file, {"DOWNRIVER_HOME": "../data"}) == project / "p" / ".." / "data"
    assert data_home(file, {"DOWNRIVER_HOME": "/var/lib/x"}).as_posix() == "/var/lib/x"
