"""The command line: what it prints, writes and refuses, in processes of its own and, where many, in this one."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import textwrap
import tomllib
from pathlib import Path

import numpy as np
import pytest
import yaml

from datamix import registry

LIGHT_WITHOUT = ["flax", "jax", "matplotlib", "numpy", "rich", "tensorflow", "tensorflow_datasets"]


def only(directory, pattern):
    (path,) = directory.glob(pattern)
    return path


# Where the data is not available


@pytest.fixture
def bare(tmp_path):
    """A home without datasets."""
    (tmp_path / "home").mkdir()
    return {"HOME": str(tmp_path / "home"), "TFDS_DATA_DIR": "", "XDG_CACHE_HOME": str(tmp_path / "cache")}


def test_stand_ins_take_part_and_it_says_so_first(run_datamix, tmp_path, bare):
    ended = run_datamix(cwd=tmp_path, env=bare)
    first, second = ended.out.splitlines()[:2]
    place = tmp_path / "home" / "tensorflow_datasets"
    assert first.startswith(
        "Stand-in: mnist: the built-in stand-in 'digits' takes the place of the real data, which is not prepared in "
        f"{place} (there is no such directory), and could not be prepared: "
    )
    assert second.startswith("Stand-in: fashion: the built-in stand-in 'garments' takes the place")
    assert {name: source["provenance"] for name, source in ended.report["sources"].items()} == {
        "mnist": "stand-in",
        "fashion": "stand-in",
    }
    assert [source["labels"] for source in ended.report["sources"].values()] == [[0, 9], [10, 19]]
    assert ended.err == ""
    assert not place.exists()


def test_where_none_may_stand_in_it_says_what_was_tried_and_how_to_mend_it(call_datamix, tmp_path, bare, monkeypatch):
    for key, value in bare.items():
        monkeypatch.setenv(key, value)
    ended = call_datamix("data.stand_in=false")
    assert ended.mistake.startswith(
        f"DataError: source 'mnist': not prepared in {tmp_path / 'home' / 'tensorflow_datasets'} (there is no such "
        "directory), and could not be prepared: "
    )
    for advice in ("data.dir=", "run once with a network", "data.stand_in=true"):
        assert advice in ended.mistake
    assert ended.out == ""
    assert not list(tmp_path.rglob("report.json"))


def test_no_stand_in_is_offered_where_there_is_none(call_datamix):
    mistake = call_datamix("source=mnist+cifar10").mistake
    assert mistake.startswith("DataError: source 'cifar10': not prepared in ")
    assert "stand-in" not in mistake


# Other jobs, other ways to write a mix


def test_the_tutorial_alternates_whole_batches(call_datamix):
    ended = call_datamix("experiment=interleaved_tutorial")
    sources = ended.report["sources"]
    assert {name: (source["records"], source["samples"]) for name, source in sources.items()} == {
        "mnist": (2000, 80),
        "fashion": (800, 80),
    }
    batches = re.findall(r"^batch .*  (mnist \d+  fashion \d+)$", ended.out, re.MULTILINE)
    assert batches == ["mnist 16  fashion 0", "mnist 0  fashion 16"] * 5


def test_the_run_directory_is_hydras(call_datamix, tmp_path):
    assert call_datamix("job=plan", "hydra.run.dir=here/it/is").report["job"] == "plan"
    assert (tmp_path / "here" / "it" / "is" / "report.json").is_file()


def test_a_list_of_sources_is_their_sum(call_datamix):
    as_list = call_datamix("job=plan", "source=[fashion,mnist]").report
    assert list(as_list["sources"]) == ["fashion", "mnist"]
    assert as_list["fingerprint"] == call_datamix("job=plan", "source=fashion+mnist").report["fingerprint"]


def test_a_split_needs_no_quotes(call_datamix):
    report = call_datamix("job=plan", "source.mnist.split=train[:2000]", "source.fashion.split=train[10%:20%]").report
    assert [source["records"] for source in report["sources"].values()] == [2000, 80]


# Help and what Hydra shows


def test_help_lists_choices_and_settings(run_datamix, tmp_path):
    ended = run_datamix("--help", cwd=tmp_path)
    assert (ended.code, ended.err) == (0, "")
    lines = ended.out.splitlines()
    assert lines[0] == "datamix mixes datasets in an exact ratio, in one compiled pipeline."
    assert "mix: concat, largest_credit, proportional, random, round_robin" in lines
    assert "stop: all_exhausted, exhaust_once, first_exhausted, forever" in lines
    assert any(re.match(r"dataset: .*\bfashion\b.*\bmnist\b", line) for line in lines)
    assert "  size: 16  # records" in lines
    assert "${" not in ended.out
    assert not list(tmp_path.iterdir())


def test_help_on_one_group_or_key(call_datamix):
    lines = call_datamix("--help", "mix", "mix.ratio=7:3").out.splitlines()
    assert lines[0].startswith("mix=concat: Every source whole, one after the other;")
    assert "  ratio: '7:3'  # of all sources in their order: 7:3 (in YAML with quotes)" in lines
    assert not any("size" in line for line in lines)
    assert call_datamix("--help", "batch.size").out == "  size: 16  # records\n"
    limit = call_datamix("--help", "source.mnist.limit").out
    assert limit == "source.mnist.limit: How many of the first of these records are used; null for all.\n"
    assert call_datamix("--help", "batch.siz").mistake.startswith(
        "ConfigError: batch.siz: there is no key 'siz' in batch."
    )
    assert "source.NAME.limit: How many of the first" in call_datamix("--help", "source").out
    assert call_datamix("--help", "train").mistake.startswith("ConfigError: train: it belongs to job=train. Add job=")


@pytest.mark.parametrize(
    ("line", "completed"), [("source=dig", ["source=digits"]), ("source=mnist+fas", ["source=mnist+fashion"])]
)
def test_sources_are_completed(call_datamix, monkeypatch, line, completed):
    monkeypatch.setenv("COMP_LINE", f"datamix {line}")
    monkeypatch.setenv("COMP_POINT", str(len(f"datamix {line}")))
    assert call_datamix("--shell-completion", "query=bash").out.split() == completed


@pytest.fixture
def own_files(tmp_path):
    """A directory of one's own: a dataset, a mix, and a module that neither needs."""
    files = {
        "own/dataset/pets.yaml": "# Cats and dogs.\n_target_: digits\nlimit: 30\nfur: 3 # how long, in cm\n",
        "own/mix/mine.yaml": "# As I like it.\ndefaults: [proportional]\nwindow: 7 # slots, of mine\n",
        "mine_for_help.py": "",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return ["--config-dir", "own"]


def test_help_reads_a_directory_of_ones_own(call_datamix, own_files):
    whole = call_datamix(*own_files, "--help", "mix=mine").out
    assert re.search("^dataset: .*, pets, ", whole, re.MULTILINE)
    assert re.search("^mix: .*, mine, ", whole, re.MULTILINE)
    of_source = call_datamix(*own_files, "--help", "source", "source=pets").out
    assert "source=pets: Cats and dogs." in of_source.splitlines()
    assert "    fur: 3  # how long, in cm" in of_source.splitlines()
    of_mix = call_datamix(*own_files, "--help", "mix", "mix=mine", "plugins=[mine_for_help]").out.splitlines()
    assert "mix=mine: As I like it." in of_mix
    assert "  window: 7  # slots, of mine" in of_mix
    assert call_datamix("--help", "plugins=[mine_for_hlep]").mistake.startswith("ConfigError: plugins: there is no ")


@pytest.mark.parametrize(
    ("line", "completed"),
    [
        ("source=pe", ["source=pets"]),
        ("source=digits+pe", ["source=digits+pets"]),
        ("mix=mi", ["mix=mine"]),
        ("source=pets+digits source.pets.fu", ["source.pets.fur="]),
    ],
)
def test_completion_reads_a_directory_of_ones_own(call_datamix, monkeypatch, own_files, line, completed):
    typed = f"datamix {' '.join(own_files)} {line}"
    monkeypatch.setenv("COMP_LINE", typed)
    monkeypatch.setenv("COMP_POINT", str(len(typed)))
    assert call_datamix("--shell-completion", "query=bash").out.split() == completed


@pytest.mark.parametrize(
    ("line", "completed"),
    [
        ("operators=[to_fl", ["operators=[to_float"]),
        ("operators=[to_float,doub", []),
        ("plugins=[own_for_completion] operators=[to_float,doub", ["operators=[to_float,double_for_completion"]),
        (
            "plugins=[own_for_completion] source.mnist.operators=[doub",
            ["source.mnist.operators=[double_for_completion"],
        ),
        ("mix._target_=con", ["mix._target_=concat"]),
        ("source.mnist.stand_in=dig", ["source.mnist.stand_in=digits"]),
    ],
)
def test_components_are_completed(call_datamix, monkeypatch, tmp_path, line, completed):
    ours = "import datamix\nprint('loaded')\n@datamix.operator\ndef double_for_completion(record):\n    return record\n"
    (tmp_path / "own_for_completion.py").write_text(ours)
    monkeypatch.setenv("COMP_LINE", f"datamix {line}")
    monkeypatch.setenv("COMP_POINT", str(len(f"datamix {line}")))
    with registry.registered():
        assert call_datamix("--shell-completion", "query=bash").out.split() == completed
        loaded = sys.modules.pop("own_for_completion", None)
    assert (loaded is not None) == ("plugins=" in line)  # nothing else of the directory is imported


def test_an_experiment_without_a_package(call_datamix, tmp_path):
    (tmp_path / "conf" / "experiment").mkdir(parents=True)
    (tmp_path / "conf" / "experiment" / "mine.yaml").write_text("batch: {size: 32}\n")
    mistake = call_datamix("--config-dir", "conf", "source=digits", "job=plan", "experiment=mine").mistake
    assert mistake.startswith("ConfigError: experiment.batch: it sets nothing there. Let the file of the experiment ")


def test_cfg_shows_the_configuration_and_does_nothing(call_datamix, tmp_path):
    ended = call_datamix("--cfg", "job", "source=digits+garments", "mix.ratio=7:3", "batch.size=9")
    shown = yaml.safe_load(ended.out)
    assert list(shown["source"]) == ["digits", "garments"]
    assert shown["mix"]["ratio"] == "7:3"
    assert shown["mix"]["weights"] == shown["mix"]["share"] == {}
    assert shown["batch"] == {"size": 9, "remainder": "drop", "shuffle": False}
    assert not list(tmp_path.iterdir())


def test_info_shows_which_files_were_used(call_datamix):
    ended = call_datamix("--info", "defaults-tree", "source=mnist+digits")
    lines = [line.strip() for line in ended.out.splitlines()]
    assert ended.code == 0
    for line in (
        "source: mnist+digits:",
        "dataset@source.mnist: mnist",
        "dataset@source.digits: digits",
        "job: preview",
    ):
        assert line in lines


@pytest.mark.parametrize(
    "code",
    [
        "cli.main()  # --help",
        "cli.main()  # --cfg job",
        "cli.main()  # --info defaults-tree",
        "cli.main()  # --shell-completion install=bash",
        "overrides.compose(['source=mnist+cifar10+my_npz', 'mix.ratio=1:2:3', 'job=plan'])",
    ],
)
def test_help_and_composing_import_no_heavy_library(environment, tmp_path, code):
    call, _, arguments = code.partition("  # ")
    program = f"""
        import sys
        from datamix import cli
        from datamix.config import compose as overrides
        try:
            {call}
        finally:
            print(sorted(set(sys.modules) & set({LIGHT_WITHOUT})), file=sys.stderr)
        """
    command = [sys.executable, "-c", textwrap.dedent(program), *arguments.split()]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "[]\n")


