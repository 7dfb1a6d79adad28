"""The house: kernels <- measuring <- drawing <- pages, and what each floor may import besides."""

import ast
import sys
import tomllib
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SRC = ROOT / "src"
FLOORS = ("", "measuring", "drawing", "pages")  # each may import from those before it
KERNELS = {"torch", "transformers", "nvtx"}
TRITON = {"triton"}  # comes with a CUDA build of torch
CUDA = {"cuda"}  # cuda-bindings come with a CUDA build of torch
HUB = {"huggingface_hub"}  # comes with transformers, and says what went wrong at the hub
BESIDES = {
    "": KERNELS | HUB | CUDA | TRITON,
    "measuring": KERNELS | {"numpy", "tqdm"},
    "drawing": {"matplotlib", "numpy"},
    "pages": KERNELS
    | {
        "IPython",
        "jupyter_client",
        "nbclient",
        "nbconvert",
        "nbformat",
        "tqdm",
        "traitlets",
        "yaml",
    },
}
PATHS = sorted(SRC.glob("decoding/**/*.py"))


def name_of(path):
    return ".".join(path.relative_to(SRC).with_suffix("").parts).removesuffix(".__init__")


MODULES = {name_of(path): path for path in PATHS}


def imports_of(name):
    """Return the modules that a module imports, the package's and the others', by their full names."""
    package = name if MODULES[name].stem == "__init__" else name.rpartition(".")[0]
    found = set()
    for node in ast.walk(ast.parse(MODULES[name].read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")[: len(package.split(".")) + 1 - node.level]
            origin = ".".join([*parents * bool(node.level), *filter(None, [node.module])])
            inside = {f"{origin}.{alias.name}" for alias in node.names} & set(MODULES)
            found |= inside or {origin}
    return found


IMPORTS = {name: imports_of(name) for name in MODULES}


def floor_of(name):
    wing = name.split(".")[1] if "." in name else ""
    return wing if wing in FLOORS else ""


def reached_from(names):
    """Return what ``names`` import, and what that imports, and so on; ``decoding`` itself is let be."""
    found, waiting = set(), list(names)
    while waiting:
        new = IMPORTS.get(waiting.pop(), set()) - found - {"decoding"}
        found |= new
        waiting += new
    return found


@pytest.mark.parametrize("name", [name for name in MODULES if name != "decoding.__main__"])
def test_arrows_run_one_way(name):
    floor = floor_of(name)
    ours = {other for other in IMPORTS[name] if other.split(".")[0] == "decoding"}
    assert {floor_of(other) for other in ours} <= set(FLOORS[: FLOORS.index(floor) + 1])
    theirs = {other.split(".")[0] for other in IMPORTS[name] - ours}
    assert theirs - sys.stdlib_module_names <= BESIDES[floor]


def test_nobody_imports_in_a_circle():
    TopologicalSorter(IMPORTS).prepare()


def test_what_draws_reaches_no_kernel():
    reached = reached_from(name for name in MODULES if floor_of(name) == "drawing")
    assert {name.split(".")[0] for name in reached} & KERNELS == set()
    assert {name for name in reached if name in MODULES and floor_of(name) == ""} == set()


def test_a_loop_stands_alone():
    for name in MODULES:
        if name.startswith("decoding.loops."):
            assert not any(other.startswith("decoding.loops") for other in IMPORTS[name])


def test_what_a_reader_installs_is_what_the_package_asks_for():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    extras = project["optional-dependencies"]
    asked = {*project["dependencies"], *extras["pages"], *extras["book"]} - {"decoding[pages]"}
    lines = (ROOT / "requirements.txt").read_text("utf-8").splitlines()
    assert {line.split("#")[0].strip() for line in lines} - {""} == asked
