"""Fresh processes with another hash seed, locale, time zone, umask and folder write the same bytes.

`benchmarks/environments.py` has more of them.
"""

import os

import _fire
import environments

from algospace.pipeline.status import STAGES


def test_the_same_bytes(finished, tmp_path):
    variables, umask, place, _ = environments.SURROUNDINGS["all others, east"]
    before = os.umask(umask)
    try:
        project = finished.copy(tmp_path / place, **variables)
        for stage in STAGES:
            _fire.clear(project.folder, stage)
        assert set(project.digests()) < set(finished.digests())
        project.run_stages()
    finally:
        os.umask(before)
    assert project.digests() == finished.digests()


def test_a_folder_that_the_locale_cannot_tell_is_refused(finished, tmp_path):
    """Its bytes are no text there, which torch asks for in the middle of an export."""
    project = finished.copy(tmp_path / "ü", LC_ALL="C", PYTHONUTF8="0")
    before = project.digests()
    done = project.stage("export")
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: export: expected a folder whose name the locale can tell, found ")
    assert project.digests() == before