def test_a_plan_waits_for_no_jax(environment, shared_data, tmp_path):
    program = """
        import sys
        from datamix import cli
        cli.main()
        print(sorted(set(sys.modules) & {"flax", "jax", "jaxtyping", "tensorflow"}))
        """
    data = f"data.dir={shared_data / 'tensorflow_datasets'}"
    command = [sys.executable, "-c", textwrap.dedent(program), "job=plan", "source=mnist+fashion", data]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_what_a_command_imports_and_leaves_is_not_searched_for_garbage(environment, shared_data, tmp_path):
    program = """
        import atexit
        import gc
        from datamix import cli
        print("before", gc.get_freeze_count())
        atexit.register(lambda: print("at the end", gc.get_freeze_count()))
        cli.main()
        print("after", gc.get_freeze_count())
        """
    data = f"data.dir={shared_data / 'tensorflow_datasets'}"
    command = [sys.executable, "-c", textwrap.dedent(program), "job=plan", "source=mnist+fashion", data]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    counts = dict(re.findall("^(before|after|at the end) ([0-9]+)$", done.stdout, re.MULTILINE))
    assert int(counts["before"]) == 0 < int(counts["after"]) < int(counts["at the end"])


# Sweeps


def test_a_sweep_over_a_share(call_datamix, tmp_path):
    ended = call_datamix("-m", "-v", "mix.share.mnist=0.1,0.5", "batch.size=20", "job.batches=5")
    assert ended.code == 0
    sweep = only(tmp_path, "multirun/*/*")
    assert sorted(path.name for path in sweep.iterdir() if path.is_dir()) == ["0", "1"]
    assert all((sweep / job / name).is_file() for job in "01" for name in ("report.json", "samples.png"))
    samples = [{name: source["samples"] for name, source in it["sources"].items()} for it in ended.reports]
    assert samples == [{"mnist": 10, "fashion": 90}, {"mnist": 50, "fashion": 50}]


@pytest.mark.slow
def test_a_sweep_over_sources_and_unquoted_splits(call_datamix):
    mixes = call_datamix("-m", "-v", "source=digits,garments", "job=plan")
    assert [list(report["sources"]) for report in mixes.reports] == [["digits"], ["garments"]]
    splits = call_datamix("-m", "-v", "source.mnist.split=train[:2000],test[:30]", "job=plan")
    assert [report["sources"]["mnist"]["records"] for report in splits.reports] == [2000, 30]
    assert (mixes.code, splits.code) == (0, 0)


def test_a_sweep_goes_on_after_a_job_that_fails(call_datamix, tmp_path):
    ended = call_datamix("-m", "-v", "mix.share.mnist=7,0.5", "job=plan")
    assert ended.code == 2
    assert ended.err.splitlines()[-1].startswith("ConfigError: mix.share.mnist = 7; a share lies in [0, 1]. ")
    assert "Traceback" not in ended.err
    assert [report["sources"]["mnist"]["target"] for report in ended.reports] == [0.5]
    assert [path.parent.name for path in tmp_path.rglob("report.json")] == ["1"]


# A user's own


