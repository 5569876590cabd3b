import contextlib
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from batch_jobs import (
    FakeEstimator,
    config,
    flow_files,
    index_rows,
    leftovers,
    results,
    write_image,
    write_list,
    write_rows,
)  # fmt: skip
from toy_models import metadata, save_toy

import gocor.runtime.batch.ray_data as ray_data
from gocor.core.errors import ConfigError, DependencyError, ModelError, OutputError
from gocor.runtime.batch.job import Shard, Tally
from gocor.runtime.batch.local import run_batch
from gocor.runtime.batch.ray_data import RayConfig, run_batch_on_ray
from gocor.runtime.pairs import PairList


def write_job(folder: Path, pairs: int = 10) -> PairList:
    save_toy(folder / "m.onnx", metadata(batch=2))
    for number in range(7):
        write_image(folder / f"{number}.png", number, size=(32, 64))
    return PairList(write_list(folder, pairs, lost=("no.png", "0.png")))


class FakeRay:
    """As much of Ray as a batch asks for: actors are objects of this process, one after the other."""

    exceptions = SimpleNamespace(RayError=KeyError)

    def __init__(self, cpus=2, gpus=0, nodes=1, error=None):
        self.resources, self.alive, self.error = {"CPU": cpus, "GPU": gpus}, nodes, error
        self.log: list[object] = []
        self.data = SimpleNamespace(from_arrow=self.from_arrow, ActorPoolStrategy=lambda size: size)

    def is_initialized(self):
        return False

    def init(self, address, **_options):
        self.log.append(address)
        if self.error:
            raise self.error

    def shutdown(self):
        self.log.append("shutdown")

    def cluster_resources(self):
        return self.resources

    def nodes(self):
        return [{"Alive": True}] * self.alive + [{"Alive": False}]

    def remote(self, *, num_cpus, num_gpus):
        self.log.append(("task", num_cpus, num_gpus))
        return lambda function: SimpleNamespace(remote=lambda *arguments: lambda: function(*arguments))

    def get(self, task):
        return task()

    def from_arrow(self, tables):
        self.tables = tables
        return self

    def map_batches(self, worker, *, fn_constructor_args, compute, num_cpus, num_gpus, **_options):
        self.log.append((compute, num_cpus, num_gpus))
        actor = worker(*fn_constructor_args)
        self.results = [{k: v[0] for k, v in actor(table).items()} for table in self.tables]
        return self

    def iter_rows(self):
        return iter(self.results)


@pytest.fixture
def fake(monkeypatch):
    """Puts a fake Ray in place of the library."""
    pytest.importorskip("pyarrow")

    def put(**options):
        library = FakeRay(**options)
        monkeypatch.setattr(ray_data, "_import_ray", lambda: library)
        return library

    return put


def test_shards_are_those_of_one_machine(fake, tmp_path):
    pairs, library = write_job(tmp_path), fake()
    seen: list[Tally] = []
    report = run_batch_on_ray(pairs, config(tmp_path), RayConfig(workers=2), seen.append)
    assert (report.done, report.failed) == (10, 1)
    assert seen == [Tally(11), Tally(11, 0, 4, 0), Tally(11, 0, 8, 0), Tally(11, 0, 10, 1)]
    assert library.log == ["local", (2, 1, 0), "shutdown"]
    (tmp_path / "out").rename(tmp_path / "ray")
    run_batch(pairs, config(tmp_path, threads=1))
    assert flow_files(tmp_path / "ray") == flow_files(tmp_path / "out")
    assert index_rows(tmp_path / "ray") == index_rows(tmp_path / "out")


def test_a_job_of_one_machine_goes_on_on_a_cluster(fake, tmp_path, monkeypatch):
    pairs, library = write_job(tmp_path), fake()

    def interrupt(tally):
        if tally.finished > 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_batch(pairs, config(tmp_path), interrupt)
    monkeypatch.setattr(ray_data, "_SHARDS_AT_ONCE", 1)
    monkeypatch.chdir(tmp_path)
    options = config(Path())
    assert run_batch_on_ray(PairList("pairs.csv"), options, RayConfig("auto")).tally == Tally(11, 4, 6, 1)
    assert library.log == ["auto", (1, 2, 0), (1, 2, 0), "shutdown"]
    assert len(results(tmp_path / "out")) == 11
    run_batch_on_ray(pairs, config(tmp_path), RayConfig())
    assert len(library.log) == 4, "Ray was started for nothing"


