"""`deploy/aws/` without a cloud: what each role may do, an instance's disk and end, a node's commit."""

from __future__ import annotations

import json
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from sweeps.run.commit import commit_of_code

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deploy" / "aws"
CONFIG = yaml.safe_load((ROOT / "cluster.yaml").read_text(encoding="utf-8"))
BUCKET, ACCOUNT = "ours", "123456789012"


def policy(name: str) -> str:
    text = (FOLDER / name).read_text(encoding="utf-8")
    return text.replace("REPLACE-WITH-BUCKET", BUCKET).replace("REPLACE-WITH-ACCOUNT", ACCOUNT)


class TestRoles:
    """Moto refuses what a policy does not allow, as AWS does; conditions it does not look at."""

    @pytest.fixture
    def client(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Any]]:
        """Yield what makes a client with the rights of policies."""
        import boto3
        from moto import mock_aws
        from moto.core import set_initial_no_auth_action_count

        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.setenv(name, "testing")
        region = CONFIG["provider"]["region"]
        with mock_aws():
            boto3.client("s3", region).create_bucket(
                Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": region}
            )
            iam = boto3.client("iam")

            def having(service: str, *policies: str) -> Any:
                name = "-".join(file.removesuffix(".json") for file in policies) + service
                iam.create_user(UserName=name)
                for file in policies:
                    iam.put_user_policy(UserName=name, PolicyName=file, PolicyDocument=policy(file))
                key = iam.create_access_key(UserName=name)["AccessKey"]
                return boto3.client(
                    service,
                    region,
                    aws_access_key_id=key["AccessKeyId"],
                    aws_secret_access_key=key["SecretAccessKey"],
                )

            yield lambda service, *policies: Enforced(having(service, *policies), set_initial_no_auth_action_count)

    WORKER, HEAD = ("bucket.json",), ("bucket.json", "head-role.json")

    def test_a_worker_may_not_start_or_end_machines(self, client: Callable[..., Any]) -> None:
        ec2 = client("ec2", *self.WORKER)
        for call, words in (
            ("run_instances", {"ImageId": "ami-12345678", "MinCount": 1, "MaxCount": 1}),
            ("terminate_instances", {"InstanceIds": ["i-1234567890abcdef0"]}),
            ("describe_instances", {}),
        ):
            assert ec2.refused(call, **words), call
        assert client("iam", *self.WORKER).refused("list_roles")

    def test_a_head_may_start_machines_and_look_at_them(self, client: Callable[..., Any]) -> None:
        ec2 = client("ec2", *self.HEAD)
        assert not ec2.refused("run_instances", ImageId="ami-12345678", MinCount=1, MaxCount=1)
        assert not ec2.refused("describe_instances")
        assert ec2.refused("delete_security_group", GroupName="default")
        assert client("iam", *self.HEAD).refused("create_access_key", UserName="anyone")

    @pytest.mark.parametrize("role", [WORKER, HEAD], ids=["worker", "head"])
    def test_both_use_the_store_and_no_other_bucket(self, client: Callable[..., Any], role: tuple[str, ...]) -> None:
        s3 = client("s3", *role)
        assert not s3.refused("put_object", Bucket=BUCKET, Key="ubt-store/a", Body=b"1")
        assert not s3.refused("get_object", Bucket=BUCKET, Key="ubt-store/a")
        assert not s3.refused("list_objects_v2", Bucket=BUCKET)
        assert s3.refused("list_buckets")

    def test_a_head_ends_machines_of_its_cluster_alone_and_passes_on_one_role_alone(self) -> None:
        statements = {one["Sid"]: one for one in json.loads(policy("head-role.json"))["Statement"]}
        ends = statements["EndItsOwnMachinesOnly"]["Condition"]["StringEquals"]
        assert ends == {"ec2:ResourceTag/ray-cluster-name": CONFIG["cluster_name"]}
        starts = statements["StartWorkers"]["Condition"]["StringEquals"]
        assert starts == {"aws:RequestedRegion": CONFIG["provider"]["region"]}
        worker = CONFIG["available_node_types"]["gpu"]["node_config"]["IamInstanceProfile"]["Name"]
        assert statements["GiveWorkersTheirRoleAndNoOther"]["Resource"] == f"arn:aws:iam::{ACCOUNT}:role/{worker}"


