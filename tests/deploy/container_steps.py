"""Run the steps of a Dockerfile without Docker: each stage is a folder with a Debian in it, each step a command in it.

Needs root and debootstrap. What the instructions mean is Docker's; only those that deploy/Dockerfile has are known.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

_TOOLS = ("debootstrap", "unshare", "chroot", "mount")
_OURS = re.compile(r"PIP_|UV_|SSL_|REQUESTS_|.*_proxy$|.*_PROXY$")
"""Variables that say where this machine gets packages from."""
_OF_THIS_MACHINE = (
    *("/etc/resolv.conf", "/etc/hosts", "/etc/pip.conf", "/root/.config/pip/pip.conf"),
    *("/etc/uv/uv.toml", "/root/.config/uv/uv.toml", "/etc/apt/apt.conf.d"),
)
_CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")


@cache
def why_not() -> str:
    """Return why steps cannot be run here; empty if they can."""
    lacking = [tool for tool in _TOOLS if shutil.which(tool) is None]
    if lacking:
        return f"install {', '.join(lacking)} to run a Dockerfile's steps"
    return "" if os.geteuid() == 0 else "a Dockerfile's steps need root"


@dataclass
class Stage:
    """A stage of a build, and in the end the image."""

    root: Path
    environment: dict[str, str] = field(default_factory=lambda: {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"})
    arguments: dict[str, str] = field(default_factory=dict)
    shell: list[str] = field(default_factory=lambda: ["/bin/sh", "-c"])
    folder: str = "/"
    user: str = "0"

    def run(self, *words: str, mounts: Mapping[Path, str] | None = None, **variables: str) -> str:
        """Run a command in the stage and return what it prints.

        Raises:
            RuntimeError: if it fails.
        """
        binds = {Path("/dev"): "/dev", Path("/dev/shm"): "/dev/shm", **(mounts or {})}
        script = "".join(
            f"mkdir -p {self.root}{there} && mount --bind {here} {self.root}{there} && "
            for here, there in binds.items()
        )
        script += f"mount -t proc proc {self.root}/proc && "
        user = [] if self.user == "0" else [f"--userspec={self.user}:{self.user}"]
        inside = [
            shutil.which("chroot") or "chroot",
            *user,
            str(self.root),
            "sh",
            "-c",
            f'cd {shlex.quote(self.folder)} && exec "$@"',
            "sh",
        ]
        script += shlex.join([*inside, *words])
        done = subprocess.run(
            ["unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", script],
            env={**self.environment, **variables},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"{shlex.join(words)} ended with {done.returncode}:\n{done.stdout[-4000:]}")
        return done.stdout


def build(dockerfile: Path, context: Path, folder: Path, arguments: Mapping[str, str]) -> Stage:
    """Run all steps and return the last stage; `folder` takes what is made."""
    stages: dict[str, Stage] = {}
    stage: Stage | None = None
    for word, rest in _instructions(dockerfile.read_text(encoding="utf-8")):
        if word == "FROM":
            image, _, name = rest.partition(" AS ")
            stage = Stage(_debian(image.partition(":")[2].partition("-")[0], folder, f"stage-{len(stages)}"))
            stages[name or "last"] = stage
            continue
        assert stage is not None
        values = {**stage.arguments, **stage.environment}
        if word == "ARG":
            name, _, default = rest.partition("=")
            stage.arguments[name] = arguments.get(name, default)
        elif word == "ENV":
            stage.environment |= {
                name: _filled(value, values) for name, _, value in (one.partition("=") for one in shlex.split(rest))
            }
        elif word == "SHELL":
            stage.shell = [one.strip(' "') for one in rest.strip("[]").split(",")]
        elif word == "WORKDIR":
            stage.folder = rest
            (stage.root / rest.lstrip("/")).mkdir(parents=True, exist_ok=True)
        elif word == "USER":
            stage.user = rest
        elif word == "RUN":
            mounts, variables = _packages_from_where_this_machine_gets_them()
            stage.run(*stage.shell, rest, mounts=mounts, **{**variables, **stage.arguments})
        elif word == "COPY":
            _copy(rest, stage, context, stages)
        elif word != "CMD":
            raise NotImplementedError(word)
    assert stage is not None
    return stage


def _packages_from_where_this_machine_gets_them() -> tuple[dict[Path, str], dict[str, str]]:
    """Return the mounts and variables of a step that installs something."""
    cache = Path(os.environ.get("UV_CACHE_DIR") or Path.home() / ".cache/uv")
    cache.mkdir(parents=True, exist_ok=True)
    ours = {name: value for name, value in os.environ.items() if _OURS.match(name)}
    variables = {**ours, "UV_CACHE_DIR": "/var/cache/uv", "DEBIAN_FRONTEND": "noninteractive"}
    mounts = {cache: "/var/cache/uv"}
    if _CERTIFICATES.exists():  # those of the stage would not do behind a proxy
        mounts[_CERTIFICATES.parent] = "/var/cache/certificates"
        trusted = f"/var/cache/certificates/{_CERTIFICATES.name}"
        variables |= {name: trusted for name, value in ours.items() if value == str(_CERTIFICATES)}
        variables.pop("SSL_CERT_DIR", None)
    return mounts, variables


def _instructions(text: str) -> Iterator[tuple[str, str]]:
    lines = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))
    for line in re.sub(r"\\\n\s*", "", lines).splitlines():
        if line.strip():
            word, _, rest = line.partition(" ")
            yield word, rest.strip()


def _filled(value: str, values: Mapping[str, str]) -> str:
    return re.sub(r"\$(\w+)", lambda found: values.get(found[1], ""), value)


def _copy(rest: str, stage: Stage, context: Path, stages: Mapping[str, Stage]) -> None:
    words = rest.split()
    source = context
    if words[0].startswith("--from="):
        source = stages[words.pop(0).partition("=")[2]].root
    *files, target = words
    place = stage.root / os.path.normpath(f"{stage.folder}/{target}" if not target.startswith("/") else target).lstrip(
        "/"
    )
    for file in files:
        found = source / file.lstrip("/")
        if found.is_dir():  # hard links: an environment is gigabytes
            ignore = shutil.ignore_patterns("__pycache__") if source == context else None
            link = shutil.copy2 if source == context else os.link
            shutil.copytree(found, place, symlinks=True, ignore=ignore, copy_function=link, dirs_exist_ok=True)
        else:
            shutil.copy2(found, place / found.name if place.is_dir() else place)


def _debian(release: str, folder: Path, name: str) -> Path:
    """Return a Debian of its own, made once and copied, that gets packages from where this machine gets them."""
    made = folder / release
    if not made.exists():
        mirror, suites = _sources()
        subprocess.run(
            ["debootstrap", "--variant=minbase", release, str(made), mirror], check=True, stdout=subprocess.DEVNULL
        )
        (made / "etc/apt/sources.list").write_text(suites)
        for path in map(Path, _OF_THIS_MACHINE):
            target = made / str(path).lstrip("/")
            if path.is_dir():
                shutil.copytree(path, target, dirs_exist_ok=True)
            elif path.exists():
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(path, target)
    root = folder / name
    subprocess.run(["cp", "-a", str(made), str(root)], check=True)
    return root


def _sources() -> tuple[str, str]:
    """Return this machine's mirror, and its sources for another one."""
    lists = [Path("/etc/apt/sources.list"), *sorted(Path("/etc/apt/sources.list.d").glob("*"))]
    text = "\n".join(path.read_text() for path in lists if path.exists())
    mirror = re.search(r"^URIs:\s*(\S+/debian/?)$|^deb (?:\[[^]]*\] )?(\S+/debian/?) ", text, re.MULTILINE)
    if mirror is None:
        raise RuntimeError("no Debian mirror is named in /etc/apt")
    address = mirror[1] or mirror[2]
    release = re.search(r"VERSION_CODENAME=(\w+)", Path("/etc/os-release").read_text())[1]  # type: ignore[index]
    return address, f"deb {address} {release} main\n"