@pytest.mark.parametrize(
    ("cluster", "options", "workers", "expected"),
    [
        ({"cpus": 8, "nodes": 2}, {}, None, (2, 4, 0)),
        ({"cpus": 8, "nodes": 2}, {"threads": 2}, 3, (3, 2, 0)),
        ({"cpus": 8, "gpus": 4}, {"provider": "cuda"}, None, (4, 1, 1)),
        ({"cpus": 8, "gpus": 4}, {"model": "m.engine"}, 2, (2, 1, 1)),
        ({"cpus": 8, "gpus": 4}, {"provider": "tensorrt-rtx", "threads": 2}, None, (4, 2, 1)),
    ],
)
def test_workers_are_as_many_as_the_cluster_suggests(tmp_path, cluster, options, workers, expected):
    given = SimpleNamespace(
        provider=options.get("provider"),
        threads=options.get("threads"),
        model=Path(options.get("model", "m.onnx")),
    )
    found = ray_data._Workers.of(FakeRay(**cluster), given, RayConfig(workers=workers))
    assert (found.count, found.cpus, found.gpus) == expected


@pytest.mark.parametrize(
    ("options", "workers", "text"),
    [
        ({"threads": 2}, 3, "--ray-workers: 3 with 2 CPU each are more than the cluster's 4; fewer of them"),
        ({"provider": "cuda"}, None, "--ray-workers: 1 with 1 GPU each are more than the cluster's 0"),
    ],
)
def test_clusters_that_are_too_small(fake, tmp_path, options, workers, text):
    pairs, library = write_job(tmp_path), fake(cpus=4)
    with pytest.raises(ConfigError, match=text):
        run_batch_on_ray(pairs, config(tmp_path, **options), RayConfig(workers=workers))
    assert library.log[-1] == "shutdown"


def test_errors_of_workers_are_those_of_the_job(fake, tmp_path, monkeypatch):
    pairs, library = write_job(tmp_path), fake()

    def full(*_arguments):
        raise OutputError("out/flows/000000", "cannot be written (No space left on device)")

    monkeypatch.setattr(ray_data.Pipeline, "run", full)
    with pytest.raises(
        OutputError, match=r"^out/flows/000000: cannot be written \(No space left on device\)$"
    ):
        run_batch_on_ray(pairs, config(tmp_path), RayConfig())
    assert library.log[-1] == "shutdown"


def test_errors_of_ray_are_one_line(fake, tmp_path, monkeypatch):
    pairs, library = write_job(tmp_path), fake()

    def fail():
        raise KeyError("Traceback\nOwnerDiedError")

    monkeypatch.setattr(library, "iter_rows", fail)
    with pytest.raises(
        ModelError, match=r"m\.onnx: failed on Ray \(.*OwnerDiedError'\); see the logs of Ray"
    ):
        run_batch_on_ray(pairs, config(tmp_path), RayConfig())


def test_another_model_on_a_worker(fake, tmp_path, monkeypatch):
    pairs = write_job(tmp_path)
    fake()
    monkeypatch.setattr(ray_data, "model_sha256", lambda _path: "other")
    with pytest.raises(
        ModelError, match=r"m\.onnx on .*: is another file than where the job was started; copy"
    ):
        run_batch_on_ray(pairs, config(tmp_path), RayConfig())


@pytest.mark.parametrize("options", [{"restart": True}, {"retry_failed": True}])
def test_a_model_that_loads_nowhere_costs_no_results(fake, tmp_path, monkeypatch, options):
    pairs, library = write_job(tmp_path), fake(cpus=2)
    run_batch(pairs, config(tmp_path))
    before = flow_files(tmp_path / "out"), index_rows(tmp_path / "out")

    def fail(*_arguments):
        raise ModelError("m.onnx", "does not load")

    with monkeypatch.context() as broken:
        broken.setattr(ray_data, "load", fail)
        with pytest.raises(ModelError, match=r"^m\.onnx: does not load$"):
            run_batch_on_ray(pairs, config(tmp_path, **options), RayConfig())
    assert library.log == ["local", ("task", 2, 0), "shutdown"]
    assert (flow_files(tmp_path / "out"), index_rows(tmp_path / "out")) == before
    run_batch_on_ray(pairs, config(tmp_path, **options), RayConfig())
    assert (flow_files(tmp_path / "out"), index_rows(tmp_path / "out")) == before


def test_a_shard_that_kills_whoever_computes_it(tmp_path):
    pairs = write_job(tmp_path)
    for number in range(10):
        (tmp_path / "out" / "flows" / f".000000.{number}").mkdir(parents=True)
    worker = ray_data._Worker(config(tmp_path), "", 1)
    with pytest.raises(
        ModelError, match=r"m\.onnx: was killed 10 times over shard 0, p0 and what follows; look"
    ):
        worker._compute(Shard(0, tuple(pairs)))


def test_a_model_that_is_lost_on_a_worker(fake, tmp_path, monkeypatch):
    write_job(tmp_path)
    library = fake()
    write_image(tmp_path / "crash.png", first=FakeEstimator.BAD, size=(32, 64))
    rows = [("crash.png", "0.png", f"c{i}") for i in range(20)]
    pairs = PairList(write_rows(tmp_path / "pairs.csv", rows))
    monkeypatch.setattr(ray_data, "load", FakeEstimator(tmp_path / "m.onnx").load)
    with pytest.raises(ModelError, match=r"m\.onnx: failed in the library"):
        run_batch_on_ray(pairs, config(tmp_path, shard=2), RayConfig())
    assert len(list((tmp_path / "out" / "flows").iterdir())) == 3
    assert library.log[-1] == "shutdown"


