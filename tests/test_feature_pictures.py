"""The picture of docs/features.md is drawn from train alone, over the columns that the page names."""

import re
import runpy
from pathlib import Path

import numpy as np
import pandas as pd

from algospace.data.splits import TRAIN

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / ".ci/feature_pictures.py"


def test_only_rows_of_train_are_drawn(tmp_path, monkeypatch):
    (tmp_path / "data/prepared").mkdir(parents=True)
    session, split = np.repeat(np.arange(20), 5), np.repeat([TRAIN, TRAIN + 1], 50)
    table = pd.DataFrame({"session_id": session, "split": split})
    table.to_parquet(tmp_path / "data/prepared/main_training_data.parquet")
    monkeypatch.chdir(tmp_path)
    rows = runpy.run_path(str(SCRIPT))["drawn_rows"]()
    assert rows["session_id"].unique().tolist() == [5, 6, 7, 8, 9]


def test_the_page_names_columns_that_are_drawn():
    page, code = (ROOT / "docs/features.md").read_text(), SCRIPT.read_text()
    named = set(re.findall(r"`((?:m30|fvg|gate1)_\w+|activity)`", page))
    assert len(named) > 8
    named |= {f"m30_mmd_{i}" for i in range(4)}  # the page says from which to which
    for name in named:
        kind = re.sub("(support|resistance)_price", "{name}_price", name)
        assert kind in code, name
