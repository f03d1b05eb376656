"""Images of any size, 1 to 4 channels, class-conditional or not. This module stays torch-free."""

from __future__ import annotations

from advgen import DataSet, PluginSpec, RemoteFile, hookimpl
from advgen_image.presets import PRESETS

_MNIST = "https://ossci-datasets.s3.amazonaws.com/mnist"
# As published; the same four hashes stand in many programs that fetch them.
_MNIST_FILES = {
    "train-images-idx3-ubyte.gz": "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
    "train-labels-idx1-ubyte.gz": "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
    "t10k-images-idx3-ubyte.gz": "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
    "t10k-labels-idx1-ubyte.gz": "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
}
MNIST = DataSet(
    summary="handwritten digits: 60,000 to train on and 10,000 to test, grey, 28x28",
    home="http://yann.lecun.com/exdb/mnist",
    licence="CC BY-SA 3.0",
    terms="Name Yann LeCun and Corinna Cortes, who hold the copyright; share adapted data under the same license.",
    files=tuple(RemoteFile(name, f"{_MNIST}/{name}", sha256) for name, sha256 in _MNIST_FILES.items()),
)


@hookimpl
def advgen_register() -> PluginSpec:
    """Declare the image plugin."""
    return PluginSpec(
        name="image",
        summary="Images: embedded shapes, idx files, image files or Hugging Face sets; class-conditional or not.",
        config="advgen_image.config:ImageConfig",
        modality="advgen_image.modality:ImageModality",
        reads=(
            *("*.png", "*.jpg", "*.jpeg", "*.bmp", "*.gif", "*.webp", "*.tif", "*.tiff"),
            *("*idx3*", "*idx1*", "*.parquet", "*.arrow"),
        ),
        addresses=("hub",),
        reads_zip=True,
        hub_task="unconditional-image-generation",
        intended_use="Research, teaching and creative work with generated images like those in the training data.",
        out_of_scope="Images passed off as photographs of real people, things or events; decisions about people.",
        datasets={"mnist": MNIST},
        presets=PRESETS,
        requires={"numpy": "numpy", "PIL": "pillow", "scipy.ndimage": "scipy"},
    )
