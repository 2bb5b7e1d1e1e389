from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, ConfigDict, Field, JsonValue, SecretStr, field_validator

from downriver.config.load import load
from downriver.config.problems import ConfigProblems
from downriver.core.errors import SecretMissing
from downriver.core.model import Asset

VAULT = {
    "DBT_WEBHOOK_KEY": "planted-webhook-1f0e",
    "MODE_API_TOKEN": "planted-token-2b3c",
    "MODE_API_SECRET": "planted-secret-9d8a",
}

ISSUE = (Path(__file__).parent / "issue.yml").read_text()


class HookConfig(BaseModel):
    """The keys of a source, as a kind that only receives would declare them."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    webhook_secret: SecretStr | list[SecretStr] = Field(description="The key that signs. Given once.")


class ToolConfig(BaseModel):
    """A connection of a BI tool. It does not say what to do with unknown keys: they are mistakes all the same."""

    model_config = ConfigDict(frozen=True)
    workspace: str = Field(description="The workspace, as in its address. Nothing else.")
    token: SecretStr
    secret: SecretStr
    base_url: str = "https://tool.example"
    region: str = "eu"

    @field_validator("region")
    @classmethod
    def _region(cls, value: str) -> str:
        if value not in ("eu", "us"):
            raise ValueError("there are only eu and us")
        return value

    @field_validator("secret")
    @classmethod
    def _indiscreet(cls, value: SecretStr) -> SecretStr:
        if value.get_secret_value().startswith("wrong"):
            raise ValueError(f"{value.get_secret_value()} is not what a secret looks like")
        return value


class ToolAsset(BaseModel):
    """What a dashboard of this kind adds."""

    model_config = ConfigDict(frozen=True)
    report: str = Field(description="The report's token.")
    parameters: dict[str, JsonValue] = {}
    pages: list[int] = []


@dataclass(frozen=True)
class Kind:
    kind: str
    title: str
    config: type[BaseModel]
    asset: type[BaseModel] = ToolAsset

    def assets(self, connection: str, config: Any, asset: Any) -> tuple[Asset, ...]:
        if asset.report == "elsewhere":
            raise ValueError(f"the report is not in {config.workspace}.")
        if asset.report == "nothing":
            return ()
        return (Asset(connection, "report", asset.report, asset.parameters),)


SOURCE_TYPES = {"dbt_platform": Kind("dbt_platform", "A webhook", HookConfig)}
CONNECTOR_TYPES = {"mode": Kind("mode", "A tool", ToolConfig)}


class Secrets:
    """A vault's `secrets`, counting what it is asked."""

    def __init__(self, values: dict[str, str]) -> None:
        self.values = values
        self.asked: list[str] = []

    def __call__(self, name: str) -> str:
        self.asked.append(name)
        if name not in self.values:
            raise SecretMissing(name)
        return self.values[name]


@pytest.fixture
def secrets():
    return Secrets(dict(VAULT))


@pytest.fixture
def load_text(tmp_path, secrets):
    def loaded(text, *, environ=None, source_types=SOURCE_TYPES, connector_types=CONNECTOR_TYPES, secrets=secrets):
        path = tmp_path / "downriver.yml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass"))
        return load(
            path, source_types=source_types, connector_types=connector_types, environ=environ or {}, secrets=secrets
        )

    return loaded


@pytest.fixture
def mistakes(load_text):
    """The lines of what is wrong with a text, without the heading."""

    def of(text, **kwargs):
        with pytest.raises(ConfigProblems) as caught:
            load_text(text, **kwargs)
        lines = [str(problem) for problem in caught.value.problems]
        assert str(caught.value).splitlines()[0].endswith(("mistake:", "mistakes:"))
        assert "\n".join(lines[:100]) in str(caught.value)
        return lines

    return of


@pytest.fixture
def in_connection(mistakes):
    """What is said of lines inside an otherwise right connection (they begin at line 8)."""

    def of(lines, **kwargs):
        text = (
            "connections:\n  - name: tool\n    type: mode\n    workspace: acme\n"
            "    token: \"{{ secret('MODE_API_TOKEN') }}\"\n    secret: \"{{ secret('MODE_API_SECRET') }}\"\n\n"
        )
        return mistakes(text + "".join(f"    {line}\n" for line in lines), **kwargs)

    return of


@pytest.fixture
def issue():
    """The file of the issue, as written there."""
    return ISSUE


@pytest.fixture
def vault_values():
    return tuple(VAULT.values())


@pytest.fixture
def source_types():
    return SOURCE_TYPES


@pytest.fixture
def connector_types():
    return CONNECTOR_TYPES


@pytest.fixture
def kind_of():
    """Makes a kind from models."""
    return Kind
