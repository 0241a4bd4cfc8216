"""Names in a pickle whose only use is to run code or write files.

Nothing named in a pickle is ever called (see `inert_pickle`). This list only decides whether a file is reported as
malicious or read without the object.
"""

from __future__ import annotations

_HOSTILE_MODULES = frozenset(
    """
    os posix nt subprocess _posixsubprocess sys pty shutil socket socketserver ctypes _ctypes importlib imp runpy
    code codeop pickle _pickle cPickle marshal operator _operator webbrowser urllib requests httplib http ftplib
    smtplib telnetlib asyncio multiprocessing pip ensurepip venv bdb pdb timeit cProfile profile trace doctest
    pydoc distutils commands popen2 atexit site linecache zipimport pkgutil pkg_resources dill cloudpickle joblib
    shelve fileinput idlelib lib2to3
    """.split()  # noqa: SIM905
)
"""Packages that can run programs or code, or write files, and that no checkpoint needs."""

_HOSTILE_MEMBERS = (
    *(f"{module}.{name}" for module in ("io", "_io") for name in ("open", "open_code", "FileIO")),
    *(f"types.{name}" for name in ("FunctionType", "LambdaType", "CodeType", "MethodType")),
    *(f"torch.{name}" for name in ("load", "hub", "jit", "package", "serialization.load", "testing._internal")),
    *(f"torch.utils.{name}" for name in ("cpp_extension", "collect_env", "model_zoo")),
    *(f"numpy.{name}" for name in ("load", "fromfile", "memmap", "save", "savez", "savetxt", "testing", "f2py")),
    "logging.config",
    "numpy.distutils",
    "tempfile.mktemp",
)
"""The same, within packages that checkpoints legitimately use."""

_HOSTILE_BUILTINS = frozenset(
    """
    __import__ apply breakpoint compile delattr eval exec execfile exit file globals help input locals open quit
    raw_input reload setattr vars
    """.split()  # noqa: SIM905
)


def is_hostile(module: str, name: str) -> bool:
    """Whether the only use of this object in a checkpoint is to run code."""
    top = module.partition(".")[0]
    if top in ("builtins", "__builtin__", "__builtins__"):
        return name in _HOSTILE_BUILTINS or "." in name
    full = f"{module}.{name}"
    if top in _HOSTILE_MODULES or any(full == member or full.startswith(f"{member}.") for member in _HOSTILE_MEMBERS):
        return True
    # Modules can be reached through others that import them, such as `torch.os` or `random._os`.
    return any(word.strip("_") in ("os", "sys", "subprocess", "builtins", "importlib") for word in full.split(".")[1:])
