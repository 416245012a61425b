"""The picture of docs/features.md is drawn from train alone, over the columns that the page names."""

import re
import runpy
from pathlib import Path

import numpy as np
import pandas as pd

from algospace.data.splits import TRAIN
from algospace.indicators import technical

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
    for name in named:
        kind = re.sub("(support|resistance)_(price|strength)", r"{name}_\2", name)
        kind = re.sub(r"m30_mmd_\d+", "m30_mmd_{i}", kind)
        assert kind in code, name


def test_every_column_of_the_technical_set_is_drawn():
    undrawn = {"volume_sma_20"}  # the average below `volume_ratio`
    o, h, l, c, v = np.random.default_rng(0).uniform(1, 2, (5, 60))
    missing = {name for name in technical.tactical(o, h, l, c, v, 20, 5) if f'"{name}"' not in SCRIPT.read_text()}
    assert missing == undrawn
