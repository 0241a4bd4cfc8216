"""The Python functions of `ccop_hub` besides `load`: the program's tasks, called with the fields of their settings."""

from __future__ import annotations

from . import tasks
from .front import front
from .settings import ConvertSettings, InfoSettings, PublishSettings, VerifySettings

info = front("info", InfoSettings, tasks.info, "The `Description` of the weights; a notebook shows it as a table.")
convert = front("convert", ConvertSettings, tasks.convert, "What was written, as a `Converted`.")
verify = front("verify", VerifySettings, tasks.verify, "The `Verification`: its checks, and whether all `passed`.")
publish = front("publish", PublishSettings, tasks.publish, "What was written or pushed, as a `Published`.")
