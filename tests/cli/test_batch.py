import csv
import subprocess
import sys
from types import SimpleNamespace

import pytest
from batch_jobs import config, write_image, write_list
from toy_models import metadata, save_toy

import gocor.batch_progress as batch_progress
import gocor.commands.batch as command
from gocor.runtime.batch.job import BatchReport, Tally


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The working folder, with a model, five pairs and one that fails."""
    monkeypatch.chdir(tmp_path)
    save_toy(tmp_path / "m.onnx", metadata(batch=2))
    for number in range(7):
        write_image(tmp_path / f"{number}.png", number, size=(32, 64))
    write_list(tmp_path, 5, lost=("no.png", "0.png"))
    return tmp_path


def test_a_batch(folder, invoke):
    code, printed, said = invoke("batch", "--pairs", "pairs.csv", "-o", "out", "--model", "m.onnx")
    assert code == 3
    assert "pairs  5 done, 1 failed" in printed
    assert "pairs/s" in printed
    assert "out/index.csv" in printed
    assert said == "failed: out/failed.csv lists them with reasons\n"
    with (folder / "out" / "failed.csv").open(newline="") as file:
        assert [row["name"] for row in csv.DictReader(file)] == ["lost"]


def test_what_was_done_before_is_said(folder, invoke):
    (folder / "pairs.csv").write_text("reference,query\n0.png,1.png\n")
    arguments = ("batch", "--pairs", "pairs.csv", "-o", "out", "--model", "m.onnx", "--format", "npy")
    assert invoke(*arguments)[0] == 0
    code, printed, said = invoke(*arguments)
    assert (code, said) == (0, "")
    assert "1 done, 0 failed" in printed
    assert "1 of them before; --restart computes them again" in printed
    assert "pairs/s" not in printed
    assert (folder / "out" / "flows" / "000000" / "00000001.npy").is_file()


def test_every_option_arrives(folder, invoke, monkeypatch):
    given = SimpleNamespace()

    def compute(pairs, config, ray, progress):
        given.pairs, given.config, given.ray = pairs.expected, config, ray
        progress(Tally(6))
        return BatchReport(Tally(6), 6, 0, folder / "index", 1.0)

    monkeypatch.setattr(command, "run_batch_on_ray", compute)
    options = "--provider cpu --threads 2 --precision fp16 --format parquet --dtype float16 --pad --batch 3"
    options += " --shard 7 --workers 4 --restart --retry-failed --ray auto --ray-workers 5"
    assert invoke("batch", *f"--pairs pairs.csv -o out --model m.onnx {options}".split())[0] == 0
    config = given.config
    assert (str(config.model), str(config.output), config.provider, config.threads) == (
        "m.onnx",
        "out",
        "cpu",
        2,
    )
    assert config.precision == "fp16"
    assert (config.format, config.dtype, config.pad, config.batch) == ("parquet", "float16", True, 3)
    assert (config.shard, config.workers, config.restart, config.retry_failed) == (7, 4, True, True)
    assert (given.pairs, given.ray.address, given.ray.workers) == (6, "auto", 5)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ("--pairs no.csv", "error: no.csv: cannot be read (No such file or directory); a CSV file"),
        (
            "--pairs empty.csv",
            "error: empty.csv: lists no pairs; rows of reference and query below the header",
        ),
        ("--pairs other.csv", "error: other.csv: has no column 'query', its first line is 'reference,qeury'"),
        (
            "--pairs twice.csv",
            "error: twice.csv:4: the name 'x' was given before; a name of its own for each",
        ),
        (
            "--pairs no.parquet",
            "error: no.parquet: cannot be read (No such file or directory); a Parquet file",
        ),
        ("--pairs text.parquet", "error: text.parquet: is no Parquet file, or damaged ("),
        (
            "--pairs pairs.csv --model no.onnx",
            "error: no.onnx: no such file; give a model made by gocor export",
        ),
        ("--pairs pairs.csv --format exr", "error: --format: unknown 'exr'; one of flo, kitti, npy, parquet"),
        ("--pairs pairs.csv --ray-workers 0", "error: --ray-workers: was given without --ray; --ray local"),
        (
            "--pairs pairs.csv --ray-workers 2",
            "error: --ray-workers: was given without --ray; --ray local, auto",
        ),
        (
            "--pairs pairs.csv --provider tpu",
            "error: provider: unknown name 'tpu'; one of cpu, cuda, tensorrt",
        ),
        (
            "--pairs pairs.csv --precision fp16",
            "error: precision: chooses among a package's models, and m.onnx",
        ),
    ],
)
def test_mistakes_cost_one_line(folder, invoke, options, text):
    pytest.importorskip("pyarrow")
    (folder / "empty.csv").write_text("reference,query\n")
    (folder / "other.csv").write_text("reference,qeury\na,b\n")
    (folder / "twice.csv").write_text("reference,query,name\n0.png,1.png,x\n0.png,1.png,y\n0.png,1.png,x\n")
    (folder / "text.parquet").write_text("no Parquet")
    model = () if "--model" in options else ("--model", "m.onnx")
    code, printed, said = invoke("batch", "-o", "out", *model, *options.split())
    assert (code, printed) == (2, "")
    assert said.startswith(text)
    assert said.count("\n") == 1
    assert not list(folder.glob("out/[!.]*"))


class Clock:
    """Seconds that pass only when the test says so."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def test_lines_of_progress_are_few(capsys, tmp_path):
    clock = Clock()
    with batch_progress.batch_progress(config(tmp_path), clock) as show:
        for done in range(100):
            clock.now += 1
            show(Tally(5000, 1000, done, done // 50))
        show(Tally(5000, 1000, 4000, 0))
    assert capsys.readouterr().err.splitlines() == [
        "note: 1030 of 5000 pairs, 1 pairs/s, 1:06:10 left",
        "note: 1061 of 5000 pairs, 1 failed, 1.02 pairs/s, 1:04:34 left",
        "note: 1091 of 5000 pairs, 1 failed, 1.01 pairs/s, 1:04:26 left",
    ]


def test_a_bar_on_a_terminal(monkeypatch, tmp_path):
    from rich.console import Console

    console = Console(force_terminal=True, record=True, width=160, color_system=None)
    monkeypatch.setattr(batch_progress, "stderr", console)
    clock = Clock()
    with console.capture() as captured, batch_progress.batch_progress(config(tmp_path), clock) as show:
        show(Tally(100, 50))
        clock.now = 10
        show(Tally(100, 50, 19, 1))
    assert "70/100" in captured.get()
    assert "2 pairs/s, 0:15 left 1 failed" in captured.get()


@pytest.mark.parametrize(
    ("options", "command"),
    [
        ({}, "the same command"),
        ({"restart": True}, "the same command without --restart"),
        ({"restart": True, "retry_failed": True}, "the same command without --restart and --retry-failed"),
    ],
)
def test_a_stop_is_said(capsys, tmp_path, options, command):
    stopped = batch_progress.batch_progress(config(tmp_path, **options))
    with pytest.raises(KeyboardInterrupt), stopped:
        raise KeyboardInterrupt
    assert capsys.readouterr().err == f"note: stopped; {command} goes on from here\n"


def test_rates():
    assert [batch_progress.rate(pairs, 2) for pairs in (1, 25, 1998, 1999, 123_456)] == [
        "0.5 pairs/s", "12.5 pairs/s", "999 pairs/s", "1000 pairs/s", "61728 pairs/s",
    ]  # fmt: skip


def test_ray_is_imported_for_a_cluster_only():
    code = "import sys, gocor.commands.batch; print({'ray', 'pyarrow', 'PIL'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "set()\n"