class Enforced:
    """A client whose calls are checked against its policies."""

    def __init__(self, client: Any, enforce: Callable[[int], Any]) -> None:
        self._client, self._enforce = client, enforce

    def refused(self, call: str, **words: object) -> bool:
        """Call, and tell whether the rights for it were missing; what else is wrong with a call does not matter."""
        from botocore.exceptions import ClientError

        @self._enforce(0)
        def checked() -> None:
            getattr(self._client, call)(**words)

        try:
            checked()
        except ClientError as error:
            return error.response["Error"]["Code"] in ("UnauthorizedOperation", "AccessDenied", "403")
        return False


class TestInstanceStore:
    """The script runs for real, on a machine whose disks and root's rights are played."""

    BLOCK = "/dev/nvme0n1 Amazon Elastic Block Store\n"
    OWN = "/dev/nvme1n1 Amazon EC2 NVMe Instance Storage\n"

    def run(self, folder: Path, disks: str, mounted: str = "") -> tuple[str, list[str]]:
        """Run the script once and return where the link leads, and what root was asked for; both in `folder`."""
        programs, root, log = folder / "programs", folder / "root", folder / "log"
        programs.mkdir(exist_ok=True)
        root.mkdir(exist_ok=True)
        (folder / "disks").write_text(disks)
        for name, script in {
            "lsblk": f"cat {folder}/disks",
            "mountpoint": f'grep -qx "$2" {folder}/mounted',
            "mkfs.ext4": ":",
            "mount": f'echo "$4" >> {folder}/mounted',
            # As root, but below a folder of its own.
            "sudo": f"""echo "$@" >> {log}
                words=(); for word in "$@"; do [[ $word == /[a-z]* && $word != /dev/* && $word != {folder}/* ]] \
                && [[ $1 != mount ]] && word={root}$word; words+=("$word"); done; "${{words[@]}}" """,
        }.items():
            (programs / name).write_text(f"#!/bin/bash\n{script}\n")
            (programs / name).chmod(0o755)
        if not (folder / "mounted").exists():
            (folder / "mounted").write_text(mounted)
        log.unlink(missing_ok=True)
        subprocess.run(
            ["bash", str(FOLDER / "instance_store.sh"), str(folder / "ubt")],
            check=True,
            env={"PATH": f"{programs}:/usr/bin:/bin"},
            capture_output=True,
        )
        link = str((folder / "ubt").readlink()).removeprefix(str(root))
        return link, log.read_text().splitlines()

    def test_a_bare_nvme_is_formatted_once_and_mounted(self, tmp_path: Path) -> None:
        place, asked = self.run(tmp_path, self.BLOCK + self.OWN)
        assert place == "/mnt/instance-store/ubt"
        assert [words for words in asked if words.startswith("mkfs")] == ["mkfs.ext4 -q -F -m 0 /dev/nvme1n1"]
        (tmp_path / "root" / "mnt/instance-store/ubt/cache/images.npy").touch()
        place, asked = self.run(tmp_path, self.BLOCK + self.OWN)
        assert place == "/mnt/instance-store/ubt"
        assert [words for words in asked if words.startswith(("mkfs", "mount "))] == []
        assert (tmp_path / "root" / "mnt/instance-store/ubt/cache/images.npy").exists()

    def test_one_that_the_image_has_mounted_is_taken_as_it_is(self, tmp_path: Path) -> None:
        place, asked = self.run(tmp_path, self.BLOCK + self.OWN, mounted="/opt/dlami/nvme\n")
        assert place == "/opt/dlami/nvme/ubt"
        assert [words for words in asked if words.startswith(("mkfs", "mount "))] == []

    def test_without_one_the_root_disk_is_taken_and_no_volume_is_formatted(self, tmp_path: Path) -> None:
        place, asked = self.run(tmp_path, self.BLOCK)
        assert place == "/var/lib/ubt"
        assert [words for words in asked if words.startswith(("mkfs", "mount "))] == []


