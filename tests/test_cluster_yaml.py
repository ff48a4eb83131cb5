"""`cluster.yaml` without a cloud: Ray's own checks, what must not be open, a rehearsal on a false AWS."""

from __future__ import annotations

import copy
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "cluster.yaml").read_text(encoding="utf-8")
OPEN_TO_ALL = ("0.0.0.0", "::/0")


def prepared(config: dict[str, Any]) -> dict[str, Any]:
    from ray.autoscaler._private.util import prepare_config, validate_config

    complete = prepare_config(copy.deepcopy(config))
    validate_config(complete)
    return complete


@pytest.fixture
def config() -> dict[str, Any]:
    return yaml.safe_load(TEXT)


@pytest.fixture
def starts(config: dict[str, Any]) -> list[str]:
    return [" ".join(config[f"{node}_start_ray_commands"]) for node in ("head", "worker")]


def test_ray_accepts_the_file(config: dict[str, Any]) -> None:
    complete = prepared(config)
    assert complete["max_workers"] == 8
    gpu = complete["available_node_types"]["gpu"]
    assert (gpu["min_workers"], gpu["max_workers"]) == (0, 8)
    assert complete["available_node_types"]["head"]["max_workers"] == 0


@pytest.mark.parametrize(
    "spoil",
    [
        lambda config: config.update(idle_timeout_minuets=5),
        lambda config: config["available_node_types"]["gpu"].update(min_worker=1),
        lambda config: config["available_node_types"]["gpu"].update(resources={"GPU": 0.5}),
        lambda config: config.update(head_node_type="haed"),
        lambda config: config["available_node_types"]["gpu"].update(min_workers=9),
        lambda config: config["auth"].update(user="ubuntu"),
    ],
    ids=["top level typo", "node typo", "half a GPU", "head typo", "too many workers", "auth typo"],
)
def test_ray_s_check_finds_mistakes(config: dict[str, Any], spoil: Any) -> None:
    from jsonschema import ValidationError

    spoil(config)
    with pytest.raises((ValidationError, ValueError)):
        prepared(config)


def test_nothing_is_open_to_the_world(config: dict[str, Any]) -> None:
    complete = yaml.safe_dump(prepared(config))
    for address in OPEN_TO_ALL:
        assert address not in TEXT
        assert address not in complete


def test_every_node_names_its_security_group_so_that_ray_makes_none(config: dict[str, Any]) -> None:
    for node in config["available_node_types"].values():
        assert node["node_config"]["SecurityGroupIds"]
        assert node["node_config"]["MetadataOptions"]["HttpTokens"] == "required"


def test_the_dashboard_is_on_the_loopback(starts: list[str]) -> None:
    assert re.findall(r"--dashboard-host=(\S+)", starts[0]) == ["127.0.0.1"]


def test_head_and_workers_start_in_token_mode_only(config: dict[str, Any], starts: list[str]) -> None:
    for start in starts:
        assert len(re.findall(r"\bray start\b", start)) == 1
        assert "RAY_AUTH_MODE=token ray start" in start
        assert ("GRPC_ENABLE_FORK_SUPPORT=0" in start) == ("--head" in start)
    assert "'export RAY_AUTH_MODE=token'" in " ".join(config["setup_commands"])


def test_the_token_reaches_every_node_and_nobody_else(config: dict[str, Any]) -> None:
    assert config["file_mounts"]["~/.ray/auth_token"] == "~/.ray/auth_token"
    assert config["setup_commands"][0] == "chmod 700 ~/.ray && chmod 600 ~/.ray/auth_token"


def test_all_that_is_copied_exists_and_suffices_to_build_the_project(config: dict[str, Any]) -> None:
    copied = {source for source in config["file_mounts"].values() if not source.startswith("~")}
    assert [source for source in copied if not (ROOT / source).exists()] == []
    assert {"ubt", "sweeps", "analysis", "pyproject.toml", "requirements.lock", "README.md"} <= copied


def test_nodes_install_what_the_makefile_installs(config: dict[str, Any]) -> None:
    commands = " ".join(config["setup_commands"])
    version = re.search(r"UV_VERSION := (\S+)", (ROOT / "Makefile").read_text()).group(1)
    assert f"uv=={version}" in commands
    assert "--require-hashes -r ~/ubt-sweeper/requirements.lock" in commands
    assert "--no-deps --editable ~/ubt-sweeper" in commands


def test_every_command_is_valid_shell(config: dict[str, Any]) -> None:
    lists = ("setup_commands", "head_start_ray_commands", "worker_start_ray_commands")
    for command in (command for name in lists for command in config[name]):
        subprocess.run(["bash", "-n", "-c", command], check=True)


def test_the_environment_is_set_once_however_often_a_node_is_set_up(config: dict[str, Any], tmp_path: Path) -> None:
    commands = [command for command in config["setup_commands"] if "ubt_env" in command]
    for command in commands * 2:
        subprocess.run(["bash", "-c", command], check=True, env={"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"})
    assert (tmp_path / ".bashrc").read_text() == ". ~/.ubt_env\n"
    show = ". ~/.ubt_env; echo $RAY_AUTH_MODE $UBT_STORE"
    shell = subprocess.run(
        ["bash", "-c", show],
        check=True,
        env={"HOME": str(tmp_path), "PATH": "/bin"},
        capture_output=True,
        text=True,
    )
    assert shell.stdout == "token s3://REPLACE-WITH-BUCKET/ubt-store\n"


def test_a_false_aws_starts_the_nodes_and_no_rule_lets_the_world_in(
    config: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray's own preparation and launch of both node types; parameters are checked by the real botocore."""
    import boto3
    from moto import mock_aws

    monkeypatch.setenv("HOME", str(tmp_path))  # Ray writes a key pair to ~/.ssh
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    with mock_aws():
        from ray.autoscaler._private.aws.config import bootstrap_aws
        from ray.autoscaler._private.aws.node_provider import AWSNodeProvider

        ec2 = boto3.client("ec2", config["provider"]["region"])
        _replace_placeholders(config, ec2)
        complete = bootstrap_aws(prepared(config))
        provider = AWSNodeProvider(complete["provider"], complete["cluster_name"])
        for node in complete["available_node_types"].values():
            provider.create_node(node["node_config"], {}, 1)
        instances = [found for part in ec2.describe_instances()["Reservations"] for found in part["Instances"]]
        groups = ec2.describe_security_groups()["SecurityGroups"]
    assert sorted(instance["InstanceType"] for instance in instances) == ["g5.xlarge", "m6i.xlarge"]
    assert {group["GroupName"] for instance in instances for group in instance["SecurityGroups"]} == {"ours"}
    assert [group["GroupName"] for group in groups if group["IpPermissions"]] == []


def _replace_placeholders(config: dict[str, Any], ec2: Any) -> None:
    import boto3

    boto3.client("iam").create_instance_profile(InstanceProfileName="ours")
    network = ec2.describe_vpcs()["Vpcs"][0]["VpcId"]
    group = ec2.create_security_group(GroupName="ours", Description="ours", VpcId=network)["GroupId"]
    image = ec2.describe_images()["Images"][0]["ImageId"]
    for node in config["available_node_types"].values():
        node["node_config"] |= {
            "SecurityGroupIds": [group],
            "ImageId": image,
            "IamInstanceProfile": {"Name": "ours"},
        }
