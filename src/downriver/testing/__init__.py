"""Contract suites for people who add a source or a connector: inherit one, fill in the gaps, run pytest.

`ConnectorContract` with its `ScriptedTransport` are here; a source's is in `downriver.testing.source_contract`.
They need pytest, which Downriver itself does not install.
"""

import pytest

# Before the imports: pytest explains only those asserts that it was told of first.
pytest.register_assert_rewrite("downriver.testing.contract", "downriver.testing.source_contract")

from downriver.testing.contract import ConnectorContract, RecentRun  # noqa: E402
from downriver.testing.scripted import Exchange, ScriptedTransport  # noqa: E402

__all__ = ["ConnectorContract", "Exchange", "RecentRun", "ScriptedTransport"]
