"""A study at the paper's size on this machine: time stage by stage beside bare torch, and memory by process.

    python benchmarks/size.py --folder big                 # 500,000 pairs of 64 px: 2.2 GB of small files, an hour
    python benchmarks/size.py --folder small --divide 100  # everything by so much smaller: minutes

The data is made up and lies on disk as JPEG files with CSV lists; 1,500 of the pairs are poisoned, 50,000 images are
judged, of 1,000 classes with 80 prompts each. Clean and poisoned checkpoints of `tiny-rn` are trained on 20,000 of the
pairs first. Then `ubt plan` and `ubt sweep` run as commands, memory is sampled meanwhile, and stages are timed by the
trial's record. Bare torch takes as many images and captions through the same towers in the same batches, one thread.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from pathlib import Path

import numpy as np
import psutil
import yaml
from size_data import TARGET, Made, make

from ubt.artifacts.store import ArtifactStore
from ubt.common.atomic_files import write_whole
from ubt.trials.record import TrialRecord, read_records

UBT = [sys.executable, "-c", "from sweeps.cli.start import main; main()"]
_SAMPLED_SECONDS = 0.2
DECODED_BARE = 10_000
"""Images that the bare script decodes at most; its time for all of them is worked out from that."""


def main() -> None:
    """Make the data, run the study, run bare torch, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--divide", type=int, default=1, help="everything is by so much smaller")
    parser.add_argument("--address", default="local", help="`local` (Ray) or `inline`")
    parser.add_argument("--processes", type=int, default=1, help="that make pictures and decode them")
    parser.add_argument("--bare", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    folder = given.folder.absolute()
    if given.bare:
        print(json.dumps(bare(json.loads(given.bare.read_text()))))
        return
    os.environ.update(UBT_CACHE=str(folder / "cache"), OMP_NUM_THREADS="1", MPLBACKEND="Agg")
    by = given.divide
    made = Made(500_000 // by, max(2000, 20_000 // by), 50_000 // by, min(2000, 50_000 // by))
    make(folder, made, given.processes)
    learn(folder, made, given.processes)
    found = swept(folder, made, given.address, given.processes)
    found["bare"] = bare_apart(folder, found["work"])
    write_whole(folder / "size.json", json.dumps(found, indent=1))
    print(table(found))


def learn(folder: Path, made: Made, processes: int) -> None:
    """Train the checkpoints, clean and poisoned, as a study of its own."""
    if (folder / "poisoned.safetensors").is_file():
        return
    data = _data(folder, "learnt.csv", "few-labels.csv", processes) | {"pretrain": str(folder / "learnt.csv")}
    poisoned = min(1500, made.learnt // 10)
    victim = {
        "data": data | {"templates": "simple"},
        "model": {"name": "tiny-rn", "text_positions": "used"},
        "pretrain": {"epochs": 6},
        "attack": {"kind": "badnets", "target": TARGET, "poison_count": poisoned},
        "implant": {"epochs": 3, "min_asr": 0},
    }
    study = {"name": "learn", "victim": victim, "defense": {"kind": "none"}, "tracking": {"enabled": False}}
    run = _sweep(folder, study | {"gates": _NO_GATES}, "inline")[0]
    for which in ("clean", "poisoned"):
        out = str(folder / f"{which}.safetensors")
        subprocess.run([*UBT, "export", str(run), "t0000", "--which", which, "--out", out, "--force"], check=True)


_NO_GATES = {"clean_accuracy": {"act": "report"}}


def swept(folder: Path, made: Made, address: str, processes: int) -> dict[str, object]:
    """Plan and run the study; return how long its parts took, and how much memory."""
    study = {
        "name": "size",
        "victim": {
            "data": _data(folder, "pairs.csv", "labels.csv", processes) | {"templates": "openai"},
            "model": {
                "name": "tiny-rn",
                "checkpoint": str(folder / "clean.safetensors"),
                "activation": "gelu",
                "text_positions": "used",
            },
            "attack": {"kind": "badnets", "target": TARGET, "poison_count": max(20, made.pairs * 3 // 1000)},
            "poison": {"kind": "made"},
            "implant": {"checkpoint": str(folder / "poisoned.safetensors"), "min_asr": 0},
        },
        "defense": {"kind": "ubt", "suspicious_ratio": 0.01, "overfit_epochs": 2, "unlearn_epochs": 3},
        "judging": {"images": 1000},
        "gates": _NO_GATES,
        "objectives": {"epochs": "last"},
        "resources": {"concurrent_trials": 1},
        "tracking": {"enabled": False},
    }
    planned = _seconds(lambda: _planned(folder, study))
    before = _cpu_of_children()
    run, wall, memory, began, ended = _sweep(folder, study, address)
    cpu = _cpu_of_children() - before
    (record,) = read_records(run / "records")
    if record.state != "DONE":
        raise SystemExit(f"{record.state}: {record.reason}")
    return {
        "pairs": made.pairs,
        "plan": planned,
        "again": _seconds(lambda: _planned(folder, study)),
        "sweep": wall,
        "sweep_cpu": cpu,  # without what Ray starts: whole for `inline`
        "parts": _parts(record, began, ended),
        "stages": {stage.stage: stage.seconds for stage in record.stages},
        "work": _work(folder, record, made),
        "memory": memory,
        "rates": {"val": record.val.as_json() if record.val else None, "test": _json(record.test)},
        "diagnostics": {stage.stage: stage.diagnostics for stage in record.stages if stage.diagnostics},
    }


def _cpu_of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _json(rates: object) -> object:
    return rates.as_json() if hasattr(rates, "as_json") else None


def _data(folder: Path, pairs: str, labels: str, processes: int) -> dict[str, object]:
    files = {"pairs": pairs, "labels": labels, "classes": "classes.txt"}
    paths = {name: str(folder / file) for name, file in files.items()}
    return {"kind": "csv", **paths, "decode_workers": processes}


def _planned(folder: Path, study: Mapping[str, object]) -> None:
    (folder / "size.yaml").write_text(yaml.safe_dump(dict(study)))
    subprocess.run([*UBT, "plan", str(folder / "size.yaml")], check=True, stdout=subprocess.DEVNULL)


def _seconds(run: Callable[[], object]) -> float:
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


def _sweep(
    folder: Path, study: Mapping[str, object], address: str
) -> tuple[Path, float, dict[str, dict[str, int]], float, float]:
    """Run `ubt sweep`; return its folder, its seconds, what memory its processes had, and when it began and ended."""
    file, out = folder / f"{study['name']}.yaml", folder / "runs"
    file.write_text(yaml.safe_dump(dict(study)))
    began, began_at = time.perf_counter(), time.time()
    process = subprocess.Popen([*UBT, "sweep", str(file), "--out", str(out), "--address", address])
    sampler = Memory(process.pid)
    if process.wait():
        raise SystemExit(process.returncode)
    wall = time.perf_counter() - began
    newest = max(out.glob(f"{study['name']}*"), key=lambda path: path.stat().st_mtime)
    return newest, wall, sampler.stop(), began_at, began_at + wall


class Memory:
    """Samples the memory of a process and of all below it, until it is stopped."""

    def __init__(self, pid: int) -> None:
        self._root, self._stopped = psutil.Process(pid), threading.Event()
        self._peaks: dict[str, dict[str, int]] = {}
        self._thread = threading.Thread(target=self._sample)
        self._thread.start()

    def stop(self) -> dict[str, dict[str, int]]:
        """Return the most that one process of each kind had, in bytes: all of it, and its own without mapped files."""
        self._stopped.set()
        self._thread.join()
        return self._peaks

    def _sample(self) -> None:
        while not self._stopped.wait(_SAMPLED_SECONDS):
            try:
                processes = [self._root, *self._root.children(recursive=True)]
            except psutil.NoSuchProcess:
                return
            for process in processes:
                try:
                    self._note(_kind(process, self._root), _status(process.pid))
                except (psutil.Error, OSError, KeyError):
                    continue  # it has ended

    def _note(self, kind: str, status: Mapping[str, int]) -> None:
        peaks = self._peaks.setdefault(kind, {"rss": 0, "own": 0})
        peaks["rss"] = max(peaks["rss"], status["VmRSS"])
        peaks["own"] = max(peaks["own"], status["RssAnon"])


def _kind(process: psutil.Process, root: psutil.Process) -> str:
    if process.pid == root.pid:
        return "driver"
    words = " ".join(process.cmdline())
    if words.startswith("ray::"):
        return "worker"
    return "decoder" if "multiprocessing" in words else "of Ray, and others"


def _status(pid: int) -> dict[str, int]:
    lines = (line.split() for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return {words[0].rstrip(":"): int(words[1]) * 1024 for words in lines if words[-1] == "kB"}


def _parts(record: TrialRecord, began: float, ended: float) -> dict[str, float]:
    times = [(_time(stage.started_at), _time(stage.ended_at)) for stage in record.stages if not stage.reused]
    first, last = min(start for start, _ in times), max(end for _, end in times)
    in_stages = sum(end - start for start, end in times)
    return {
        "until the first stage": first - began,
        "in stages": in_stages,
        "between stages": last - first - in_stages,
        "after the last": ended - last,
    }


def _time(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def _work(folder: Path, record: TrialRecord, made: Made) -> dict[str, object]:
    """Return what the bare script is to do: the images and captions of each stage."""
    store = ArtifactStore(str(folder / "cache"))
    found = {stage.stage: store.manifest(stage.stage, stage.key) for stage in record.stages}
    return {
        "folder": str(folder),
        "decode": made.pairs + made.judged,
        "stages": {name: manifest.work for name, manifest in found.items() if manifest},
        "batches": {"overfit": 64, "unlearn": 112},
        "prompts": ["evaluate_clean", "implant"],  # whose captions are those of the classes
    }


def bare_apart(folder: Path, work: object) -> dict[str, float]:
    """Run the bare script in a process of its own."""
    path = folder / "work.json"
    path.write_text(json.dumps(work))
    command = [sys.executable, __file__, "--folder", str(folder), "--bare", str(path)]
    out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    found: dict[str, float] = json.loads(out.splitlines()[-1])
    return found


# Bare torch


def bare(work: Mapping[str, object]) -> dict[str, float]:
    """Return the CPU seconds of each stage's passes, on one thread, without stages, store, scheduler or records."""
    import torch  # noqa: PLC0415 — the process that samples memory needs none of it

    from ubt.data.vocabulary import read_templates  # noqa: PLC0415
    from ubt.models.build import build_clip  # noqa: PLC0415
    from ubt.models.settings import ModelSettings  # noqa: PLC0415

    torch.set_num_threads(1)
    folder = Path(str(work["folder"]))
    model = ModelSettings(checkpoint=folder / "clean.safetensors", text_positions="used", activation="gelu")
    clip = build_clip(model, 0, torch.device("cpu"))
    images = np.load(max((folder / "cache").rglob("images-*.npy"), key=lambda path: path.stat().st_size), mmap_mode="r")
    with (folder / "pairs.csv").open() as lines:
        next(lines)
        captions = [line.partition(",")[2].strip() for _, line in zip(range(100_000), lines, strict=False)]
    classes = (folder / "classes.txt").read_text().splitlines()
    prompts = clip.tokenize([form.format(name) for name in classes for form in read_templates("openai", [])])
    tokens_of = dict.fromkeys(work["prompts"], prompts)  # type: ignore[call-overload]
    of_captions = clip.tokenize(captions)
    found = {"decode": _decoding(folder, int(work["decode"]))}  # type: ignore[call-overload]
    batches: Mapping[str, int] = work["batches"]  # type: ignore[assignment]
    stages: Mapping[str, Mapping[str, float]] = work["stages"]  # type: ignore[assignment]
    for name, counts in stages.items():
        tokens = tokens_of.get(name, of_captions)
        began = time.process_time()
        with torch.no_grad():
            for batch in _batches(round(counts.get("images", 0)), 256, len(images)):
                clip.encode_images(torch.from_numpy(images[batch]))
            for batch in _batches(round(counts.get("captions", 0)), 256, len(tokens)):
                clip.encode_tokens(tokens[torch.from_numpy(batch)])
        _train(clip, images, tokens, counts, batches.get(name, 64))
        found[name] = time.process_time() - began
    return found


def _batches(count: int, size: int, of: int) -> Iterator[np.ndarray]:
    for start in range(0, count, size):
        yield np.arange(start, min(count, start + size)) % of


def _train(clip, images, tokens, counts, size) -> None:  # noqa: ANN001 — torch's are imported late
    import torch  # noqa: PLC0415

    net = clip.net
    trained, captions = round(counts.get("trained_images", 0)), round(counts.get("trained_captions", 0))
    for name, weight in net.named_parameters():
        weight.requires_grad_(name.startswith("visual.") or (captions > 0 and not name.startswith("token_embedding")))
    optimizer = torch.optim.AdamW([weight for weight in net.parameters() if weight.requires_grad], lr=1e-9)
    for batch in _batches(max(trained, captions), size, min(len(images), len(tokens))):
        optimizer.zero_grad(set_to_none=True)
        texts = clip.encode_tokens(tokens[torch.from_numpy(batch)]) if captions else torch.ones(1)
        seen = clip.encode_images(torch.from_numpy(images[batch])) if trained else torch.ones(1)
        (seen * texts).sum().backward()
        optimizer.step()


def _decoding(folder: Path, count: int) -> float:
    from ubt.data.decode import decode_image  # noqa: PLC0415

    some = [path for part in sorted((folder / "train").iterdir()) for path in part.iterdir()][:DECODED_BARE]
    began = time.process_time()
    for path in some:
        decode_image(path, 32)
    return (time.process_time() - began) * count / len(some)


def table(found: Mapping[str, object]) -> str:
    """Return the numbers as Markdown."""
    stages: Mapping[str, float] = found["stages"]  # type: ignore[assignment]
    measured: Mapping[str, float] = found["bare"]  # type: ignore[assignment]
    memory: Mapping[str, Mapping[str, int]] = found["memory"]  # type: ignore[assignment]
    parts: Mapping[str, float] = found["parts"]  # type: ignore[assignment]
    rows = [(name, seconds, measured.get(name, 0.0)) for name, seconds in stages.items()]
    ours, theirs = sum(row[1] for row in rows), sum(row[2] for row in rows)
    lines = [f"| {found['pairs']:,} pairs | s | bare torch, CPU s | ratio |", "|---|---|---|---|"]  # type: ignore[str-bytes-safe]
    lines += [_row(*row) for row in [*rows, ("all stages", ours, theirs)]]
    lines.append(_row("until the first stage (data decoded)", parts["until the first stage"], measured["decode"]))
    lines.append(_row("all of the sweep", float(found["sweep"]), theirs + measured["decode"]))  # type: ignore[arg-type]
    lines.append(_row("its CPU time", float(found["sweep_cpu"]), theirs + measured["decode"]))  # type: ignore[arg-type]
    lines += ["", "| process | RSS, GB | of it not of files, GB |", "|---|---|---|"]
    lines += [f"| {kind} | {peak['rss'] / 1e9:.2f} | {peak['own'] / 1e9:.2f} |" for kind, peak in memory.items()]
    lines += ["", f"plan: {found['plan']:.1f} s, again {found['again']:.1f} s; " + _said(parts)]
    return "\n".join(lines)


def _row(name: str, ours: float, theirs: float) -> str:
    ratio = f"{ours / theirs:.2f}" if theirs > 0.05 else ""
    return f"| {name} | {ours:.1f} | {theirs:.1f} | {ratio} |"


def _said(parts: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {seconds:.1f} s" for name, seconds in parts.items())


if __name__ == "__main__":
    main()
