"""Images that lie as rows of one picture, such as the 4,000 CIFAR-10 photographs of convnetjs, as a list of files.

    python examples/unpack_rows.py cifar10_lossless4k/ photos/ --test 1000
    gen train --plugin image --data photos/photos.csv

Each PNG of the folder holds an image a row, side x side pixels from the upper left on. A .npy file beside them, where there is
one, holds a class for each row of all PNGs in the order of their names. Images to hold out are drawn with a fixed seed.
"""

from __future__ import annotations

import argparse
import csv
import math
import sys
from pathlib import Path

import numpy as np
from PIL import Image

SPLIT_SEED = 0


def read_rows(folder: Path) -> tuple[np.ndarray, np.ndarray | None]:
    """Images (N, S, S, C) uint8 of all PNGs, and their classes (N,) where there are any."""
    files = sorted(folder.glob("*.png"), key=lambda file: file.name)
    if not files:
        sys.exit(f"{folder} holds no .png; expected pictures with an image a row")
    parts = []
    for file in files:
        rows = np.asarray(Image.open(file).convert("RGB"))
        side = math.isqrt(rows.shape[1])
        if side * side != rows.shape[1]:
            sys.exit(f"{file}: rows of {rows.shape[1]} pixels are no square images")
        parts.append(rows.reshape(-1, side, side, 3))
    images, given = np.concatenate(parts), sorted(folder.glob("*.npy"), key=lambda file: file.name)
    labels = np.load(given[0], allow_pickle=False) if given else None
    if labels is not None and labels.shape != (len(images),):
        sys.exit(f"{given[0]}: {labels.shape} classes for {len(images)} images; expected one for each")
    return images, labels


def write_list(images: np.ndarray, labels: np.ndarray | None, out: Path, num_test: int) -> Path:
    """A PNG for each image, and a list with its class and split."""
    if not 0 <= num_test < len(images):
        sys.exit(f"--test {num_test} of {len(images)} images leaves none to train on")
    held_out = set(np.random.default_rng(SPLIT_SEED).permutation(len(images))[:num_test].tolist())
    (out / "images").mkdir(parents=True, exist_ok=True)
    target = out / "photos.csv"
    with target.open("w", newline="", encoding="utf-8") as stream:
        rows = csv.writer(stream)
        rows.writerow(["path", "split"] + (["label"] if labels is not None else []))
        for index, image in enumerate(images):
            name = f"images/{index:05d}.png"
            Image.fromarray(image).save(out / name)
            label = [int(labels[index])] if labels is not None else []
            rows.writerow([name, "test" if index in held_out else "train", *label])
    return target


def main() -> None:
    """Read, write, say what was written."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", type=Path, help="folder of PNG files")
    parser.add_argument("out", type=Path, help="folder to write to")
    parser.add_argument("--test", type=int, default=0, help="images to hold out (0)")
    given = parser.parse_args()
    images, labels = read_rows(given.rows)
    target = write_list(images, labels, given.out, given.test)
    print(f"{target}: {len(images)} images of {images.shape[1]}x{images.shape[2]}, {given.test} held out")


if __name__ == "__main__":
    main()
