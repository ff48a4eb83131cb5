"""What near neighbours cost: scikit-learn's exact search against ours in blocks, CPU time of one thread in one process.

python benchmarks/neighbours.py                          # 20,000 and 50,000 points of 512 numbers
python benchmarks/neighbours.py --device cuda --rows 500000 --skip-sklearn
"""

from __future__ import annotations

import argparse
import os
import time

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from sklearn.neighbors import NearestNeighbors

from ubt.methods.neighbours import dimension_aware_outlierness, local_dimensions, nearest_neighbours, outlier_factors


def main() -> None:
    """Print seconds, what they come to at 500,000 points, and the largest difference between both."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[20_000, 50_000])
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--neighbours", type=int, default=16)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--skip-sklearn", action="store_true")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    for rows in asked.rows:
        # As embeddings are: unit vectors around a few hundred centres.
        torch.manual_seed(0)
        centres = torch.randn(300, asked.width)[torch.randint(300, (rows,))]
        points = torch.nn.functional.normalize(centres + 0.5 * torch.randn(rows, asked.width)).to(asked.device)
        nearest_neighbours(points[:256], asked.neighbours)
        start, wall = time.process_time(), time.perf_counter()
        near = nearest_neighbours(points, asked.neighbours)
        if asked.device != "cpu":
            torch.cuda.synchronize()
        found, wall = time.process_time() - start, time.perf_counter() - wall
        start = time.process_time()
        for factor in (outlier_factors, local_dimensions, dimension_aware_outlierness):
            factor(near)
        factors = time.process_time() - start
        scale = (500_000 / rows) ** 2
        print(f"{rows:,} points, ours: {found:.1f} s CPU, {wall:.1f} s wall; at 500,000: {found * scale / 3600:.2f} h")
        print(f"  the three factors from that: {factors:.2f} s")
        if asked.skip_sklearn:
            continue
        start = time.process_time()
        distances, _ = NearestNeighbors(n_neighbors=asked.neighbours).fit(points.cpu().numpy()).kneighbors()
        theirs = time.process_time() - start
        apart = (near.distances.cpu() - torch.from_numpy(distances)).abs().max()
        print(
            f"  scikit-learn: {theirs:.1f} s CPU; at 500,000: {theirs * scale / 3600:.2f} h; ratio {theirs / found:.2f}"
        )
        print(f"  largest difference of a distance: {apart:.1e}")


if __name__ == "__main__":
    main()