class TestSpotNotice:
    """The script runs against a metadata service that is played, with a `ray` that writes down what it is asked for."""

    @pytest.fixture
    def metadata(self) -> Iterator[HTTPServer]:
        class Service(BaseHTTPRequestHandler):
            def do_PUT(self) -> None:
                assert self.headers["X-aws-ec2-metadata-token-ttl-seconds"]
                self.answer(self.path == "/api/token", b"a-token")

            def do_GET(self) -> None:
                asked.append(self.path)
                known = self.headers["X-aws-ec2-metadata-token"] == "a-token" and len(asked) > 2
                self.answer(known, b'{"action": "terminate"}')

            def answer(self, well: bool, content: bytes) -> None:
                self.send_response(200 if well else 404)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: object) -> None:
                pass

        asked: list[str] = []
        server = ThreadingHTTPServer(("127.0.0.1", 0), Service)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()
        server.server_close()

    def test_ray_hears_of_the_instance_s_end_once_aws_announces_it(self, metadata: HTTPServer, tmp_path: Path) -> None:
        ray = tmp_path / "ray"
        ray.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
        ray.chmod(0o755)
        said = subprocess.run(
            ["bash", str(FOLDER / "spot_notice.sh"), "10.0.0.1:6379"],
            check=True,
            timeout=60,
            capture_output=True,
            text=True,
            env={
                "PATH": f"{tmp_path}:/usr/bin:/bin",
                "TMPDIR": str(tmp_path),
                "UBT_METADATA": f"http://127.0.0.1:{metadata.server_port}",
                "UBT_METADATA_SECONDS": "0.05",
            },
        ).stdout
        from ray.scripts.scripts import drain_node

        program, *words = said.splitlines()
        assert program == "drain-node"
        found = drain_node.make_context(program, words).params
        assert (found["address"], found["reason"]) == ("10.0.0.1:6379", "DRAIN_NODE_REASON_PREEMPTION")
        assert 0 < found["deadline_remaining_seconds"] < 120


class TestCommit:
    @pytest.fixture
    def checkout(self, tmp_path: Path) -> Path:
        """Return a repository like this one."""
        folder = tmp_path / "checkout"
        for file in ("ubt/a.py", "sweeps/run/b.py", "analysis/c.py", "docs/d.md"):
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            (folder / file).write_text("1\n")
        git(folder, "init", "--quiet")
        git(folder, "add", ".")
        git(folder, "-c", "user.name=a", "-c", "user.email=a@b", "commit", "--quiet", "--message", "first")
        return folder

    @pytest.fixture
    def node(self, checkout: Path, tmp_path: Path) -> Path:
        """Return what `ray up` leaves of it on a node."""
        folder = tmp_path / "node"
        folder.mkdir()
        for part in (".git", "ubt", "sweeps", "analysis"):
            shutil.copytree(checkout / part, folder / part)
        cleaning = next(command for command in CONFIG["setup_commands"] if ".git/config" in command)
        home = tmp_path / "home"
        home.mkdir()
        (home / "ubt-sweeper").symlink_to(folder)
        subprocess.run(["bash", "-c", cleaning], check=True, env={"HOME": str(home), "PATH": "/usr/bin:/bin"})
        return folder

    def test_a_node_with_a_part_of_the_checkout_knows_the_commit(self, checkout: Path, node: Path) -> None:
        head = git(checkout, "rev-parse", "--short=12", "HEAD")
        assert not (node / ".git/config").exists()
        assert commit_of_code(node / "sweeps/run") == head
        (node / "analysis/c.py").write_text("2\n")
        assert commit_of_code(node / "sweeps/run") == f"{head}+"

    def test_a_change_beside_the_code_is_none_of_it(self, checkout: Path) -> None:
        (checkout / "docs/d.md").write_text("2\n")
        assert commit_of_code(checkout / "sweeps/run") == git(checkout, "rev-parse", "--short=12", "HEAD")

    def test_a_container_says_it_by_a_variable(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
        assert commit_of_code(tmp_path) == ""
        monkeypatch.setenv("UBT_COMMIT", "0123456789ab+")
        assert commit_of_code(tmp_path) == "0123456789ab+"


def git(folder: Path, *words: str) -> str:
    done = subprocess.run(["git", *words], cwd=folder, check=True, capture_output=True, text=True)
    return done.stdout.strip()
