"""Intervals over draws in the tables of studies whose scores were not kept, as `interval_over_draws` has them now.

    python benchmarks/over_draws.py

Until 28 November 2026 every resample of patients also drew the draws, which cannot know how much two or three of them
vary: the ends were the lowest and highest of the resamples. The tables hold all that the present interval needs, the
difference, its deviation over draws, and its interval over patients, whose standard error is taken as its width over
3.92. Writes `low_draws, high_draws`, the p-values of rows with several draws, and Holm's adjustment, in place; running
it again changes nothing.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from monai_simclr.evaluation import holm
from monai_simclr.evaluation.intervals import interval_over_draws
from monai_simclr.runtime.tables import write_table

RESULTS = Path(__file__).parent / "results"
FAMILIES = {
    "label_efficiency_*[0-9].csv": ["finding", "reference"],
    "label_efficiency_*_gain.csv": ["reference"],
    "against_normal.csv": ["finding"],
    "real_pack/*.csv": ["finding"],
}
"""Tables, and the columns whose rows are adjusted together."""


def renewed(table: pd.DataFrame, family: list[str]) -> pd.DataFrame:
    """The table with intervals, p and p_holm; rows of the reference itself, and of one draw, keep theirs."""
    table = table.copy()
    for row in table.index[(table["draws"] > 1) & table["p"].notna() & table["low"].notna()]:
        about = table.loc[row]
        # as many draws, and two resamples, with just these variances
        spread = np.sqrt((about["draws"] - 1) / 2) * about["difference_sd"]
        error = (about["high"] - about["low"]) / 3.92 / np.sqrt(2)
        draws = about["difference"] + np.r_[spread, -spread, np.zeros(int(about["draws"]) - 2)]
        (_, low, high), p = interval_over_draws(draws[:, None] + np.array([0, error, -error]), units=1e6)
        table.loc[row, ["low_draws", "high_draws", "p"]] = round(low, 4), round(high, 4), round(p, 6)
    for rows in table.groupby(family if len(family) > 1 else family[0]).groups.values():
        table.loc[rows, "p_holm"] = holm(table.loc[rows, "p"].to_numpy()).round(6)
    return table


def main() -> None:
    """Renew all tables."""
    for pattern, family in FAMILIES.items():
        for path in sorted(RESULTS.glob(pattern)):
            table = pd.read_csv(path)
            if "low_draws" in table:
                write_table(renewed(table, family), path)
                print(path.relative_to(RESULTS))


if __name__ == "__main__":
    main()