OWN = """
    import numpy as np
    import datamix

    @datamix.source
    def ramps(*, num_records: int = 60):
        image = np.zeros((num_records, 28, 28, 1), np.uint8) + np.arange(28, dtype=np.uint8)[:, None]
        return {"image": image, "label": np.arange(num_records) % 3}

    @datamix.operator(elementwise=True)
    def halve(record, *, leaf: str = "image"):
        return record | {leaf: record[leaf] / 2}
    """


def test_a_dataset_source_and_operator_of_ones_own(call_datamix, tmp_path):
    (tmp_path / "own_parts.py").write_text(textwrap.dedent(OWN))
    directory = tmp_path / "own" / "dataset"
    directory.mkdir(parents=True)
    (directory / "slopes.yaml").write_text("_target_: ramps\nnum_records: 40\noperators: [to_float, halve]\n")
    ended = call_datamix("--config-dir", "own", "plugins=[own_parts]", "source=fashion+slopes")
    assert ended.report["sources"]["slopes"] == {
        "source_id": 1,
        "provenance": "ramps",
        "records": 40,
        "samples": 40,
        "share": 0.5,
        "placement": "device",
        "tokens": None,
        "target": 0.5,
        "epochs": 1.0,
        "labels": [10, 12],
        "unlabelled": 0,
        "leaves": {
            "image": {"min": 0, "max": 27, "mean": 13.5, "nan": 0, "inf": 0},
            "label": {"min": 0, "max": 2, "mean": 0.975, "nan": 0, "inf": 0},
        },
    }


def test_what_a_preview_says_of_labels_and_values(call_datamix, tmp_path):
    image = np.random.default_rng(0).random((40, 8, 8)).astype(np.float32)
    image[3] = np.nan
    np.savez(tmp_path / "x.npz", image=image, label=np.where(np.arange(40) < 8, -1, 1 + np.arange(40) % 3))
    ended = call_datamix("source=my_npz", "source.my_npz.path=x.npz", "source.my_npz.operators=[]",
                         "source.my_npz.unlabelled=keep")  # fmt: skip
    notes = [
        "source 'my_npz': images [8, 8] get a channel axis, and are [8, 8, 1].",
        "source 'my_npz': its labels begin at 1; they stay as they are, so that class 0 has no records and its 4 "
        "classes are 0 to 3.",
        "source 'my_npz': the leaf 'image' holds NaN (2.50% of its values).",
        "source 'my_npz': 8 of 40 records are unlabelled, and left out of loss and accuracy.",
    ]
    assert ended.report["notes"] == notes
    assert all(f"Note: {note}" in ended.out for note in notes)
    source = ended.report["sources"]["my_npz"]
    assert (source["unlabelled"], source["labels"]) == (8, [-1, 3])
    assert source["leaves"]["image"]["nan"] == pytest.approx(0.025)
    assert "Values before any operator" in ended.out
    assert re.search(r"my_npz .* image .* 2\.5 % ", ended.out)


def test_labels_that_are_no_class_end_a_preview_with_one_line(call_datamix, tmp_path):
    np.savez(tmp_path / "x.npz", image=np.zeros((40, 8, 8), np.uint8), label=np.full(40, -1))
    ended = call_datamix("source=my_npz", "source.my_npz.path=x.npz")
    assert ended.code == 2
    assert "40 of 40 labels are no class, such as -1; source.my_npz.unlabelled=keep" in ended.err


# As Hydra's users are used to


def test_a_second_call_in_one_process_is_as_the_first(call_datamix, tmp_path):
    before = list(sys.argv), list(sys.path), os.environ.get("HYDRA_FULL_ERROR")
    mistake = call_datamix("batch.sise=3").mistake
    again = call_datamix("batch.sise=3").mistake
    assert again == mistake
    for name in ("one", "two"):
        assert call_datamix("job=plan", "source=digits", f"hydra.run.dir={name}").report["job"] == "plan"
    assert (list(sys.argv), list(sys.path), os.environ.get("HYDRA_FULL_ERROR")) == before


def test_flags_may_stand_between_overrides(call_datamix, tmp_path):
    (tmp_path / "own" / "dataset").mkdir(parents=True)
    (tmp_path / "own" / "dataset" / "few.yaml").write_text("_target_: digits\nsplit: train[:50]\n")
    ended = call_datamix("job=plan", "--config-dir", "own", "source=few", "-m", "-v", "seed=0,1", "hydra.sweep.dir=s")
    assert ended.code == 0, ended.err
    assert [report["seed"] for report in ended.reports] == [0, 1]
    assert {report["sources"]["few"]["records"] for report in ended.reports} == {50}


@pytest.mark.parametrize(
    ("arguments", "mistake"),
    [
        ("--confg-dir own", "ConfigError: unrecognized arguments: --confg-dir; did you mean --config-dir?"),
        ("--cfg nothing", "ConfigError: argument --cfg/-c: invalid choice: 'nothing' "),
        ("--cfg job --info", "ConfigError: --cfg and --info exclude each other."),
        ("--shell-completion install=nosuch", "ConfigError: --shell-completion: No completion plugin for 'nosuch' "),
        ("hydra/launcher=null", "ConfigError: hydra/launcher is missing; it is the name of a choice."),
        ("--resolve", "ConfigError: --resolve belongs to --cfg or --help; "),
        ("--experimental-rerun a.pickle", "ConfigError: --experimental-rerun reads a pickle, which may run any code; "),
    ],
)
def test_a_mistaken_flag_is_one_line(call_datamix, arguments, mistake):
    assert call_datamix(*arguments.split()).mistake.startswith(mistake)


def test_the_version(call_datamix):
    import datamix

    assert call_datamix("--version").out == f"datamix {datamix.__version__}\n"


@pytest.mark.slow
def test_relative_paths_are_those_of_the_shell_in_another_directory_too(call_datamix, shared_data, tmp_path):
    shutil.copy(shared_data / "digits8x8.npz", tmp_path / "own.npz")
    mix = ["job=plan", "source=my_npz", "source.my_npz.path=own.npz", "data.cache=cache"]
    plain = call_datamix(*mix, "hydra.run.dir=plain").report
    moved = call_datamix(*mix, "hydra.run.dir=moved", "hydra.job.chdir=true").report
    assert moved["sources"] == plain["sources"]
    swept = call_datamix("-m", "-v", *mix, "seed=0,1", "hydra.sweep.dir=s", "hydra.job.chdir=true")
    assert (swept.code, len(swept.reports)) == (0, 2)
    assert not list((tmp_path / "moved").rglob("cache"))


def test_a_resolver_that_a_plugin_registers(call_datamix, tmp_path):
    call = "OmegaConf.register_new_resolver('product', lambda a, b: a * b, replace=True)"
    (tmp_path / "resolvers.py").write_text(f"from omegaconf import OmegaConf\n{call}\n")
    mix = ["plugins=[resolvers]", "job=plan", "source=digits", "batch.size='${product:4,8}'"]
    assert call_datamix(*mix).report["batches"] == 625
    swept = call_datamix("-m", "-v", *mix, "hydra.sweep.dir='s-${product:2,3}'", "seed=0,1")
    assert (swept.code, len(swept.reports)) == (0, 2)
    assert (tmp_path / "s-6" / "sweep.json").is_file()


