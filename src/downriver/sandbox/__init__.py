"""Local stand-ins of the dbt platform and of each BI tool's API, with faults on demand.

Written from the vendors' documents and never from our own connectors and sources, so that a wrong belief
there shows up here. For the demo, the tests, the benches and users' rehearsals. Nothing here is imported by
the product's other rooms except the command line.

One file (or a few with the same first word) per vendor; `faults`, `frontdoor`, `control` and `server` are
shared. Start with `running()`.
"""

from downriver.sandbox.dbt_account import DbtSettings, NewSubscription
from downriver.sandbox.dbt_runs import Job, JobRun, Step
from downriver.sandbox.dbt_webhooks import DeliveryPolicy
from downriver.sandbox.faults import Fault
from downriver.sandbox.mode import ModeCredential, ModeSettings
from downriver.sandbox.mode_runs import SQL_CANARY, ModeReport, QueryFailure, RunShape
from downriver.sandbox.server import Sandbox, SandboxSettings, running, serve

__all__ = [
    "SQL_CANARY",
    "DbtSettings",
    "DeliveryPolicy",
    "Fault",
    "Job",
    "JobRun",
    "ModeCredential",
    "ModeReport",
    "ModeSettings",
    "NewSubscription",
    "QueryFailure",
    "RunShape",
    "Sandbox",
    "SandboxSettings",
    "Step",
    "running",
    "serve",
]
