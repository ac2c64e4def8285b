"""What is shipped: the wheel, the console script, the layout of the repository."""

from __future__ import annotations

import importlib.metadata
import json
import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
MODULES = sorted(
    path for kind in ("*.py", "*.pyi", "*.css", "*.js", "py.typed") for path in (ROOT / "datamix").rglob(kind)
)


def python(*arguments, cwd, env):
    done = subprocess.run(
        [sys.executable, *map(str, arguments)], cwd=cwd, env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr or done.stdout
    return done.stdout


@pytest.fixture(scope="module")
def wheel(environment, tmp_path_factory):
    directory = tmp_path_factory.mktemp("wheel")
    python("-m", "build", "--wheel", "--no-isolation", "--outdir", directory, ROOT, cwd=directory, env=environment)
    (path,) = directory.glob("datamix_jax-*.whl")
    return path


@pytest.fixture(scope="module")
def installed(wheel, environment, tmp_path_factory):
    """A folder with what the wheel installs, and the environment of a process that finds datamix there alone."""
    target = tmp_path_factory.mktemp("installed")
    python("-m", "pip", "install", "-q", "--no-deps", "--no-index", "--disable-pip-version-check",
           "--target", target, wheel, cwd=target, env=environment)  # fmt: skip
    return target, environment | {"PYTHONPATH": str(target)}


def test_the_wheel_holds_the_package_and_its_configs_and_no_more(wheel):
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    types = [ROOT / "datamix" / name for name in ("__init__.pyi", "py.typed")]
    files = [*MODULES, *types, *(path for path in (ROOT / "conf").rglob("*.yaml"))]
    ours = {path.relative_to(ROOT).as_posix() for path in files}
    places = {name: f"datamix/{name}" if name.startswith("conf/") else name for name in ours}
    assert names == {place.removeprefix("datamix/plugins/") for place in places.values()}


def test_the_long_description_stands_alone(wheel):
    archive = zipfile.ZipFile(wheel)
    (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
    head, _, text = archive.read(name).decode().partition("\n\n")
    assert "Description-Content-Type: text/markdown" in head
    assert text.startswith("# datamix\n")
    assert re.findall(r"\]\((?!https?:|#)", text) == []
    assert "The distribution is called `datamix-jax`" in text


def test_an_installed_datamix_uses_its_own_configs(installed, tmp_path):
    target, env = installed
    code = (
        "import datamix, json; from datamix.config.files import conf_dir;"
        "print(json.dumps([datamix.__file__, str(conf_dir())]))"
    )
    where = json.loads(python("-c", code, cwd=tmp_path, env=env))
    assert where == [str(target / "datamix" / "__init__.py"), str(target / "datamix" / "conf")]


@pytest.mark.slow
def test_an_installed_datamix_runs(installed, tmp_path):
    _, env = installed
    arguments = ["source=digits+garments", "job.batches=1", "hydra.run.dir=run"]
    out = python("-m", "datamix", *arguments, cwd=tmp_path, env=env)
    assert out.startswith("Sources\n")
    report = json.loads((tmp_path / "run" / "report.json").read_bytes())
    assert {name: source["samples"] for name, source in report["sources"].items()} == {"digits": 8, "garments": 8}


def test_messages_name_extras_by_how_datamix_is_installed(installed, tmp_path):
    _, env = installed
    code = "from datamix.errors import install_hint; print(install_hint('prepare'))"
    assert python("-c", code, cwd=tmp_path, env=env) == "pip install 'datamix-jax[prepare]'\n"
    assert python("-c", code, cwd=ROOT, env=env | {"PYTHONPATH": str(ROOT)}) == "pip install -e '.[prepare]'\n"


def test_the_console_script_finds_configs_and_a_module_in_the_current_folder(installed, tmp_path):
    target, env = installed
    (distribution,) = importlib.metadata.distributions(name="datamix-jax", path=[str(target)])
    (script,) = distribution.entry_points.select(group="console_scripts")
    assert (script.name, script.value) == ("datamix", "datamix.__main__:main")
    text = (ROOT / "datamix/__init__.py").read_text()
    assert distribution.version == re.search(r'^__version__ = "(.+)"$', text, re.M)[1]
    (tmp_path / "own.py").write_text("print('imported')\n")
    arguments = ["plugins=[own]", "job=plan", "source=digits", "hydra.run.dir=run"]
    done = subprocess.run(
        [target / "bin" / "datamix", *arguments], cwd=tmp_path, env=env, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[0] == "imported"


@pytest.mark.parametrize("program", [["bin/datamix"], [sys.executable, "-m", "datamix"]])
def test_the_version_is_the_one_installed(installed, tmp_path, program):
    target, env = installed
    (distribution,) = importlib.metadata.distributions(name="datamix-jax", path=[str(target)])
    command = [target / program[0], *program[1:], "--version"]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"datamix {distribution.version}\n", "")


def test_the_source_distribution_holds_what_a_checkout_does(environment, tracked, tmp_path):
    python("-m", "build", "--sdist", "--no-isolation", "--outdir", tmp_path, ROOT, cwd=tmp_path, env=environment)
    (path,) = tmp_path.glob("datamix_jax-*.tar.gz")
    with tarfile.open(path) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    expected = {name for name in tracked if not name.startswith(".") and (ROOT / name).is_file()}
    assert expected <= names
    assert {name.split("/")[0] for name in names - expected} <= {"", "PKG-INFO", ".gitignore", "datamix", "tests"}


@pytest.fixture(scope="module")
def tracked():
    """Paths of the files under version control."""
    if not (ROOT / ".git").exists():
        pytest.skip("this is no checkout")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)
    return listed.stdout.split("\0")[:-1]


def test_the_top_of_the_repository_holds_what_it_should(tracked):
    top = {path.split("/")[0] for path in tracked}
    folders = {"conf", "datamix", "scripts", "tests"}
    files = {"CHANGELOG.md", "CONTRIBUTING.md", "LICENSE", "README.md", "SECURITY.md", "pyproject.toml"}
    assert folders | files <= top
    assert {name for name in top - folders - files - {"docs"} if not name.startswith(".")} == set()


def test_nothing_tells_people_to_install_another_project_of_that_name(tracked):
    """`datamix` on PyPI is not this package."""
    wrong = re.compile(r"datamix\[|install (?:-\S+ )*['\"]?datamix(?!-jax)\b")
    assert wrong.search("pip install -q datamix")
    assert wrong.search("needs 'datamix[prepare]'")
    assert not wrong.search("pip install 'datamix-jax[prepare]'")
    texts = {path: (ROOT / path).read_bytes().decode(errors="replace") for path in tracked if (ROOT / path).is_file()}
    assert [path for path, text in texts.items() if not path.endswith(".py") and wrong.search(text)] == []


def test_no_file_names_a_place_on_one_machine(tracked):
    place = re.compile(rb"(?<![\w.~*-])/(?:work|root|home/\w+|tmp/dev)/")
    assert place.search(b'open("/' + b'work/main")')
    assert not place.search(b"tests/work/x ~/work/ https://a.org/work/")
    places = [path for path in tracked if (ROOT / path).is_file() and place.search((ROOT / path).read_bytes())]
    assert places == []


def test_importing_the_package_imports_no_heavy_library(environment, tmp_path):
    code = """import datamix, json, sys; print(json.dumps(sorted(sys.modules)))"""
    imported = json.loads(python("-c", code, cwd=tmp_path, env=environment))
    heavy = {"jax", "flax", "optax", "numpy", "hydra", "tensorflow", "tensorflow_datasets", "matplotlib"}
    assert heavy & set(imported) == set()
    assert "datamix" in imported