def test_a_primary_config_of_ones_own(call_datamix, tmp_path):
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "mine.yaml").write_text("defaults:\n  - config\n  - _self_\nseed: 5\n")
    report = call_datamix("--config-dir", "own", "--config-name", "mine", "job=plan", "source=digits+garments").report
    assert (report["seed"], list(report["sources"])) == (5, ["digits", "garments"])


def test_completion_knows_groups_and_datasets(run_datamix, tmp_path):
    for typed, expected in {
        "datamix source=fa": "source=fashion",
        "datamix mix=ran": "mix=random",
        "datamix source=mnist+digits mix.uni": "mix.unit=",
    }.items():
        ended = run_datamix("-sc", "query=bash", cwd=tmp_path, env={"COMP_LINE": typed})
        assert (ended.code, ended.out.split()) == (0, [expected]), ended.err


# Mistakes


MISTAKES = {
    "source=mnits": "ConfigError: source=mnits: there is no dataset 'mnits'. Did you mean 'mnist'? Known: cifar10, ",
    "source=mnist+fahsion": "ConfigError: source=fahsion: there is no dataset 'fahsion'. Did you mean 'fashion'? ",
    "source=[mnist,fahsion]": "ConfigError: source=fahsion: there is no dataset 'fahsion'. Did you mean 'fashion'? ",
    "source=mnist+mnist": "ConfigError: source: 'mnist' is named twice; ",
    "source=mnist+./pets": "ConfigError: source = './pets'; it is a path, and source= takes names of datasets. ",
    "-m hydra.sweeper.params={seed:3}": "ConfigError: hydra.sweeper.params: the command line sets no key below null. ",
    "hydra.sweeper.params.seed=3": "ConfigError: hydra.sweeper.params: the command line sets no key below null. Sweep ",
    "hydra.job.env_copy=[NOPE]": "ConfigError: hydra.job.env_copy = 'NOPE'; there is no such variable in the envir",
    "-m source=mnist,mnits": "ConfigError: source=mnits: there is no dataset 'mnits'. Did you mean 'mnist'? ",
    "mix=randm": "ConfigError: mix=randm: there is no mix 'randm'. Did you mean 'random'? Known: concat, ",
    "stop=for_ever": "ConfigError: stop=for_ever: there is no stop 'for_ever'. Did you mean 'forever'? Known: all_",
    "job=previw": "ConfigError: job=previw: there is no job 'previw'. Did you mean 'preview'? Known: ",
    "job._target_=previw": "RegistryError: job._target_: no job 'previw'. Did you mean 'preview'? Known: ",
    "experiment=interleaved": "ConfigError: experiment=interleaved: there is no experiment 'interleaved'. Did ",
    "sede=1": "ConfigError: sede: there is no key 'sede'. Did you mean 'seed'? Known: ",
    "batch.sise=3": "ConfigError: batch.sise: there is no key 'sise' in batch. Did you mean 'size'? Known: ",
    "source.mnist.limt=5": "ConfigError: source.mnist.limt: there is no key 'limt' in source.mnist. Did you mean ",
    "source.mnst.limit=5": "ConfigError: source.mnst.limit: there is no source 'mnst' in source. Did you mean ",
    "+source.mnist.splt=x": "ConfigError: source.mnist.splt: there is no key 'splt' in source.mnist. Did you mean ",
    "+batch.sise=3": "ConfigError: batch.sise: there is no key 'sise' in batch. Did you mean 'size'? Known: ",
    "job.batchs=1": "ConfigError: job.batchs: there is no key 'batchs' in job. Did you mean 'batches'? Known: ",
    "mix.weights.mnst=2": "ConfigError: mix.weights.mnst: there is no source 'mnst' in mix.weights. Did you ",
    "mix.weights.digits=2": "ConfigError: mix.weights.digits: there is no source 'digits' in mix.weights. Known: ",
    "+mix.share.fahsion=.2": "ConfigError: mix.share.fahsion: there is no source 'fahsion' in mix.share. Did ",
    "mix.weights.mnist=-0.2": "ConfigError: mix.weights.mnist = -0.2; a weight is 0 or more. ",
    "mix.weights.mnist=nan": "ConfigError: mix.weights.mnist = ",
    "mix.weights.mnist=0 mix.weights.fashion=0": "ConfigError: mix.weights: all are 0; ",
    "mix.share.mnist=1.5": "ConfigError: mix.share.mnist = 1.5; a share lies in [0, 1]. ",
    "mix.share.mnist=-0.1": "ConfigError: mix.share.mnist = -0.1; ",
    "mix.share.mnist=0.8 mix.share.fashion=0.7": "ConfigError: mix.share: 0.8 + 0.7 = 1.5; ",
    "mix.share.mnist=0.5 mix.ratio=1:1": "ConfigError: mix.ratio = '1:1'; it and mix.share.mnist both say how much ",
    "mix.share.mnist=0.5 mix.weights.mnist=2": "ConfigError: mix.weights.mnist = 2; it and mix.share.mnist both ",
    "mix.ratio=1:2:3": "ConfigError: mix.ratio = '1:2:3'; it has 3 numbers, but there are 2 sources (mnist, fashion). ",
    "mix.ratio=7": "ConfigError: mix.ratio = 7; it is no ratio. Write '7:3' or [7, 3]. ",
    "mix.granularity=bach": "ConfigError: mix.granularity = 'bach'. Did you mean 'batch'? Known: batch, record.",
    "mix.window=0": "ConfigError: mix.window = 0; it is 1 or more",
    "mix.window=wide": "ConfigError: mix.window = 'wide'; ",
    "source.mnist.split=train[:0]": "DataError: source.mnist.split = 'train[:0]'; source 'mnist' is empty. ",
    "source.mnist.split=trian": "ConfigError: source 'mnist': split = 'trian'; there is no split 'trian'. Did ",
    "source.mnist.split=train[": "ConfigError: source 'mnist': split = 'train['; 'train[' is not a split. ",
    "source=mnist source.mnist.name=mnits": "ConfigError: source 'mnist': name = 'mnits'; TFDS knows no such dataset",
    "source=my_npz": "ConfigError: source.my_npz.path is missing; ",
    "source=my_npz source.my_npz.path=none.npz": "DataError: source 'my_npz': none.npz: there is no such file ",
    "source.mnist.operators=[rotat]": "RegistryError: source.mnist.operators[0]: no operator 'rotat'. ",
    "operators=[to_flaot]": "RegistryError: operators[0]: no operator 'to_flaot'. Did you mean 'to_float'? ",
    "operators=[{normalize:{mean:0,sdt:1}}]": "ConfigError: operators[0].normalize.sdt: there is no such setting. Did",
    "operators=[{normalize:{mean:0}}]": "ConfigError: operators[0].normalize.std is missing; it has no default.",
    "batch.size=0": "ConfigError: batch.size = 0; it is 1 or more.",
    "batch.size=1602": "ConfigError: batch.size = 1602; it is more than the 1601 records of the whole mix. ",
    "batch.remainder=dorp": "ConfigError: batch.remainder = 'dorp'. Did you mean 'drop'? Known: drop, keep.",
    "data.stand_in=perhaps": "ConfigError: data.stand_in = 'perhaps'; it is true or false.",
    "job.batches=0": "ConfigError: job.batches = 0; it is 1 or more, and 10,000 or less.",
    "job.batches=few": "ConfigError: job.batches = 'few'; ",
    "plugins=[no_such_module]": "ConfigError: plugins: there is no module 'no_such_module'; ",
    "mnist": "ConfigError: 'mnist' is not an override; write source=mnist (several are joined by +: source=mnist+fashi",
    "mnist+fashion": "ConfigError: 'mnist+fashion' is not an override; write source=mnist+fashion (several are joined ",
    "=5": "ConfigError: '=5' is not an override; write key=value, ",
    "data.dir=a[1]": "ConfigError: 'data.dir=a[1]' is not an override; write key=value, and quotes around ",
    "train": "ConfigError: 'train' is not an override; write job=train.",
    "help": "ConfigError: 'help' is not an override; write --help or --help mix.",
    "sweep": "ConfigError: 'sweep' is not an override; write -m job=train mix.share.mnist=0.1,0.5,0.9.",
    "data.dir=(1)": "ConfigError: 'data.dir=(1)' is not an override; write key=value, and quotes around a value with "
    "special characters: \"data.dir='(1)'\".",
    "mix.ratio=7/3": "ConfigError: mix.ratio = '7/3'; it has 1 number, but there are 2 sources (mnist, fashion). "
    "Write 7:3.",
    "mix.share.mnist=70%": "ConfigError: mix.share.mnist = '70%'; a weight is a number, 0 or more. Write 0.7.",
    "shuffle=windows(500)": "ConfigError: shuffle = 'windows(500)'; it is full, none, window(n) or blocks(n) with n ",
    "batch=64": "ConfigError: batch = 64; it is a group of keys. Set one of them: batch.remainder, batch.shuffle, ",
    "batch.size=1e2": "ConfigError: batch.size = 100.0; it is a whole number. Write 100.",
    "batch.size=${oc.env:NONE_SUCH}": "ConfigError: batch.size: there is no variable NONE_SUCH in the environment. ",
    "batch.size='64'": "ConfigError: batch.size = '64'; it is a whole number. Write it without quotes; of a ",
    "ratio=7:3": "ConfigError: ratio: there is no key 'ratio'. Did you mean mix.ratio? Known: adapt, ",
    "batch_size=32": "ConfigError: batch_size: there is no key 'batch_size'. Did you mean batch.size? Known: ",
    "split=test": "ConfigError: split: there is no key 'split'. Did you mean source.NAME.split? Known: ",
    "epochs=3": "ConfigError: epochs: there is no key 'epochs'. Did you mean train.steps or stop.epochs.NAME? Known: ",
    "job=train lr=0.1": "ConfigError: lr: there is no key 'lr'. Did you mean optimizer.learning_rate? Known: ",
    "job=train optimizer.lr=0.1": "ConfigError: optimizer.lr: there is no key 'lr' in optimizer. Did you mean 'learn"
    "ing_rate'? Known: ",
    "mix.weights=[7,3]": "ConfigError: mix.weights: it is a group of keys. Set one of them, as in mix.weights.NAME=…; ",
    "operators={to_float:{}}": "ConfigError: operators: it is a list. Write operators=[…].",
    "operators=to_float": "ConfigError: operators = 'to_float'; it is a list. Write operators=[to_float].",
    "dataset=mnist": "ConfigError: dataset: datasets are chosen by source=, as in source=mnist+fashion.",
    "data.device_bytes=2GB": "ConfigError: data.device_bytes = '2GB'; it is a whole number. Write 2000000000.",
    "data.prefetch_bytes=256MiB": "ConfigError: data.prefetch_bytes = '256MiB'; it is a whole number. Write 268435456.",
    "batch.size=thirty": "ConfigError: batch.size = 'thirty'; it is a whole number.",
    "plugins=mine": "ConfigError: plugins = 'mine'; it is a list. Write plugins=[mine].",
    "plugins=[mine.py]": "ConfigError: plugins: 'mine.py' is not the name of a module. It is written as Python ",
    "--config_dir=own": "ConfigError: unrecognized arguments: --config_dir=own; did you mean --config-dir?",
    "--batch-size 32": "ConfigError: unrecognized arguments: --batch-size; a setting is written key=value, without ",
    "job = plan": "ConfigError: '=' is not an override; write key=value, without blanks.",
    "vars.a=1": "ConfigError: vars.a: there is no key 'vars'. Add it: +vars.a=…",
    "--config-dir nowhere": "ConfigError: ",
    # Keys of Hydra.
    "hydra.run.dirs=x": "ConfigError: hydra.run.dirs: there is no key 'dirs' in hydra.run. Did you mean 'dir'? Known: ",
    "hydra.sweep.subdirs=x": "ConfigError: hydra.sweep.subdirs: there is no key 'subdirs' in hydra.sweep. Did you mean",
    "hydra.job.nam=x": "ConfigError: hydra.job.nam: there is no key 'nam' in hydra.job. Did you mean 'name'? Known: ch",
    "-m hydra.launcher.num_proces=2": "ConfigError: hydra.launcher.num_proces: there is no key 'num_proces' in "
    "hydra.launcher. Did you mean 'num_processes'? Known: num_processes.",
    "-m hydra.sweeper.num_jobs=4": "ConfigError: hydra.sweeper.num_jobs: it belongs to hydra/sweeper=simplex. Add hydr",
    "-m hydra.launcher=vmap": "ConfigError: hydra.launcher = 'vmap'; it is chosen with a slash. Write hydra/launcher=v",
    "hydra.run=x": "ConfigError: hydra.run: it is a group of keys. --cfg hydra shows its keys.",
    # Words of other libraries, and of other places.
    "source=MNIST": "ConfigError: source=MNIST: there is no dataset 'MNIST'. Did you mean 'mnist'? Known: ",
    "source=pets": "ConfigError: source=pets: there is no dataset 'pets'. Known: ",
    "mix=interleave": "ConfigError: mix=interleave: there is no mix 'interleave'. Did you mean 'round_robin'? Known: ",
    "batch.drop_last=true": "ConfigError: batch.drop_last: there is no key 'drop_last' in batch. Did you mean 'remaind",
    "num_workers=4": "ConfigError: num_workers: there is no key 'num_workers'. Did you mean data.threads? Known: ",
    "output_dir=out": "ConfigError: output_dir: there is no key 'output_dir'. Did you mean hydra.run.dir? Known: ",
    "source.mnist.weight=3": "ConfigError: source.mnist.weight: there is no key 'weight' in source.mnist. Did you mean "
    "mix.weights.mnist? Known: ",
    "job=train train.step=3": "ConfigError: train.step: there is no key 'step' in train. Did you mean 'steps'? Known: ",
    "operators=[crop]": "RegistryError: operators[0]: no operator 'crop'. Did you mean 'center_crop' or 'random_crop'?",
    "operators=[flip]": "RegistryError: operators[0]: no operator 'flip'. Did you mean 'flip_horizontal'? Known: ",
    "source.mnist.limit=all": "ConfigError: source.mnist.limit = 'all'; it is a whole number. Write null to leave it o",
    "source=folder": "ConfigError: source.folder.path is missing; it has no default. Write source.folder.path=….",
    # What a shell or a list of values makes of it.
    "operators=[{resize:": "ConfigError: 'operators=[{resize:' is not an override; write quotes around all of it, "
    "which the shell has cut at a blank: 'operators=…'.",
    "operators=[resize(32,32)]": "ConfigError: 'operators=[resize(32,32)]' is not an override; write its settings by n",
    "-m mix.share.mnist=0.1,,0.5": "ConfigError: 'mix.share.mnist=0.1,,0.5' is not an override; write one comma "
    "between values, and no blanks: mix.share.mnist=0.1,0.5.",
    "source=mnist,fashion": "ConfigError: source=mnist,fashion lists several values: -m runs one job for each. Add it, "
    "or write source=mnist+fashion for one value.",
    "operators=[{mixup: {alpha: -1}}]": "ConfigError: unrecognized arguments: -1}}]; the shell has cut an override at ",
    "/mix=random": "ConfigError: '/mix=random' is not an override; write mix=random.",
    "job=train optimizer.schedule=cosine(0.1)": "ConfigError: 'optimizer.schedule=cosine(0.1)' is not an override; "
    "write its settings by name: 'optimizer.schedule={cosine: {SETTING: VALUE}}'.",
    "source.mnist.split=[train,test]": "ConfigError: source.mnist.split = '[train,test]'; it is text, not a list. "
    "Write source.mnist.split=train+test.",
    "source.mnist.class_names=cat": "ConfigError: source.mnist.class_names = 'cat'; it is a list. Write source.mnist.c",
    "source=mnist:7+fashion:3": "ConfigError: source: 'mnist:7' is not the name of a dataset; write source=mnist+fashi",
    "-m hydra/launcher=processes hydra.launcher.num_processes=two": "ConfigError: hydra.launcher.num_processes = 'two",
    "operators=[normalize]": "ConfigError: operators[0].normalize.mean is missing; it has no default. Write {normalize",
    "-job=train": "ConfigError: unrecognized arguments: -job=train; a setting is written key=value, without dashes; ",
    "mix.ratio=70%:30%": "ConfigError: mix.ratio = '70%'; a weight is a number, 0 or more. Write 70.",
    "-m mix.ratio=[1:1,2:1]": "ConfigError: mix.ratio = '1:1'; a weight is a number, 0 or more. Several, to be "
    "compared, are -m mix.ratio=1:1,2:1 without brackets.",
    "stop=5000": "ConfigError: stop = 5000; it is the name of a choice. Known: all_exhausted, exhaust_once, "
    "first_exhausted, forever. After a number of batches, it is stop.batches=5000 that ends a mix.",
    "source=https://example.org/a.csv": "ConfigError: source = 'https://example.org/a.csv'; it is a path, and source= "
    "takes names of datasets. Files are read from this machine: copy them here first.",
    "--config-name none": "ConfigError: there is no config 'none' to begin with; --config-dir DIR adds a folder of you",
}


