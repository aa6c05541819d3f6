"""Names are found where a user looks for them, and cost nothing until they are used."""

from __future__ import annotations

import importlib
import subprocess
import sys
from types import ModuleType

import pytest

import moralscope
from moralscope import explaining, mechanisms, models

LAZY = (moralscope, explaining, mechanisms, models)


@pytest.mark.parametrize("package", LAZY, ids=lambda package: package.__name__)
def test_every_public_name_is_there(package: ModuleType):
    assert len(package.__all__) > 5
    assert len(set(package.__all__)) == len(package.__all__)
    for name in package.__all__:
        assert getattr(package, name) is not None
    # A name that is also a submodule's would change its meaning with the first import.
    for name in package.__all__:
        assert not isinstance(getattr(package, name), ModuleType)


@pytest.mark.parametrize("package", LAZY, ids=lambda package: package.__name__)
def test_other_names_are_refused_as_usual(package: ModuleType):
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        package.nothing  # noqa: B018


def test_packages_are_found_from_the_top():
    for name in ("games", "evidence", "mechanisms", "models", "studies"):
        assert getattr(moralscope, name) is importlib.import_module(f"moralscope.{name}")
    assert {"ask", "games"} <= set(dir(moralscope))


def child(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    return done.stdout


def test_asking_needs_no_model_stack():
    told = child(
        "import sys, moralscope as ms\n"
        "ms.ask('?', positive=' a', negative=' b')\n"
        "sys.stdout.write(' '.join(sys.modules))"
    )
    assert {name.partition(".")[0] for name in told.split()}.isdisjoint(("torch", "transformers"))


def test_without_the_model_stack_loading_says_how_to_install_it():
    told = child(
        "import sys\n"
        "class Hidden:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.partition('.')[0] in ('torch', 'transformers', 'peft', 'safetensors'):\n"
        "            raise ModuleNotFoundError(f'No module named {name!r}', name=name)\n"
        "sys.meta_path.insert(0, Hidden())\n"
        "import moralscope as ms\n"
        "for use in (lambda: ms.load, lambda: ms.explain, lambda: ms.mechanisms.run_clean):\n"
        "    try:\n"
        "        use()\n"
        "    except ms.MoralscopeError as error:\n"
        "        sys.stdout.write(str(error) + '\\n')\n"
    )
    assert told.count("The model stack is not installed") == 3
    assert told.count('pip install "moralscope[models]"') == 3
