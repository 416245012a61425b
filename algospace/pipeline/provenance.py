"""Where a bundle comes from, and how often the test bars have been looked at."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from algospace import artefacts
from algospace.errors import InputError

TEST_USES = Path("logs/test_uses.jsonl")
TOLD = f"Test figures are not for selection: export counts in {TEST_USES} how many bundles these bars have judged."


def of_bundle(prepared: dict[str, Any], inputs: Sequence[Path], validation: dict[str, Any]) -> dict[str, Any]:
    """Hashes of everything that the bundle was made from; the data's source, contract, splits and quality; figures.

    ``validation`` are the metrics of each training stage. Synthetic data are watermarked by their source.

    No git revision, host or date: the same inputs give the same bundle.
    """
    return {
        "inputs": {path.as_posix(): artefacts.sha256(path) for path in inputs},
        "data": {key: prepared[key] for key in ("source", "contract", "splits")},
        "quality": prepared["quality"]["score"],
        "validation": validation,
    }


def count_test_use(bundle_id: str, test_bars: pd.DataFrame) -> str:
    """Append a bundle to the log of those that these test bars have judged; say how many they are.

    The bars alone are hashed: other features of the same bars make no new ones.
    """
    rows = pd.util.hash_pandas_object(test_bars, index=False).to_numpy()
    digest = hashlib.sha256(rows.tobytes()).hexdigest()
    try:
        lines = TEST_USES.read_text(encoding="utf-8").splitlines() if TEST_USES.exists() else []
    except UnicodeDecodeError as error:
        raise InputError(f"{TEST_USES}: expected UTF-8, found the byte {error.object[error.start]:#x}") from None
    seen = [_use(line, number) for number, line in enumerate(lines, start=1)]
    if (digest, bundle_id) not in seen:
        seen.append((digest, bundle_id))
        lines.append(json.dumps({"bars": digest, "bundle": bundle_id}))
        artefacts.write_bytes(TEST_USES, ("\n".join(lines) + "\n").encode())
    count = len({bundle for bars, bundle in seen if bars == digest})
    return f"These test bars have judged {count} different bundle{'s' if count != 1 else ''} here."


def _use(line: str, number: int) -> tuple[str, str]:
    """Read one line of the log: bars and bundle."""
    try:
        use = json.loads(line)
        return str(use["bars"]), str(use["bundle"])
    except (ValueError, TypeError, KeyError, RecursionError):
        raise InputError(
            f"{TEST_USES}:{number}: expected a JSON object with bars and bundle, found {line[:60]!r}; "
            "mend the line (removing it forgets a use of the test bars)"
        ) from None