@pytest.mark.parametrize("arguments", MISTAKES)
def test_a_mistake_is_one_line_that_names_the_key_and_the_nearest_name(call_datamix, tmp_path, arguments):
    ended = call_datamix(*arguments.split())
    assert ended.mistake.startswith(MISTAKES[arguments])
    assert len(ended.mistake) < 500
    assert not list(tmp_path.rglob("report.json"))


def test_a_process_ends_with_one_line_and_2(run_datamix, tmp_path):
    arguments = "mix.weights.mnist=-0.2"
    ended = run_datamix(arguments, cwd=tmp_path)
    assert ended.mistake.startswith(MISTAKES[arguments])
    assert ended.out == ""


def test_the_whole_error_is_shown_on_demand(run_datamix, tmp_path):
    ended = run_datamix("mix.ratio=1:2:3", cwd=tmp_path, env={"HYDRA_FULL_ERROR": "1"})
    assert ended.code == 1
    assert "Traceback (most recent call last):" in ended.err
    assert ended.err.splitlines()[-1].startswith("datamix.errors.ConfigError: mix.ratio = '1:2:3'; it has 3 numbers, ")


def test_an_unquoted_ratio_in_a_file_is_no_ratio(call_datamix, tmp_path):
    directory = tmp_path / "own" / "experiment"
    directory.mkdir(parents=True)
    (directory / "seven.yaml").write_text("# @package _global_\nmix:\n  ratio: 7:3\n")
    mistake = call_datamix("--config-dir", "own", "experiment=seven").mistake
    assert mistake.startswith("ConfigError: mix.ratio = 423; it is no ratio. Write '7:3' or [7, 3]. ")
    (directory / "seven.yaml").write_text("# @package _global_\nmix:\n  ratio: '7:3'\n")
    report = call_datamix("--config-dir", "own", "experiment=seven", "job=plan").report
    assert [source["target"] for source in report["sources"].values()] == [0.7, 0.3]


