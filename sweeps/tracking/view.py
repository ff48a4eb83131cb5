"""A study's prepared page in MLflow: which columns, which order, which charts. Loads no MLflow.

MLflow keeps the state of a page that was shared by its link in a tag of the experiment; here one is written that
need not be clicked together. Each study has two: all its trials, and its front by epoch, as MLflow draws the same runs
in all charts of a page. The form of the state is that of MLflow 3.17, which leaves out what it does not know.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from urllib.parse import urlencode

from pydantic import JsonValue

TAG = "mlflow.sharedViewState."
"""What precedes a view's key in the experiment's tag."""
_MOST_KNOBS = 8
"""In columns and along the parallel coordinates."""
_MOST_RUNS = 100
"""That a chart shows."""


@dataclass(frozen=True)
class View:
    """What a study's page needs to know of it."""

    identity: str
    """The tag `ubt.run` of its runs."""
    knobs: tuple[str, ...]
    """Names of the parameters that were varied."""
    seeds: int = 1
    attacked: bool = True
    """Whether there is an attack success rate."""
    labels: tuple[str, ...] = ("front", "chosen")
    """Tags that say what trials are."""

    @property
    def key(self) -> str:
        """Return the key of the page with all trials."""
        return f"ubt-{self.identity[:12]}"

    @property
    def front_key(self) -> str:
        """Return the key of the page with the front by epoch."""
        return f"{self.key}-front"

    def tags(self) -> dict[str, str]:
        """Return the experiment's tags, by name."""
        own = f"tags.`ubt.run` = '{self.identity}' AND tags.`ubt.trial` != ''"
        charts, curves = self._charts(), self._curves()
        pages = {
            self.key: self._page(own, charts),
            self.front_key: self._page(f"{own} AND tags.front = 'true'", curves),
        }
        return {TAG + key: json.dumps(page) for key, page in pages.items()}

    @property
    def _group(self) -> str:
        """Return what the names of rates on test begin with: with several seeds their means are what counts."""
        return "mean/test_" if self.seeds > 1 else "test/"

    @property
    def _rates(self) -> list[str]:
        rates = ["asr", "ca"] if self.attacked else ["ca"]
        validation = "mean/val_" if self.seeds > 1 else "val/"
        return [f"{group}{rate}" for group in (self._group, validation) for rate in rates]

    def _page(self, search: str, charts: list[dict[str, JsonValue]]) -> dict[str, JsonValue]:
        columns = [*map(_metric, self._rates), *(f"params.`{knob}`" for knob in self.knobs[:_MOST_KNOBS])]
        columns += [f"tags.`{tag}`" for tag in (*self.labels, "state", *(["seed"] if self.seeds > 1 else []))]
        section: dict[str, JsonValue] = {
            "uuid": _SECTION, "name": "UBT", "display": True, "isReordered": False, "deleted": False,
            "isGenerated": False, "columns": 2,
        }  # fmt: skip
        return {
            "searchFilter": search,
            "orderByKey": _metric(f"{self._group}{'asr' if self.attacked else 'ca'}"),
            "orderByAsc": self.attacked,
            "startTime": "ALL",
            "lifecycleFilter": "Active",
            "datasetsFilter": [],
            "modelVersionFilter": "All Runs",
            "selectedColumns": ["attributes.`Created`", *columns],
            "runsExpanded": {},
            "runsPinned": [],
            "runsHidden": [],
            "runsVisibilityMap": {},
            "runsHiddenMode": "SHOW_ALL",
            "viewMaximized": False,
            "runListHidden": False,
            "isAccordionReordered": True,  # else it comes after those that MLflow adds, by name
            "hideEmptyCharts": True,
            "groupBy": None,
            "groupsExpanded": {},
            "useGroupedValuesInCharts": True,
            "autoRefreshEnabled": False,
            "compareRunCharts": [{**chart, **_own(f"ubt-{number}")} for number, chart in enumerate(charts)],
            "compareRunSections": [section],
            "chartsSearchFilter": "",
            "globalLineChartConfig": {},
        }

    def _charts(self) -> list[dict[str, JsonValue]]:
        """Return the charts of all trials: both rates, the knobs against them, and contours over two knobs."""
        rates: list[JsonValue] = [f"{self._group}{rate}" for rate in (("ca", "asr") if self.attacked else ("ca",))]
        found: list[dict[str, JsonValue]] = []
        if self.attacked:
            axes = {"xaxis": _axis(f"{self._group}asr"), "yaxis": _axis(f"{self._group}ca")}
            found.append({"type": "SCATTER", "displayName": "Clean accuracy against attack success", **axes})
        if self.knobs:
            knobs: list[JsonValue] = list(self.knobs[:_MOST_KNOBS])
            chosen: dict[str, JsonValue] = {"selectedParams": knobs, "selectedMetrics": rates, "showAllRuns": True}
            found.append({"type": "PARALLEL", "displayName": "Knobs and both rates", **chosen})
        if len(self.knobs) > 1:
            axes = {"xaxis": _axis(self.knobs[0], "PARAM"), "yaxis": _axis(self.knobs[1], "PARAM")}
            found += [{"type": "CONTOUR", **axes, "zaxis": _axis(str(rate))} for rate in reversed(rates)]
        return found

    def _curves(self) -> list[dict[str, JsonValue]]:
        """Return the charts of the front: both rates on validation by epoch; step 0 is the poisoned model."""
        names = ["val/asr", "val/ca"] if self.attacked else ["val/ca"]
        return [
            {"type": "LINE", "metricKey": name, "selectedMetricKeys": [name], "xAxisKey": "step", "lineSmoothness": 0}
            for name in names
        ]


def page_address(server: str, experiment: str, key: str = "", charts: bool = True) -> str:
    """Return the address of an experiment's page of runs, with a view of it if its key is given."""
    query = dict(TRAINING)
    if key:
        query |= {"viewStateShareKey": key, **({"compareRunsMode": "CHART"} if charts else {})}
    return f"{server.rstrip('/')}/#/experiments/{experiment}/runs?{urlencode(query)}"


def run_address(server: str, experiment: str, run: str) -> str:
    """Return the address of a run's page."""
    return f"{server.rstrip('/')}/#/experiments/{experiment}/runs/{run}?{urlencode(TRAINING)}"


_SECTION = "ubt-section"
TRAINING = {"workflowType": "machine_learning"}
"""Without it MLflow shows the side that is for language models."""


def _own(uuid: str) -> dict[str, JsonValue]:
    return {
        "uuid": uuid, "metricSectionId": _SECTION, "runsCountToCompare": _MOST_RUNS, "deleted": False,
        "isGenerated": False,
    }  # fmt: skip


def _metric(name: str) -> str:
    return f"metrics.`{name}`"


def _axis(key: str, kind: str = "METRIC") -> JsonValue:
    return {"key": key, "type": kind}
