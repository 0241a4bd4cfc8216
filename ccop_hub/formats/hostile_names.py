"""Names in a pickle that can only serve to run code or to write files.

Nothing in a pickle is ever called, whatever it names (see `inert_pickle`); these names only decide whether a file is
reported as an attack or read without the object.
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
"""Packages from which no checkpoint needs an object, and which run programs or code, or write files."""

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
"""The same within packages of which checkpoints do hold objects."""

_HOSTILE_BUILTINS = frozenset(
    """
    __import__ apply breakpoint compile delattr eval exec execfile exit file globals help input locals open quit
    raw_input reload setattr vars
    """.split()  # noqa: SIM905
)


def is_hostile(module: str, name: str) -> bool:
    """Whether an object of this module and name has no place in a checkpoint other than to run code."""
    top = module.partition(".")[0]
    if top in ("builtins", "__builtin__", "__builtins__"):
        return name in _HOSTILE_BUILTINS or "." in name
    full = f"{module}.{name}"
    if top in _HOSTILE_MODULES or any(full == member or full.startswith(f"{member}.") for member in _HOSTILE_MEMBERS):
        return True
    # A module that the named one has imported, such as `torch.os` or `random._os`, leads out of it again.
    return any(word.strip("_") in ("os", "sys", "subprocess", "builtins", "importlib") for word in full.split(".")[1:])
