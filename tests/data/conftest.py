from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from algospace.data.sessions import sessions, slots
from algospace.data.sources import DataParams

ROOT = Path(__file__).parents[2]
SAMPLES = ROOT.parent / "shared" / "data"


@pytest.fixture(scope="session")
def data_params():
    """Make the data section of params.yaml with some keys changed."""
    section = yaml.safe_load((ROOT / "params.yaml").read_text())["data"]

    def make(**changes):
        return DataParams(**{**section, **changes})

    return make


@pytest.fixture(scope="session")
def sample():
    """Find a sample file, or skip."""

    def find(name):
        if not (SAMPLES / name).is_file():
            pytest.skip(f"{SAMPLES / name} is not there")
        return SAMPLES

    return find


@pytest.fixture(scope="session")
def day():
    """Make raw bars that fill every slot of the given days of a calendar; prices walk by cents."""

    def make(first, last, calendar="NYSE", minutes=5):
        start = slots(sessions(calendar, first, last), minutes).start_ms
        rng = np.random.default_rng(0)
        path = 20_000 + rng.integers(-3, 4, (start.size, 12)).cumsum().reshape(-1, 12)
        return pd.DataFrame(
            {
                "start_utc": pd.DatetimeIndex(start.astype("datetime64[ms]")).tz_localize("UTC"),
                "open": path[:, 0] / 100,
                "high": path.max(axis=1) / 100,
                "low": path.min(axis=1) / 100,
                "close": path[:, -1] / 100,
                "volume": rng.integers(1, 1000, start.size).astype(float),
            }
        )

    return make


@pytest.fixture
def write(tmp_path):
    """Write raw bars as CSV below tmp_path; the stamp is the bar's start in UTC."""

    def save(raw, name="bars.csv", form="%Y-%m-%d %H:%M:%S", **options):
        table = raw.rename(columns={"start_utc": "datetime"})
        table["datetime"] = table["datetime"].dt.strftime(form)
        table.to_csv(tmp_path / name, index=False, **options)
        return tmp_path

    return save
