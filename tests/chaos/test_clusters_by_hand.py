"""Two hosts, as deploy/workstations.md and cluster.yaml have them: Ray with a token, on networks of their own."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hosts import Host, hosts, why_not
from processes import end_all, environment

from ubt.trials.record import read_records

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"```bash\n(.*?)```", re.DOTALL)
LINES = BLOCK.findall((ROOT / "deploy/workstations.md").read_text(encoding="utf-8"))[0].splitlines()
BIN = Path(sys.executable).parent

pytestmark = [pytest.mark.clusters, pytest.mark.skipif(bool(why_not()), reason=why_not())]


@pytest.fixture
def two(tmp_path: Path) -> Iterator[list[Host]]:
    """Yield two hosts, each with a home of its own and no token."""
    mark = f"by-hand-{tmp_path.name}"
    try:
        with hosts(tmp_path / "hosts", 2, mark=environment(mark)) as made:
            for host in made:
                del host.environment["RAY_AUTH_TOKEN"], host.environment["RAY_AUTH_MODE"]
                (host.folder / ".ray").mkdir(mode=0o700)
                host.environment |= {"HOME": str(host.folder), "PATH": f"{BIN}:/usr/sbin:/usr/bin:/sbin:/bin"}
            yield made
    finally:
        end_all(mark)


def shell(host: Host, line: str, seconds: float = 400.0) -> str:
    return host.run("bash", "-c", line, seconds=seconds)


def test_three_lines_make_a_cluster_of_two_workstations_that_asks_for_its_token(
    two: list[Host], tmp_path: Path
) -> None:
    first, other = two
    start, join, sweep = (
        line.replace("/nfs/ubt", str(tmp_path / "nfs"))
        .replace("FIRST", first.address)
        .replace("scp ", "cp ")
        .replace("OTHER:.ray/", f"{other.folder}/.ray/")
        .replace("demo", "smoke")
        for line in LINES
    )
    shell(first, start)
    assert (other.folder / ".ray/auth_token").stat().st_mode & 0o077 == 0
    shell(other, join)
    in_it = f"export RAY_AUTH_MODE=token UBT_STORE={tmp_path}/nfs/store && "
    assert "all 2 nodes are well" in shell(first, f"{in_it}ubt doctor --address auto")
    assert "DONE" in shell(first, in_it + sweep)
    assert {record.state for record in read_records(tmp_path / "nfs/runs/smoke/records")} == {"DONE"}
    (other.folder / ".ray/auth_token").unlink()
    with pytest.raises(RuntimeError, match="no cluster that can be joined"):
        shell(other, f"ubt doctor --address {first.address}:6379")


def test_a_head_without_cpus_decodes_nothing_for_a_store_on_s3(two: list[Host], tmp_path: Path) -> None:
    import boto3
    from moto.server import ThreadedMotoServer

    head, worker = two
    server = ThreadedMotoServer(ip_address=head.address.rpartition(".")[0] + ".1", port=0, verbose=False)
    server.start()
    try:
        endpoint = "http://{}:{}".format(*server.get_host_and_port())
        keys = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"}
        boto3.client(
            "s3", "us-east-1", endpoint_url=endpoint, aws_access_key_id="test", aws_secret_access_key="test"
        ).create_bucket(Bucket="ours")
        for host in two:
            token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0" * 64}
            host.environment |= {**keys, **token, "AWS_ENDPOINT_URL": endpoint, "UBT_STORE": "s3://ours/store"}
        head.start_ray(head, cpus=0)
        worker.start_ray(head, cpus=2)
        assert "DONE" in shell(head, f"ubt sweep smoke --address auto --out {tmp_path}/runs")
    finally:
        server.stop()
    assert {record.state for record in read_records(tmp_path / "runs/smoke/records")} == {"DONE"}
    images = {host.name: sorted(Path(host.environment["UBT_CACHE"]).glob("images/*.npy")) for host in two}
    assert images[head.name] == []
    assert images[worker.name]
