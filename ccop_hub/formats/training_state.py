"""Read the training state saved by a run; the file is not trusted, since it may have been replaced."""

from __future__ import annotations

import pickle
import re
import zipfile
from pathlib import Path
from typing import Any

import torch

from ..errors import UserError, one_line
from ..regular_files import open_regular


def read_training_state(path: Path, remedy: str, map_location: Any = "cpu") -> dict[str, Any]:
    """Read a `torch.save` file that contains only tensors and plain values; anything else could run code.

    Args:
        path: the file.
        remedy: what to do about a rejected file; appended to the error message.
        map_location: device of the tensors, as for `torch.load`.

    Raises:
        UserError: the file is damaged, is not a dictionary, or contains other objects.
    """
    try:
        with open_regular(path) as file:
            contents = torch.load(file, map_location=map_location, weights_only=True)
    except pickle.UnpicklingError as error:
        found = re.search(r"(?:GLOBAL|global|class|function) `?([\w.]+\.[\w.]+)", str(error))
        what = f" ({found[1]})" if found else ""
        raise UserError(
            f"{path} contains more than tensors and plain values{what}, which could run code, and is not loaded: "
            f"{remedy}"
        ) from error
    except OSError as error:
        raise UserError(f"cannot read {path} ({error.strerror or one_line(error)}): {remedy}") from error
    # torch and the pickle machine raise many different exceptions for damaged files.
    except (RuntimeError, ValueError, LookupError, TypeError, AttributeError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"{path} is damaged ({one_line(error)}): {remedy}") from error
    if not isinstance(contents, dict):
        raise UserError(f"{path} contains no training state: {remedy}")
    return contents
