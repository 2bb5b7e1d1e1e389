"""Ask a real dbt what it selects, and keep its answers beside the manifest it answered from.

    python tests/core/data/make_selection.py .venv/bin/dbt

The project is examples/jaffle with `project/` laid over it: a second package, versioned models, an analysis, groups,
more exposures. Writes selection_manifest.json.gz and selection_expected.json. `--indirect-selection empty`, because
a dashboard does not stand on tests; resource type `all`, so that nothing is filtered afterwards.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]
sys.path.insert(0, str(ROOT / "tests/data/artifacts"))
from scrub import small_manifest, write_gz  # noqa: E402

CASES: list[tuple[str, str | None]] = [
    ("orders", None),
    ("stg_orders stg_payments", None),
    ("jaffle.marts.core.orders", None),
    ("marts.core.orders", None),
    ("core.orders", None),
    ("marts", None),
    ("marts.finance", None),
    ("jaffle.marts", None),
    ("jaffle", None),
    ("calendar", None),
    ("staging.shop", None),
    ("staging.shop.stg_orders", None),
    ("no_such_thing", None),
    ("stg_*", None),
    ("*_daily", None),
    ("staging.*", None),
    ("marts.*.orders", None),
    ("marts.*orders", None),
    ("jaffle.*.shop.*", None),
    ("stg_[op]*", None),
    ("stg_order?", None),
    ("*", None),
    ("customer_value", None),
    ("customer_value.v2", None),
    ("customer_value_v1", None),
    ("marts.growth.customer_value.v2", None),
    ("anything.customer_value.v2", None),
    ("customer_value.v*", None),
    ("customer_*", None),
    ("v2", None),
    ("jaffle.marts.growth.customer_value", None),
    ("growth.customer_value", None),
    ("+orders", None),
    ("orders+", None),
    ("+orders+", None),
    ("1+orders", None),
    ("2+revenue_daily+1", None),
    ("stg_orders+1", None),
    ("0+orders+0", None),
    ("@stg_tickets", None),
    ("@stg_payments", None),
    ("@source:support.tickets", None),
    ("+exposure:weekly_revenue", None),
    ("+exposure:revenue_target", None),
    ("+exposure:jaffle.both", None),
    ("exposure:*", None),
    ("exposure:calendar.*", None),
    ("exposure:*revenue*", None),
    ("exposure:jaffle.growth_board", None),
    ("+exposure:raw_feed", None),
    ("source:shop", None),
    ("source:shop.orders", None),
    ("source:jaffle.support.tickets", None),
    ("source:*", None),
    ("source:s*.*s", None),
    ("source:shop.orders+", None),
    ("source:support.tickets+2", None),
    ("tag:finance", None),
    ("tag:daily", None),
    ("tag:d*", None),
    ("tag:Daily", None),
    ("tag:soft", None),
    ("+tag:growth", None),
    ("tag:finance,tag:daily", None),
    ("tag:finance,resource_type:exposure", None),
    ("tag:daily,marts", None),
    ("tag:hourly tag:growth", None),
    ("+revenue_daily,+tickets_daily", None),
    ("+revenue_daily,+customers", None),
    ("+revenue_daily,+customers,source:*", None),
    ("+exposure:both,resource_type:model", None),
    ("config.materialized:table", None),
    ("config.materialized:ephemeral", None),
    ("config.materialized:incremental", None),
    ("config.tags:finance", None),
    ("config.meta.tier:gold", None),
    ("config.meta.audit.level:high", None),
    ("config.meta.audit.yearly:true", None),
    ("config.meta.channels:web", None),
    ("config.severity:WARN", None),
    ("config.severity:error", None),
    ("config.enabled:true,source:*", None),
    ("config.group:growth", None),
    ("config.access:public", None),
    ("group:finance", None),
    ("group:g*", None),
    ("package:calendar", None),
    ("package:this", None),
    ("package:*", None),
    ("resource_type:exposure", None),
    ("resource_type:snapshot", None),
    ("resource_type:seed", None),
    ("resource_type:source", None),
    ("resource_type:unit_test", None),
    ("resource_type:semantic_model", None),
    ("resource_type:saved_query", None),
    ("resource_type:metric", None),
    ("resource_type:analysis", None),
    ("resource_type:test,marts.core", None),
    ("path:models/staging", None),
    ("path:models/staging/shop/stg_orders.sql", None),
    ("models/marts/core", None),
    ("models/marts/core/orders.sql+", None),
    ("path:models/*/support", None),
    ("path:models/**/stg_*.sql", None),
    ("path:models/marts/finance/_finance.yml", None),
    ("path:seeds", None),
    ("path:models/exposures.yml", None),
    ("path:models/marts/**", None),
    ("path:models/staging/", None),
    ("path:mod*", None),
    ("path:models/marts/working_days.sql", None),
    ("path:models/marts", None),
    ("file:orders.sql", None),
    ("file:orders", None),
    ("orders.sql", None),
    ("file:stg_*", None),
    ("file:_shop.yml", None),
    ("metric:revenue", None),
    ("metric:jaffle.rev*", None),
    ("+metric:revenue", None),
    ("semantic_model:orders+", None),
    ("saved_query:revenue_by_store", None),
    ("+saved_query:*", None),
    ("unit_test:orders_add_up_their_payments", None),
    ("unit_test:*", None),
    ("not_null_orders_order_id", None),
    ("+relationships_orders_customer_id__customer_id__ref_customers_", None),
    ("order_status+", None),
    ("orders_per_working_day+", None),
    ("holidays+", None),
    ("+growth_board", None),
    ("weekly_revenue", None),
    ("orders+", "tag:finance"),
    ("+exposure:both", "source:*"),
    ("marts", "marts.growth resource_type:test"),
    ("jaffle", "stg_*+"),
    ("tag:daily", "tag:daily,resource_type:model"),
    ("*", "+exposure:weekly_revenue"),
]


def main(dbt: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        project = Path(folder) / "jaffle"
        shutil.copytree(ROOT / "examples/jaffle", project, ignore=shutil.ignore_patterns("target", "logs"))
        shutil.copytree(HERE / "project", project, dirs_exist_ok=True)
        # One process for all questions: starting dbt takes longer than answering.
        python = Path(os.path.realpath(dbt)).parent / "python"
        subprocess.run([dbt, "--quiet", "deps", "--profiles-dir", "."], cwd=project, check=True)
        command = [str(python), "-c", ASK]
        asked = subprocess.run(
            command, cwd=project, input=json.dumps(CASES), capture_output=True, text=True, check=False
        )
        if asked.returncode:
            sys.exit(asked.stdout + asked.stderr)
        answers = json.loads((project / "answers.json").read_text())
        write_gz(HERE / "selection_manifest.json.gz", small_manifest(project / "target/manifest.json", project))
    lines = [json.dumps({"select": s, "exclude": e, "ids": ids}) for (s, e), ids in zip(CASES, answers, strict=True)]
    (HERE / "selection_expected.json").write_text("[\n" + ",\n".join(lines) + "\n]\n")


ASK = """
import json, sys
from dbt.cli.main import dbtRunner

cases = json.loads(sys.stdin.read())
runner = dbtRunner()
parsed = runner.invoke(["--quiet", "parse", "--profiles-dir", "."])
assert parsed.success, parsed.exception
runner = dbtRunner(manifest=parsed.result)
answers = []
for select, exclude in cases:
    command = ["--quiet", "ls", "--profiles-dir", ".", "--resource-type", "all", "--output", "json"]
    command += ["--output-keys", "unique_id", "--indirect-selection", "empty", "--select", *select.split(" ")]
    command += ["--exclude", *exclude.split(" ")] if exclude else []
    asked = runner.invoke(command)
    assert asked.success, (select, asked.exception)
    answers.append(sorted(json.loads(line)["unique_id"] for line in asked.result))
open("answers.json", "w").write(json.dumps(answers))
"""

if __name__ == "__main__":
    main(sys.argv[1])
