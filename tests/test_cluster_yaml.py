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
    assert complete["available_node_types"]["gpu-spot"]["max_workers"] == 0
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


def test_two_numbers_switch_between_on_demand_and_spot_instances() -> None:
    switched = re.sub(r"(on_demand_workers: &\w+) 8", r"\1 0", TEXT)
    switched = re.sub(r"(spot_workers: &spot_workers) 0", r"\1 8", switched)
    types = prepared(yaml.safe_load(switched))["available_node_types"]
    assert (types["gpu"]["max_workers"], types["gpu-spot"]["max_workers"]) == (0, 8)
    spot = types["gpu-spot"]["node_config"]
    assert spot.pop("InstanceMarketOptions") == {"MarketType": "spot"}
    assert spot == types["gpu"]["node_config"]
    assert "InstanceMarketOptions" not in types["head"]["node_config"]


def test_workers_have_another_role_than_the_head(config: dict[str, Any]) -> None:
    roles = {name: node["node_config"]["IamInstanceProfile"]["Name"] for name, node in types_of(config)}
    assert roles == {"head": "ubt-head", "gpu": "ubt-worker", "gpu-spot": "ubt-worker"}


def test_root_disks_are_faster_than_gp3_s_least_and_hold_no_decoded_images_of_workers(config: dict[str, Any]) -> None:
    for _, node in types_of(config):
        disk = node["node_config"]["BlockDeviceMappings"][0]["Ebs"]
        assert (disk["VolumeType"], disk["Encrypted"]) == ("gp3", True)
        assert (
            125 < disk["Throughput"] <= 3000 / 4
        )  # MiB/s; what gp3's 3,000 operations a second without extra pay allow
    words = ["bash", "-c", f"{environment_of(config)} echo $UBT_CACHE"]
    cache = subprocess.run(words, check=True, capture_output=True, text=True)
    assert cache.stdout == "/ubt/cache\n"


def test_the_workers_own_nvme_holds_what_the_paper_s_study_needs(config: dict[str, Any]) -> None:
    """Decoded images of 500,000 pairs and ImageNet's 50,000, and as much again for data and what is fetched."""
    import boto3
    from moto import mock_aws

    with mock_aws():
        ec2 = boto3.client("ec2", "us-west-2", aws_access_key_id="testing", aws_secret_access_key="testing")
        wanted = config["available_node_types"]["gpu"]["node_config"]["InstanceType"]
        kind = ec2.describe_instance_types(InstanceTypes=[wanted])["InstanceTypes"][0]
    assert kind["InstanceStorageInfo"]["NvmeSupport"] in ("required", "supported")
    assert kind["InstanceStorageInfo"]["TotalSizeInGB"] * 1e9 > 2 * 550_000 * 224 * 224 * 3


def test_disk_and_data_are_there_before_ray_starts_and_on_every_node_under_one_path(config: dict[str, Any]) -> None:
    commands = config["setup_commands"]
    disk = next(number for number, command in enumerate(commands) if "instance_store.sh /ubt" in command)
    data = next(number for number, command in enumerate(commands) if "aws s3 sync" in command)
    assert disk < data
    assert commands[data].endswith("s3://REPLACE-WITH-BUCKET/data /ubt/data")


def test_what_is_replaced_is_told_and_nothing_else(config: dict[str, Any]) -> None:
    placeholders = set(re.findall(r"REPLACE-WITH-[A-Z-]+", TEXT))
    assert placeholders == {"REPLACE-WITH-IMAGE-ID", "REPLACE-WITH-GROUP-ID", "REPLACE-WITH-BUCKET"}


def types_of(config: dict[str, Any]) -> list[tuple[str, Any]]:
    return list(config["available_node_types"].items())


def environment_of(config: dict[str, Any]) -> str:
    """Return shell code that does what `~/.ubt_env` does."""
    command = next(command for command in config["setup_commands"] if "printf" in command and "ubt_env" in command)
    return "; ".join(re.findall(r"'(export [^']+)'", command)) + ";"


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
    assert {".git", "deploy/aws"} <= copied


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
    assert sorted(instance["InstanceType"] for instance in instances) == ["g5.xlarge", "g5.xlarge", "m6i.xlarge"]
    assert [instance.get("InstanceLifecycle") for instance in instances].count("spot") == 1
    assert {group["GroupName"] for instance in instances for group in instance["SecurityGroups"]} == {"ours"}
    assert [group["GroupName"] for group in groups if group["IpPermissions"]] == []


def _replace_placeholders(config: dict[str, Any], ec2: Any) -> None:
    import boto3

    for name in ("ubt-head", "ubt-worker"):
        boto3.client("iam").create_instance_profile(InstanceProfileName=name)
    network = ec2.describe_vpcs()["Vpcs"][0]["VpcId"]
    group = ec2.create_security_group(GroupName="ours", Description="ours", VpcId=network)["GroupId"]
    image = ec2.describe_images()["Images"][0]["ImageId"]
    for node in config["available_node_types"].values():
        node["node_config"] |= {"SecurityGroupIds": [group], "ImageId": image}