def test_a_damaged_npz_file_is_named(call_datamix, shared_data, tmp_path):
    whole = (shared_data / "digits8x8.npz").read_bytes()
    (tmp_path / "half.npz").write_bytes(whole[: len(whole) // 2])
    mistake = call_datamix("source=my_npz", "source.my_npz.path=half.npz").mistake
    assert mistake.startswith("DataError: source 'my_npz': half.npz is no .npz file, or a damaged one: ")


def test_a_damaged_dataset_is_named(call_datamix, shared_data, tmp_path):
    directory = tmp_path / "data" / "fashion_mnist" / "3.0.1"
    shutil.copytree(shared_data / "tensorflow_datasets" / "fashion_mnist" / "3.0.1", directory)
    path = only(directory, "*train.array_record*")
    path.chmod(0o644)
    os.truncate(path, path.stat().st_size // 2)
    mistake = call_datamix("source=fashion", "data.dir=data").mistake
    assert mistake.startswith("DataError: source 'fashion': ")
    assert f"{path} is damaged: " in mistake
    assert mistake.endswith(f"To have it prepared again, delete {directory}.")


def test_formats_that_differ_name_the_operator_that_mends_it(call_datamix, shared_data):
    mistake = call_datamix("source=mnist+my_npz", f"source.my_npz.path={shared_data / 'photo_patches32.npz'}",
                           "source.my_npz.operators=[to_float]").mistake  # fmt: skip
    assert mistake.startswith("SpecError: ")
    assert "resize" in mistake


EVIL = "from pathlib import Path\nPath('ran').touch()\ndef make(**_):\n    Path('called').touch()\n"


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("source.digits._target_=evil.make", "source.digits._target_: no source 'evil.make'. Known: "),
        ("source.digits.stand_in=evil.make", "source.digits.stand_in: no source 'evil.make'. Known: "),
        ("source.digits.operators=[evil.make]", "source.digits.operators[0]: no operator 'evil.make'. Known: "),
        (
            "source.digits.operators=[{_target_:evil.make}]",
            "source.digits.operators[0]: no operator 'evil.make'. Known:",
        ),
        ("operators=[{_target_:evil.make}]", "operators[0]: no operator 'evil.make'. Known: "),
        ("operators=[{cast:{dtype:{_target_:evil.make}}}]", "operators[0].dtype._target_ = 'evil.make'; nothing can "),
        ("+source.digits.split={_target_:evil.make}", "source.digits.split._target_ = 'evil.make'; nothing can be "),
        ("+data._target_=evil.make", "data._target_ = 'evil.make'; nothing can be built here. "),
        ("job._target_=evil.make", "job._target_: no job 'evil.make'. Known: "),
        ("+mix.deep._target_=evil.make", "mix.deep._target_ = 'evil.make'; nothing can be built here. "),
        ("stop._target_=evil.make", "stop._target_: no stop 'evil.make'. Known: "),
        ("+_target_=evil.make", "_target_ = 'evil.make'; nothing can be built here. "),
    ],
)
def test_a_config_builds_what_the_registry_holds_and_nothing_else(call_datamix, tmp_path, monkeypatch, key, message):
    (tmp_path / "evil.py").write_text(EVIL)
    monkeypatch.syspath_prepend(tmp_path)
    assert call_datamix("source=digits", key).mistake.startswith(f"RegistryError: {message}")
    assert not list(tmp_path.glob("*ed")) + list(tmp_path.glob("ran"))
    assert "evil" not in sys.modules


def test_a_function_of_the_standard_library_is_not_called(call_datamix, tmp_path):
    ended = call_datamix("source=digits", "source.digits._target_=os.mkdir", f"+source.digits.path={tmp_path / 'made'}")
    assert ended.mistake.startswith(
        "RegistryError: source.digits._target_: no source 'os.mkdir'. Known: array_record, arrays, "
    )
    assert not (tmp_path / "made").exists()


def test_a_run_directory_that_cannot_be_made_is_named(call_datamix, tmp_path):
    (tmp_path / "file").write_text("in the way")
    mistake = call_datamix("job=plan", f"hydra.run.dir={tmp_path / 'file' / 'run'}").mistake
    assert mistake.startswith("ConfigError: hydra.run.dir: ")
    assert str(tmp_path / "file" / "run") in mistake


@pytest.mark.usefixtures("permissions_count")
@pytest.mark.parametrize(("key", "flags"), [("hydra.run.dir", []), ("hydra.sweep.dir", ["-m"])])
def test_in_a_directory_that_may_not_be_written_to_another_is_advised(
    key, flags, call_datamix, tmp_path, tmp_path_factory
):
    command = [*flags, "job=plan", "source=digits", "source.digits.limit=64"]
    advised = f"{key}={tmp_path_factory.mktemp('results')}"
    tmp_path.chmod(0o555)
    try:
        mistake = call_datamix(*command).mistake
        ended = call_datamix(*command, advised)
    finally:
        tmp_path.chmod(0o755)
    where = "outputs" if key == "hydra.run.dir" else "multirun"
    assert mistake.startswith(f"ConfigError: {key}: {where}")
    assert mistake.endswith(f" cannot be written: Permission denied. Write to another directory: {key}=DIR.")
    assert ended.code == 0, ended.err


# Two at once, and one that is stopped


@pytest.mark.slow
def test_two_processes_share_one_cold_cache(environment, tmp_path):
    arguments = ["source=mnist", "source.mnist.split=train[:600]", "data.cache=cache", "job.batches=1"]
    both = [
        subprocess.Popen(
            [sys.executable, "-m", "datamix", *arguments, f"hydra.run.dir={i}"],
            cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for i in range(2)
    ]  # fmt: skip
    printed = [process.communicate(timeout=120)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], printed
    reports = [yaml.safe_load((tmp_path / f"{i}" / "report.json").read_text()) for i in range(2)]
    assert reports[0]["fingerprint"] == reports[1]["fingerprint"]
    assert reports[0]["sources"] == reports[1]["sources"]
    entries = sorted(
        re.sub(r"-+[0-9a-f]{16}$", "", path.name) for path in (tmp_path / "cache").iterdir() if path.is_dir()
    )
    assert entries == ["mnist-train-600"]
    assert len(np.load(only(tmp_path, "cache/mnist-train-600-*/0.npy"), mmap_mode="r")) == 600


ENDLESS = """
    import time
    import datamix

    @datamix.source
    def endless():
        print("begun", flush=True)
        time.sleep(60)
    """


def test_ctrl_c_ends_it_without_a_traceback_or_half_a_report(environment, tmp_path, interruptible):
    (tmp_path / "own_parts.py").write_text(textwrap.dedent(ENDLESS))
    command = [
        sys.executable,
        "-m",
        "datamix",
        "plugins=[own_parts]",
        "source=digits",
        "source.digits._target_=endless",
    ]
    process = subprocess.Popen(
        [*command, "source.digits.class_names=[]", "hydra.run.dir=run"],
        cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout.readline() == "begun\n"
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=20)
    assert (process.returncode in (130, -signal.SIGINT), out, err) == (True, "", "interrupted\n")
    assert [path.name for path in (tmp_path / "run").iterdir()] == [".hydra"]


# What the machine and the terminal are in the way of


def a_source(directory, *, name="dyed", names='["\\e[31mred\\a", "$x^{$", "=1+1", d, e, f, g, h, i, j]'):
    path = directory / "conf" / "dataset" / f"{name}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"_target_: digits\nclass_names: {names}\noperators: [to_float]\n")
    return directory / "conf"


def test_names_of_classes_are_text_and_nothing_else(call_datamix, tmp_path):
    ended = call_datamix("--config-dir", str(a_source(tmp_path)), "source=dyed", "batch.size=64")
    assert ended.report["figure"] == "samples.png"
    assert "\x1b" not in ended.out + ended.err


def test_a_key_that_would_colour_the_terminal_is_shown(call_datamix):
    assert call_datamix("so\x1b[31mrce=digits").mistake.startswith(r"ConfigError: 'so\x1b[31mrce=digits' is not an")


def test_formulas_in_what_was_swept_are_text(call_datamix, tmp_path):
    swept = "source.dyed.class_names=['=1+1','$x^{$',c,d,e,f,g,h,i,j],['=2+2',b,c,d,e,f,g,h,i,'$k_{$']"
    conf = str(a_source(tmp_path))
    ended = call_datamix("--config-dir", conf, "-m", "job=plan", "source=dyed", swept, "hydra.sweep.dir=s")
    assert ended.code == 0, ended.err
    assert (tmp_path / "s" / "sweep.png").is_file()


@pytest.mark.parametrize(("content", "message"), [
    (b"\xff\xfe\x00", r"ConfigError: .*odd\.yaml is not text in UTF-8: invalid start byte at byte 0\."),
    (b"# @package _global_\nbatch: {size: '${'}\n", r"ConfigError: no viable alternative at input '\$\{'.*"),
    (b"a: [1, 2\nb: }", r"ConfigError: while parsing a flow sequence in .*odd\.yaml.*"),
    (b"- a\n- b\n", r"ConfigError: .*odd\.yaml is a list; a config is a group of keys, as in `batch: \{size: 32\}`\."),
    (b"vars: " + b"[" * 5000, r"ConfigError: values are nested too deeply; give them in fewer levels\."),
])  # fmt: skip
def test_a_config_of_ones_own_that_cannot_be_read(call_datamix, tmp_path, content, message):
    (tmp_path / "conf" / "experiment").mkdir(parents=True)
    (tmp_path / "conf" / "experiment" / "odd.yaml").write_bytes(content)
    assert re.fullmatch(message, call_datamix("--config-dir", "conf", "job=plan", "experiment=odd").mistake)


@pytest.mark.slow
def test_a_batch_that_no_memory_holds(call_datamix):
    mistake = call_datamix("source=digits", "batch.size=2000000000", "stop=forever").mistake
    assert mistake.startswith("ResourceError: there is not enough memory (")
    assert call_datamix("source=digits", "batch.size=3000000000").mistake.endswith("; it is 2147483647 or less.")


@pytest.mark.parametrize("arguments", [("job=plan", "source=digits"), ("--help",), ("--cfg", "job"), ("--version",)])
def test_an_output_that_is_full(environment, tmp_path, arguments):
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "datamix", *arguments],
            cwd=tmp_path, env=environment | {"PYTHONUNBUFFERED": ""}, stdout=full, stderr=subprocess.PIPE, text=True,
            timeout=120, check=False,
        )  # fmt: skip
    (line,) = done.stderr.splitlines()
    assert (done.returncode, line) == (
        2, "ResourceError: the standard output cannot be written: No space left on device."
    )  # fmt: skip


