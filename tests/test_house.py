"""The rules of the house, read off the code itself: who may import whom, what is banned."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PARTS = ("training", "serving", "flows", "devtools", "tests")
BANNED_NAMES = {"utils", "util", "helpers", "helper", "manager", "common"}
#: Parts that meet each other only through files, the wire contract and environment variables.
CANNOT_IMPORT = {
    "training": {"serving", "flows", "devtools", "tests"},
    "serving": {"training", "flows", "devtools", "tests"},
    "flows": {"training", "serving", "devtools", "tests"},
    "devtools": {"training", "serving", "flows", "tests"},
}
SOURCES = sorted(file for part in PARTS for file in (ROOT / part).rglob("*.py"))
KIT = [file for file in SOURCES if file.relative_to(ROOT).parts[0] != "tests"]


def name(file: Path) -> str:
    return str(file.relative_to(ROOT))


def imports(file: Path) -> Iterator[str]:
    """Every module that the file imports, inside of functions too, by its absolute name."""
    for node in ast.walk(ast.parse(file.read_bytes())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            package = file.relative_to(ROOT).parent.parts[: -node.level + 1 or None] if node.level else ()
            module = ".".join([*package, *([node.module] if node.module else [])])
            yield from (f"{module}.{alias.name}" for alias in node.names)


def modules_of(part: str) -> set[str]:
    """The names that a part's own files have when its folder is on the path: training's import each other so."""
    return {file.stem for file in (ROOT / part).glob("*.py")}


def test_there_is_something_to_read():
    assert {file.relative_to(ROOT).parts[0] for file in KIT} >= {"training", "devtools"}


@pytest.mark.parametrize("file", KIT, ids=name)
def test_parts_do_not_import_each_other(file):
    part = file.relative_to(ROOT).parts[0]
    forbidden = CANNOT_IMPORT[part]
    if part != "training":
        # by their bare names, as if training/ were on the path
        forbidden = forbidden | (modules_of("training") - modules_of(part) - sys.stdlib_module_names - _dependencies())
    assert not {module for module in imports(file) if module.split(".")[0] in forbidden}


@pytest.mark.parametrize("file", [file for file in KIT if file.is_relative_to(ROOT / "training")], ids=name)
def test_training_imports_itself_flat(file):
    # Azure uploads the folder alone and runs `python fine_tune.py` in it: there is no package around it
    relative = [
        node for node in ast.walk(ast.parse(file.read_bytes())) if isinstance(node, ast.ImportFrom) and node.level
    ]
    assert not relative
    assert not {module for module in imports(file) if module.split(".")[0] == "training"}


@pytest.mark.parametrize("file", KIT, ids=name)
def test_azure_packages_stay_in_their_folder(file):
    azure = {module for module in imports(file) if module.split(".")[0] in ("azure", "azureml", "msrest", "msal")}
    # Cosmos DB's own client is one of two stores of conversations, imported when it is chosen
    cosmos = ROOT / "flows" / "history" / "cosmos.py"
    assert not azure or file == cosmos or file.is_relative_to(ROOT / "devtools" / "azure")


@pytest.mark.parametrize("file", [file for file in KIT if file.is_relative_to(ROOT / "devtools")], ids=name)
def test_one_module_of_devtools_reads_the_environment(file):
    readers = {"os.environ", "os.getenv", "os.environb", "dotenv"}
    tree = ast.parse(file.read_bytes())
    used = {ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    used |= {module for imported in imports(file) for module in (imported, imported.split(".")[0])}
    assert not used & readers or file == ROOT / "devtools" / "settings.py"


@pytest.mark.parametrize("file", SOURCES, ids=name)
def test_module_names_say_what_is_in_them(file):
    assert not BANNED_NAMES & {*file.relative_to(ROOT).parts, file.stem}


@pytest.mark.parametrize("file", KIT, ids=name)
def test_modules_have_a_purpose_and_are_short_enough_to_read(file):
    text = file.read_text(encoding="utf-8")
    assert ast.get_docstring(ast.parse(text)), "a module opens with its purpose"
    assert len(text.splitlines()) <= 300


@pytest.mark.parametrize("file", SOURCES, ids=name)
def test_no_code_from_a_hub_is_ever_run(file):
    for node in ast.walk(ast.parse(file.read_bytes())):
        if isinstance(node, ast.keyword) and node.arg == "trust_remote_code":
            assert isinstance(node.value, ast.Constant)
            assert node.value.value is False


def _dependencies() -> set[str]:
    """Names of installed packages, which a file of training/ may share by chance."""
    from importlib.metadata import packages_distributions

    return set(packages_distributions())
