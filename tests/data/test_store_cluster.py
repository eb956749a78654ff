"""A store that a Dask cluster decodes has the bytes of any other, whoever is killed meanwhile."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from bundle_command import STORE, Forked
from dask_cluster import DaskCluster, await_lines

from monai_simclr.data import StoreOptions, build_store, open_index, write_index
from monai_simclr.data.decoding import DecodeInto
from monai_simclr.data.phantoms import write_nih_phantoms
from monai_simclr.data.store import build
from monai_simclr.runtime.exit_codes import SettingError
from monai_simclr.runtime.files import file_sha256

COMMAND = [sys.executable, "-m", "monai_simclr", "store"]


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    folder = write_nih_phantoms(tmp_path_factory.mktemp("cluster") / "nih", n_patients=80, size=64, bad_files=2)
    write_index(open_index(folder), folder.parent / "index.csv")
    return folder.parent / "index.csv"


@pytest.fixture(scope="module")
def whole(archive):
    build_store(open_index(archive), archive.parent / "whole", 32, 2)
    return _files(archive.parent / "whole")


@pytest.fixture(scope="module")
def shared_cluster(tmp_path_factory):
    """Gives up a task with its first worker, so that it is we who try it again."""
    cluster = DaskCluster(tmp_path_factory.mktemp("dask") / "c", SCHEDULER__ALLOWED_FAILURES="0")
    yield cluster
    cluster.close()


@pytest.fixture
def cluster(shared_cluster):
    import dask

    for deed in shared_cluster.deeds.iterdir():
        deed.unlink()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in shared_cluster.environment.items():
            patch.setenv(name, value)
        dask.config.refresh()
        yield shared_cluster
    dask.config.refresh()


@pytest.fixture
def own_cluster(tmp_path):
    cluster = DaskCluster(tmp_path / "dask", workers=2)
    yield cluster
    cluster.close()


def _files(folder):
    return {path.name: file_sha256(path) for path in folder.iterdir()}


def _start(cluster, archive, folder, engine):
    command = [*COMMAND, str(archive), "-o", str(folder), "--size", "32", "--workers", "2", "--engine", engine]
    printed = folder.with_name(f"printed {len(list(folder.parent.glob('printed *')))}")
    return Forked(folder.parent, printed, command, imports=STORE, **cluster.environment)


def _journal(folder):
    return folder / "building" / "journal"


def test_a_cluster_makes_the_same_bytes(cluster, archive, whole, tmp_path):
    process = _start(cluster, archive, tmp_path / "s", cluster.engine)
    out, said = process.communicate()
    assert process.returncode == 0, said + cluster.log()
    assert "3 Dask workers of 3 threads" in said
    assert out.startswith("made ")
    assert _files(tmp_path / "s") == whole
    assert "PHANTOM-00000002_000.png" not in cluster.log(), "names of files are not for the logs of a cluster"


def test_the_variable_of_dask_names_the_cluster_too(cluster, archive, whole, tmp_path, monkeypatch, caplog):
    caplog.set_level("INFO", "monai_simclr")
    monkeypatch.setenv("DASK_SCHEDULER_ADDRESS", cluster.engine.removeprefix("dask+"))
    build_store(open_index(archive), tmp_path / "s", 32, 2)
    assert "Dask workers of" in caplog.text
    caplog.clear()
    build_store(open_index(archive), tmp_path / "t", 32, 2, options=StoreOptions(engine="processes"))
    build_store(open_index(archive), tmp_path / "u", 32, 0)
    assert "Dask workers of" not in caplog.text
    assert _files(tmp_path / "s") == _files(tmp_path / "t") == _files(tmp_path / "u") == whole


def test_a_cluster_in_this_process_makes_the_same_bytes(archive, whole, tmp_path):
    pytest.importorskip("distributed")
    build_store(open_index(archive), tmp_path / "s", 32, 2, options=StoreOptions(engine="dask://local"))
    assert _files(tmp_path / "s") == whole


def test_a_worker_that_is_killed_costs_nothing(cluster, archive, whole, tmp_path):
    mark = tmp_path / "once"
    once = f"os.path.exists({str(mark)!r}) or (open({str(mark)!r}, 'w').close(), os.kill(os.getppid(), 9))"
    cluster.do("PHANTOM-00000040_000.png", once)
    build_store(open_index(archive), tmp_path / "s", 32, options=StoreOptions(engine=cluster.engine))
    assert mark.exists()
    ended = [process.wait() for process in cluster.processes if process.poll() is not None]
    assert ended == [-signal.SIGKILL]
    assert _files(tmp_path / "s") == whole
    cluster.start_worker()


def test_files_that_crash_or_hang_the_decoder_are_rejected_with_a_reason(cluster, archive, tmp_path, monkeypatch):
    monkeypatch.setattr(build, "TIME_LIMIT", 2.0)
    cluster.do("PHANTOM-00000002_000.png", "os.kill(os.getpid(), signal.SIGSEGV)")
    cluster.do("PHANTOM-00000003_000.png", "time.sleep(600)")
    cluster.do("PHANTOM-00000004_000.png", "os.abort()")
    before = [process.poll() for process in cluster.processes]
    store = build_store(open_index(archive), tmp_path / "s", 32, options=StoreOptions(engine=cluster.engine))
    reasons = {os.path.basename(path): why for path, why in store.rejected.itertuples(index=False)}
    assert reasons["PHANTOM-00000002_000.png"] == "ended the decoder by SIGSEGV"
    assert reasons["PHANTOM-00000003_000.png"] == "took longer than 2 s"
    assert reasons["PHANTOM-00000004_000.png"] == "ended the decoder by SIGABRT"
    assert len(reasons) == 5
    assert len(store.images) == len(open_index(archive)) - 5
    assert [process.poll() for process in cluster.processes] == before, "no worker of Dask is lost by a file"


def test_what_kills_worker_after_worker_is_a_lack_of_memory(cluster, archive, tmp_path):
    cluster.do("PHANTOM-00000005_000.png", "os.kill(os.getppid(), 9)")
    with pytest.raises(
        ChildProcessError, match=r"at .*png \(its Dask workers were lost, by it or beside it\).*enough memory\?"
    ):
        build_store(open_index(archive), tmp_path / "s", 32, options=StoreOptions(engine=cluster.engine))
    while sum(process.poll() is None for process in cluster.processes) < 4:
        cluster.start_worker()


def test_an_error_of_a_worker_comes_to_the_user(cluster, archive, tmp_path):
    cluster.do("PHANTOM-00000006_000.png", "raise KeyError('a bug')")
    with pytest.raises(RuntimeError, match=r"(?s)Traceback.*KeyError: 'a bug'"):
        build_store(open_index(archive), tmp_path / "s", 32, options=StoreOptions(engine=cluster.engine))


def test_workers_with_other_decoders_are_refused(archive, tmp_path):
    (tmp_path / "pixels").touch()
    decode = DecodeInto(tmp_path / "pixels", 0, 32, versions={"pydicom": "1.0", "no-such-decoder": ""})
    with pytest.raises(OSError, match=r"pydicom is 3\..* on .*, and 1\.0 where the command runs"):
        next(decode([(0, "x.png")]))
    assert "is not there" in next(DecodeInto(tmp_path / "pixels", 0, 32, versions={"none": ""})([(0, "x.png")])).reason


def test_a_scheduler_that_is_killed_ends_the_command_and_the_same_command_resumes(
    own_cluster, archive, whole, tmp_path
):
    own_cluster.do("every", "time.sleep(0.05)")
    process = _start(own_cluster, archive, tmp_path / "s", own_cluster.engine)
    await_lines(_journal(tmp_path / "s"), 24, process)
    own_cluster.scheduler.kill()
    _, said = process.communicate(timeout=120)
    assert process.returncode == 6, said
    last = said.strip().splitlines()[-1]
    assert "the Dask scheduler at tls://" in last
    assert "run the same command again" in last
    assert "Traceback" not in said
    own_cluster.do("every", "")
    own_cluster.start_scheduler()
    own_cluster.start_worker()
    process = _start(own_cluster, archive, tmp_path / "s", own_cluster.engine)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 0, said
    assert "images are decoded already" in said
    assert _files(tmp_path / "s") == whole


@pytest.mark.parametrize("engines", [("dask", "processes"), ("processes", "dask"), ("dask", "dask")])
def test_a_driver_that_is_killed_is_resumed_on_either_engine(cluster, archive, whole, tmp_path, engines):
    cluster.do("every", "time.sleep(0.02)")
    first, second = (cluster.engine if name == "dask" else name for name in engines)
    process = _start(cluster, archive, tmp_path / "s", first)
    await_lines(_journal(tmp_path / "s"), 24, process)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not (tmp_path / "s" / "provenance.json").exists()
    process = _start(cluster, archive, tmp_path / "s", second)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 0, said
    assert "images are decoded already" in said
    assert _files(tmp_path / "s") == whole


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_driver_at_once(cluster, archive, tmp_path, number):
    cluster.do("every", "time.sleep(0.2)")
    process = _start(cluster, archive, tmp_path / "s", cluster.engine)
    await_lines(_journal(tmp_path / "s"), 8, process)
    process.send_signal(number)
    _, said = process.communicate(timeout=15)
    assert process.returncode == {signal.SIGINT: 130, signal.SIGTERM: 75}[number], said
    assert "what is decoded is kept" in said.strip().splitlines()[-1]


def test_an_engine_that_is_not_there_is_a_mistake_of_usage(archive, tmp_path):
    done = subprocess.run(
        [*COMMAND, str(archive), "-o", str(tmp_path / "s"), "--engine", "spark://h:1"], capture_output=True
    )
    assert done.returncode == 2
    assert b"there is no engine 'spark://h:1'; there are processes, dask://HOST:PORT" in done.stderr
    with pytest.raises(SettingError, match="no engine"):
        StoreOptions(engine="dask://nowhere")


def test_dask_that_is_not_installed_is_said_before_any_work(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(SettingError, match=r"dask://local needs Dask.*pip install 'monai-simclr\[cluster\]'"):
        StoreOptions(engine="dask://local")


def test_certificates_that_are_not_there_are_named_before_anything_is_decoded(archive, tmp_path, monkeypatch):
    pytest.importorskip("distributed")
    import dask

    for values in ({}, {"distributed.comm.tls.ca-file": str(tmp_path / "none.pem")}):
        with dask.config.set(values), pytest.raises(SettingError, match=r"certificates .*distributed\.comm\.tls"):
            build_store(open_index(archive), tmp_path / "s", 32, options=StoreOptions(engine="dask+tls://127.0.0.1:1"))


def test_a_scheduler_that_does_not_answer_is_named(archive, tmp_path):
    pytest.importorskip("distributed")
    import dask

    options = StoreOptions(engine="dask://127.0.0.1:1")
    with (
        dask.config.set({"distributed.comm.timeouts.connect": "1s"}),
        pytest.raises(ConnectionError, match="no Dask sch"),
    ):
        build_store(open_index(archive), Path(tmp_path / "s"), 32, options=options)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_twenty_thousand_phantoms_with_all_three_killed_are_the_bytes_of_an_uninterrupted_build(phantoms, tmp_path):
    index, cluster = phantoms / "index.csv", DaskCluster(tmp_path / "dask", workers=3)
    try:
        process = _start(cluster, index, tmp_path / "straight", "processes")
        process.communicate()
        assert process.returncode == 0
        process = _start(cluster, index, tmp_path / "s", cluster.engine)
        await_lines(_journal(tmp_path / "s"), 5000, process)
        cluster.processes[1].kill()
        await_lines(_journal(tmp_path / "s"), 10_000, process)
        cluster.scheduler.kill()
        process.communicate(timeout=1000)
        assert process.returncode == 6
        cluster.start_scheduler()
        for _ in range(3):
            cluster.start_worker()
        process = _start(cluster, index, tmp_path / "s", cluster.engine)
        await_lines(_journal(tmp_path / "s"), 14_000, process)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        process = _start(cluster, index, tmp_path / "s", "processes")
        await_lines(_journal(tmp_path / "s"), 17_000, process)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        process = _start(cluster, index, tmp_path / "s", cluster.engine)
        process.communicate(timeout=1000)
        assert process.returncode == 0
    finally:
        cluster.close()
    assert _files(tmp_path / "s") == _files(tmp_path / "straight")