def test_a_directory_that_is_gone(environment, tmp_path):
    (tmp_path / "gone").mkdir()
    command = f"rmdir ../gone && {sys.executable} -m datamix job=plan source=digits"
    done = subprocess.run(
        ["sh", "-c", command], cwd=tmp_path / "gone", env=environment,
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (
        2, "ConfigError: the current directory has been deleted; change into another one.\n"
    )  # fmt: skip


def test_an_output_that_lacks_a_dash(run_datamix, tmp_path):
    ended = run_datamix("job=plan", "source=digits", "stop=forever", cwd=tmp_path, env={"PYTHONIOENCODING": "ascii"})
    assert ended.report["job"] == "plan"


@pytest.mark.slow
def test_strict_promotion_is_of_ones_own_code(run_datamix, tmp_path):
    strict = {"JAX_NUMPY_DTYPE_PROMOTION": "strict", "JAX_NUMPY_RANK_PROMOTION": "raise"}
    assert run_datamix("source=digits+garments", cwd=tmp_path, env=strict).report["samples"] == 160


@pytest.mark.slow
def test_a_device_that_there_is_not(run_datamix, tmp_path):
    ended = run_datamix("source=digits", cwd=tmp_path, env={"JAX_PLATFORMS": "nonsense"})
    assert ended.mistake.startswith("InstallationError: JAX has no device: Unable to initialize backend 'nonsense'")


def test_weights_beyond_any_range(call_datamix):
    for weight in ("1e300", "1" + "0" * 30):
        report = call_datamix("job=plan", "source=digits+garments", f"mix.weights.digits={weight}").report
        assert report["sources"]["digits"]["share"] > 0.9999


# Directories in use


@pytest.mark.slow
def test_a_second_process_in_a_directory_in_use_is_refused_in_one_line(environment, call_datamix, tmp_path):
    (tmp_path / "own_parts.py").write_text(textwrap.dedent(ENDLESS))
    first = subprocess.Popen(
        [sys.executable, "-m", "datamix", "plugins=[own_parts]", "source=digits", "source.digits._target_=endless",
         "source.digits.class_names=[]", "hydra.run.dir=run"],
        cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert first.stdout.readline() == "begun\n"
        again = ["job=plan", "source=digits"]
        for directory in (["hydra.run.dir=run"], ["-m", "hydra.sweep.dir=run"]):
            key = directory[-1].partition("=")[0]
            assert call_datamix(*again, *directory).mistake == (
                f"ConfigError: {key} = 'run'; another process is using it. Wait until that one has ended, or choose "
                "another directory."
            )
    finally:
        first.kill()
        first.communicate()
    assert call_datamix(*again, "hydra.run.dir=run").report["job"] == "plan"  # a lock does not outlive its process


@pytest.mark.slow
def test_runs_that_begin_in_one_second_have_directories_of_their_own(environment, tmp_path):
    command = [sys.executable, "-m", "datamix", "source=digits", "job=plan"]
    together = [
        subprocess.Popen(
            [*command, f"seed={seed}", "hydra.run.dir=outputs/${now:%Y}"],
            cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for seed in range(2)
    ]  # fmt: skip
    printed = [process.communicate(timeout=120)[0] for process in together]
    assert [process.returncode for process in together] == [0, 0], printed
    reports = [json.loads(path.read_bytes()) for path in tmp_path.glob("outputs/*/report.json")]
    assert sorted(report["seed"] for report in reports) == [0, 1]


FAULTY = """
import datamix

@datamix.operator
def faulty_for_cli(record):
    return record | {"image": record["picture"]}
"""


@pytest.mark.parametrize(
    ("text", "overrides", "told"),
    [
        (FAULTY, ["operators=[to_float,faulty_for_cli]"], "line 6, in faulty_for_cli, raises KeyError: 'picture'."),
        (
            "import a_module_that_is_nowhere",
            [],
            "line 1, in <module>, raises ModuleNotFoundError: No module named 'a_m",
        ),
    ],
)
def test_what_a_plugin_raises_is_told_with_its_place(call_datamix, tmp_path, monkeypatch, text, overrides, told):
    (tmp_path / "faulty_plugin.py").write_text(text)
    arguments = ["plugins=[faulty_plugin]", "source=digits+garments", *overrides]
    monkeypatch.delitem(sys.modules, "faulty_plugin", raising=False)
    with registry.registered():
        mistake = call_datamix(*arguments).mistake
    assert mistake.startswith(f"PluginError: {tmp_path / 'faulty_plugin.py'}, {told}")
    assert mistake.endswith(" HYDRA_FULL_ERROR=1 shows the traceback.")


def test_a_closed_output_takes_nothing(environment, tmp_path):
    command = f"{sys.executable} -m datamix source=digits job=plan hydra.run.dir=run >&-"
    done = subprocess.run(
        ["sh", "-c", command],
        cwd=tmp_path,
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "run" / "report.json").is_file()


def test_files_may_be_too_large(environment, tmp_path):
    command = f"ulimit -f 1; {sys.executable} -m datamix source=digits job=plan hydra.run.dir=run"
    done = subprocess.run(
        ["bash", "-c", command], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert re.fullmatch(
        r"ResourceError: .+ cannot be written: File too large; ulimit -f unlimited lets files be larger\.\n",
        done.stderr,
    )
    assert done.returncode == 2


@pytest.mark.parametrize("script", [False, True])
def test_ctrl_c_while_the_program_is_imported(environment, tmp_path, script):
    project = tomllib.loads(Path(__file__).parents[1].joinpath("pyproject.toml").read_text())["project"]
    module, _, function = project["scripts"]["datamix"].partition(":")
    start = f"from {module} import {function}; sys.exit({function}())"  # as installers write it
    if not script:
        start = 'runpy.run_module("datamix", run_name="__main__")'
    code = f"""
        import importlib.abc, os, runpy, signal, sys

        class Interrupts(importlib.abc.MetaPathFinder):
            def find_spec(self, name, path, target=None):
                if name == "datamix.cli":
                    os.kill(os.getpid(), signal.SIGINT)

        sys.meta_path.insert(0, Interrupts())
        {start}
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "interrupted\n")


def test_the_last_of_several_values_counts_and_a_note_says_so(call_datamix):
    repeated = ["job=plan", "source=digits+garments", "batch.size=4", "batch.size=8"]
    ended = call_datamix(*repeated)
    assert ended.out.startswith("Note: batch.size is given 2 values, 4, 8; the last one counts.\n")
    shown = call_datamix(*repeated, "--cfg=job").out
    assert "Note" not in shown
    assert "  size: 8\n" in shown


def test_braces_that_the_shell_expands_lose_no_file(call_datamix, tmp_path):
    for name in ("a", "b"):
        (tmp_path / f"{name}.csv").write_text("x,y\n" + "1,2\n" * 4)
    command = ["job=plan", "source=my_table", "batch.size=2", "stop=exhaust_once"]
    mistake = call_datamix(*command, "source.my_table.path=a.csv", "source.my_table.path=b.csv").mistake
    assert mistake.startswith("ConfigError: source.my_table.path: it is given 2 values, a.csv, b.csv, and ")
    written = re.search(r"Write '(.*)' for all of them\.$", mistake)
    assert written
    assert call_datamix(*command, written[1]).report["sources"]["my_table"]["records"] == 8
