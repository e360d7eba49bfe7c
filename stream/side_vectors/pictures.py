"""Pictures of items, read by a transformers vision model.

A picture belongs to the item whose id is the file's name without its ending, percent-encoded
where an id has characters that a file name cannot have.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from profiles.errors import ModelError, SettingsError
from stream.side_vectors.source import BadSource, Source

ENDINGS = frozenset({".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff"})
MOST_PIXELS = 64_000_000
"""A file of a few kilobytes can unfold to more than the memory holds."""


@dataclass(frozen=True, slots=True)
class PictureReader:
    """`width`: numbers of a vector."""

    processor: Any  # transformers' processors and models are untyped
    model: Any
    width: int

    @classmethod
    def load(cls, encoder: str) -> PictureReader:
        """`encoder`: a directory or a hub name; of a model for texts and pictures (CLIP, SigLIP)
        the half that sees.

        Raises: SettingsError without a name or without Pillow; ModelError when it cannot be loaded.
        """
        if not encoder:
            raise SettingsError(
                "no vision model is named: set data.picture_encoder to a directory or to a "
                "transformers hub name such as openai/clip-vit-base-patch32"
            )
        try:
            import PIL  # noqa: F401
        except ImportError as error:
            raise SettingsError(
                "reading pictures needs Pillow: pip install 'driftline[vectors]'"
            ) from error
        from transformers import AutoModel

        # By its own module: the package's door to it wants torchvision, which it can do without.
        from transformers.models.auto.image_processing_auto import AutoImageProcessor

        is_local = Path(encoder).is_dir()
        try:
            load: Any = AutoImageProcessor.from_pretrained  # transformers does not type it
            processor = load(encoder, local_files_only=is_local)
            model = AutoModel.from_pretrained(encoder, local_files_only=is_local)
        except (OSError, ValueError, ImportError) as error:
            raise ModelError(
                f"vision model {encoder!r} cannot be loaded: {str(error).splitlines()[0]}; "
                "data.picture_encoder must be a directory with config.json, "
                "preprocessor_config.json and model.safetensors, or a hub name that this machine "
                "can reach"
            ) from error
        model = getattr(model, "vision_model", model).eval()
        width = getattr(model.config, "hidden_size", None)
        if width is None:
            raise ModelError(f"{encoder!r} is no vision model that gives one vector a picture")
        return cls(processor, model, int(width))

    def read(self, path: Path) -> list[float]:
        """One picture's vector: the model's pooled output, or the mean over its patches where it
        has none.  Shapes: -> (width,).  Raises: BadSource.
        """
        import torch
        from PIL import Image

        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error", Image.DecompressionBombWarning)
                with Image.open(path) as opened:
                    if opened.width * opened.height > MOST_PIXELS:
                        raise BadSource(f"{opened.width}x{opened.height} pixels are too many")
                    picture = opened.convert("RGB")
        # A damaged file may end in nearly any error of its format's decoder.
        except (OSError, ValueError, SyntaxError, Warning, Image.DecompressionBombError) as error:
            raise BadSource(f"{path.name}: {error}") from error
        with torch.inference_mode():
            seen = self.model(**self.processor(images=picture, return_tensors="pt"))
        pooled = getattr(seen, "pooler_output", None)
        if pooled is None:
            pooled = seen.last_hidden_state.mean(dim=1)
        vector: list[float] = pooled.flatten().float().tolist()
        return vector


def pictures_in(folder: Path, reader: PictureReader) -> Iterator[Source]:
    """Every picture of a folder, by name; other files are passed over."""
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() in ENDINGS and path.is_file():
            yield Source(unquote(path.stem), path.name, functools.partial(reader.read, path))