def test_a_shard_that_was_finished_by_one_who_died(tmp_path):
    pairs = write_job(tmp_path, pairs=3)
    run_batch(pairs, config(tmp_path))
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")}
    worker = ray_data._Worker(config(tmp_path), "", 1)
    assert [outcome.name for outcome in worker._compute(Shard(0, tuple(pairs)))] == ["p0", "p1", "p2", "lost"]
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")} == before


def test_no_cluster_there(fake, tmp_path):
    pairs = write_job(tmp_path)
    fake(error=ConnectionError("Could not find any running Ray instance.\nPlease"))
    with pytest.raises(
        ConfigError, match=r"--ray auto: cannot be reached \(Could not find any running Ray inst"
    ):
        run_batch_on_ray(pairs, config(tmp_path), RayConfig("auto"))


def test_no_ray_there(tmp_path, monkeypatch):
    pairs = write_job(tmp_path)
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(
        DependencyError, match=r"--ray: needs Ray, which is not installed; .*gocor-deploy\[ray\]"
    ):
        run_batch_on_ray(pairs, config(tmp_path), RayConfig())


def test_no_workers():
    with pytest.raises(ConfigError, match="--ray-workers: is 0; at least 1"):
        RayConfig(workers=0)


@pytest.fixture(scope="module")
def cluster():
    """A cluster of two machines with a CPU each, as far as Ray can tell."""
    ray = pytest.importorskip("ray", reason='pip install -e ".[ray]"')
    from ray.cluster_utils import Cluster

    nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    for _ in range(2):
        nodes.add_node(num_cpus=1)
    yield nodes
    ray.shutdown()
    nodes.shutdown()


def actors() -> list[int]:
    """Processes of ours that are actors with a model."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if b"_Worker" in (process / "cmdline").read_bytes() and os.getpid() in ancestors(
                int(process.name)
            ):
                found.append(int(process.name))
    return found


def ancestors(process: int) -> list[int]:
    found = []
    while process > 1:
        process = int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])
        found.append(process)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("format", ["flo", "parquet"])
def test_a_worker_that_is_killed(tmp_path, exported, cluster, format):
    write_job(tmp_path, 60)
    pairs = PairList(tmp_path / "pairs.csv")
    options = config(tmp_path, model=exported.model, threads=1, format=format)
    killed = []

    def kill_one(tally):
        if tally.done >= 8 and not killed:
            killed.append(actors())
            assert len(killed[0]) == 2
            os.kill(killed[0][0], signal.SIGKILL)

    report = run_batch_on_ray(pairs, options, RayConfig(cluster.address, 2), kill_one)
    assert (report.done, report.failed, len(killed)) == (60, 1, 1)
    (tmp_path / "out").rename(tmp_path / "ray")
    run_batch(pairs, options)
    assert flow_files(tmp_path / "ray") == flow_files(tmp_path / "out")
    assert index_rows(tmp_path / "ray") == index_rows(tmp_path / "out")
    assert not leftovers(tmp_path / "ray")


@pytest.mark.slow
def test_a_job_that_is_begun_again(tmp_path, exported, cluster):
    pairs = write_job(tmp_path)
    options = config(tmp_path, model=exported.model, threads=1)
    run_batch(pairs, options)
    expected = flow_files(tmp_path / "out"), index_rows(tmp_path / "out")
    (tmp_path / "broken.onnx").write_bytes(b"no model")
    broken = replace(options, model=tmp_path / "broken.onnx", restart=True)
    with pytest.raises(ModelError, match=r"broken\.onnx: "):
        run_batch_on_ray(pairs, broken, RayConfig(cluster.address, 1))
    assert (flow_files(tmp_path / "out"), index_rows(tmp_path / "out")) == expected
    report = run_batch_on_ray(pairs, replace(options, restart=True), RayConfig(cluster.address, 2))
    assert (report.tally.done, report.tally.failed) == (10, 1)
    assert (flow_files(tmp_path / "out"), index_rows(tmp_path / "out")) == expected


@pytest.mark.slow
def test_a_machine_that_is_lost(tmp_path, exported, cluster):
    write_job(tmp_path, 60)
    pairs = PairList(tmp_path / "pairs.csv")
    options = config(tmp_path, model=exported.model, threads=1)
    lost = []

    def lose_one(tally):
        if tally.done >= 8 and not lost:
            lost.append(cluster.worker_nodes.copy().pop())
            cluster.remove_node(lost[0], allow_graceful=False)
            cluster.add_node(num_cpus=1)

    report = run_batch_on_ray(pairs, options, RayConfig(cluster.address, 2), lose_one)
    assert (report.done, report.failed, len(lost)) == (60, 1, 1)
    (tmp_path / "out").rename(tmp_path / "ray")
    run_batch(pairs, options)
    assert flow_files(tmp_path / "ray") == flow_files(tmp_path / "out")
