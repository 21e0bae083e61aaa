"""The alert rules for Prometheus: what they name exists, and each fires when it should and keeps quiet when it should (alerts.yaml)."""

import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from relay.observe.metrics import Metrics
from tests.e2e.peers import program

ROOT = Path(__file__).parents[2]
RULES = ROOT / "deploy" / "prometheus" / "ironpost.rules.yml"
PAGE = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")


def load(path: Path) -> Any:
    return YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))


ALERTS: list[Mapping[str, Any]] = load(RULES)["groups"][0]["rules"]
CASES: Mapping[str, Mapping[str, Any]] = load(Path(__file__).with_name("alerts.yaml"))


def by_name(rule: Mapping[str, Any]) -> str:
    return str(rule["alert"])


@pytest.mark.parametrize("rule", ALERTS, ids=by_name)
def test_its_metrics_labels_and_section_exist(rule: Mapping[str, Any]) -> None:
    families = {each.name: each for each in Metrics().registry.collect()}
    known = {f"{name}_total" if each.type == "counter" else name for name, each in families.items()}
    assert set(re.findall(r"\bironpost_[a-z_]+", rule["expr"])) <= known
    documented = {
        name: set(labels.strip().split(", "))
        for names, labels in re.findall(r"^\| (`ironpost_[^|]+) \| ([a-z_, ]*) ?\|", PAGE, re.MULTILINE)
        for name in re.findall(r"`([a-z_]+)`", names)
    }
    for metric, selected in re.findall(r"\b(ironpost_[a-z_]+)\{([^}]*)\}", rule["expr"]):
        assert set(re.findall(r"([a-z_]+)[!=]", selected)) <= documented[metric]
    used = {found for text in rule["annotations"].values() for found in re.findall(r"\$labels\.([a-z_]+)", text)}
    assert used - {"instance"} <= set.union(
        *(documented.get(each, set()) for each in re.findall(r"[a-z_]+", rule["expr"]))
    )
    page, _comma, heading = rule["annotations"]["runbook"].partition(", ")
    assert page == "operations.md"
    assert re.search(rf"^##+ {re.escape(heading)}", PAGE, re.MULTILINE)
    assert rule["labels"]["severity"] in ("page", "ticket")


def test_every_alert_has_a_case() -> None:
    assert list(CASES) == [by_name(each) for each in ALERTS]


def case(name: str, which: str) -> dict[str, Any]:
    """Of a file for `promtool test rules`."""
    expression = f'count(ALERTS{{alertname="{name}",alertstate="firing"}})'
    found = [{"labels": "{}", "value": 1}] if which == "fires" else []
    series = [{"series": each, "values": values} for each, values in CASES[name][which].items()]
    return {
        "name": f"{name} {which}",
        "interval": "1m",
        "input_series": series,
        "promql_expr_test": [{"expr": expression, "eval_time": CASES[name]["at"], "exp_samples": found}],
    }


@pytest.mark.peers
def test_each_alert_fires_when_it_should_and_only_then(tmp_path: Path) -> None:
    cases = [case(name, which) for name in CASES for which in ("fires", "quiet")]
    file = tmp_path / "cases.yml"
    YAML().dump({"rule_files": [str(RULES)], "evaluation_interval": "1m", "tests": cases}, file)
    done = subprocess.run(
        [program("promtool"), "test", "rules", str(file)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
