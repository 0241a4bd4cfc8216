"""Python functions for the commands of `ccop-hub`; their arguments are the fields of the settings classes."""

from __future__ import annotations

from . import tasks
from .front import front
from .settings import ConvertSettings, EmbedSettings, InfoSettings, PublishSettings, VerifySettings

info = front("info", InfoSettings, tasks.info, "The `Description` of the weights; a notebook shows it as a table.")
convert = front(
    "convert", ConvertSettings, tasks.convert, "What was written, as a `Converted`, or an `OnnxModel` for `onnx`."
)
verify = front("verify", VerifySettings, tasks.verify, "The `Verification`: its checks, and whether all `passed`.")
publish = front("publish", PublishSettings, tasks.publish, "What was written or pushed, as a `Published`.")
embed = front("embed", EmbedSettings, tasks.embed, "What was written, as an `Embedded`.")
