"""Nothing in the project unpickles: neither what came over a wire nor what lay on a disk."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = ("launcher", "operator", "examples", "benchmarks")
PICKLES = {
    "pickle", "cPickle", "_pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve",
    "multiprocessing",
}  # fmt: skip
"""Modules whose loading can run code of whoever wrote the bytes; a pipe or a queue of the last
one, too."""


def offences(source: str) -> list[str]:
    """Return what in a module could unpickle, as ``line: what``."""
    return [f"{node.lineno}: {what}" for node, what in _found(ast.parse(source))]


def _found(tree: ast.AST) -> Iterator[tuple[ast.stmt | ast.expr, str]]:
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                yield from ((node, n.name) for n in names if n.name.split(".")[0] in PICKLES)
            case ast.ImportFrom(module=str(name)) if name.split(".")[0] in PICKLES:
                yield node, name
            case ast.Call(func=ast.Attribute(value=ast.Name(id="torch"), attr="load")):
                if not _says(node, "weights_only"):
                    yield node, "torch.load without weights_only=True"
            case ast.Call(func=ast.Attribute(value=ast.Name(id="np" | "numpy"), attr="load")):
                if _says(node, "allow_pickle"):
                    yield node, "numpy.load with allow_pickle"
            case ast.Call(func=ast.Attribute(value=ast.Name(id="yaml"), attr="load" | "load_all")):
                yield node, "yaml.load instead of safe_load"
            case _:
                pass


def _says(call: ast.Call, name: str) -> bool:
    given = {keyword.arg: keyword.value for keyword in call.keywords}
    value = given.get(name)
    return isinstance(value, ast.Constant) and value.value is True


def modules() -> list[Path]:
    return sorted(path for folder in SOURCES for path in (ROOT / folder).rglob("*.py"))


def test_there_are_modules_to_look_at() -> None:
    assert len(modules()) > 100


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(ROOT)))
def test_no_module_can_unpickle(path: Path) -> None:
    assert offences(path.read_text()) == []


@pytest.mark.parametrize(
    ("source", "what"),
    [
        ("import pickle", "1: pickle"),
        ("def f():\n    from cloudpickle import loads", "2: cloudpickle"),
        ("import json, marshal", "1: marshal"),
        ("from multiprocessing import Pipe", "1: multiprocessing"),
        ("import multiprocessing.connection", "1: multiprocessing.connection"),
        ("torch.load(path)", "1: torch.load without weights_only=True"),
        ("torch.load(path, weights_only=False)", "1: torch.load without weights_only=True"),
        ("np.load(path, allow_pickle=True)", "1: numpy.load with allow_pickle"),
        ("yaml.load(text, Loader)", "1: yaml.load instead of safe_load"),
    ],
)
def test_what_unpickles_is_seen(source: str, what: str) -> None:
    assert offences(source) == [what]


@pytest.mark.parametrize(
    "source", ["torch.load(path, weights_only=True)", "json.load(file)", "import pickled_herring"]
)
def test_what_does_not_is_let_through(source: str) -> None:
    assert offences(source) == []
