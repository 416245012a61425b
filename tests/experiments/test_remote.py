"""Outs go to a remote and come back: a folder, and S3 (a moto server on loopback)."""

import os
import subprocess
import sys

import pytest
from moto.moto_server.threaded_moto_server import ThreadedMotoServer

STAGES = "stages:\n  a: {cmd: cp raw out, deps: [raw], outs: [out]}\n"


@pytest.fixture
def s3():
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


def run(folder, *command):
    keys = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"}
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("DVC", "AWS")) and "proxy" not in k.lower()}
    done = subprocess.run(
        command, cwd=folder, env=clean | keys | {"NO_PROXY": "127.0.0.1"}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def dvc(folder, *arguments):
    return run(folder, sys.executable, "-m", "dvc", *arguments)


@pytest.mark.parametrize("kind", ["local", "s3"])
def test_pushed_here_pulled_there_without_a_run(tmp_path, request, kind):
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    run(here, "git", "init", "--quiet", "--initial-branch", "main")
    dvc(here, "init", "--quiet")
    if kind == "s3":
        endpoint = request.getfixturevalue("s3")
        make = f"import boto3; boto3.client('s3', endpoint_url='{endpoint}').create_bucket(Bucket='outs')"
        run(here, sys.executable, "-c", make)
        dvc(here, "remote", "add", "--default", "store", "s3://outs/algospace")
        dvc(here, "remote", "modify", "store", "endpointurl", endpoint)
    else:
        dvc(here, "remote", "add", "--default", "store", str(tmp_path / "store"))
    (here / "raw").write_text("bars\n")
    (here / "dvc.yaml").write_text(STAGES)
    dvc(here, "add", "raw")
    dvc(here, "repro")
    assert "1 file pushed" in dvc(here, "push", "out")
    assert "Everything is up to date" in dvc(here, "push", "out")
    run(here, "git", "add", ".")
    run(here, "git", "-c", "user.name=a", "-c", "user.email=a@example.org", "commit", "--quiet", "--message", "a")
    run(tmp_path, "git", "clone", "--quiet", str(here), str(there))
    dvc(there, "pull", "out")
    assert (there / "out").read_text() == "bars\n"
    assert not (there / "raw").exists(), "raw bars stay where they are unless they are pushed"
