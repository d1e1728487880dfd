"""Several machines: two network namespaces joined by a cable of the kernel, each with a host name and a launcher."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import yaml

from tests.support import ROOT
from tests.support.process_group import dualview
from tests.support.runs import quickstart, same_bits, weights

FAULTY = Path(__file__).with_name("run_faulty.py")
NODES = ("node0", "node1")


def training_in(run_dir):
    steps = ["train.max_steps=8", "train.eval_every_steps=4", "train.checkpoint_every_steps=1"]
    return quickstart(run_dir, *steps, "run.device=cpu", "tracking.wandb=disabled")


@pytest.fixture(scope="module")
def on_node():
    """For each node the words before a command that make it run there."""
    if os.geteuid() != 0 or not shutil.which("ip") or not shutil.which("unshare"):
        pytest.skip("two hosts need ip netns, unshare and root")
    spaces = {node: f"dualview-{os.getpid()}-{node}" for node in NODES}
    address = {node: f"10.77.0.{number}" for number, node in enumerate(NODES, start=1)}

    def ip(*words: str) -> None:
        subprocess.run(["ip", *words], check=True, capture_output=True)

    try:
        try:
            for space in spaces.values():
                ip("netns", "add", space)
            ip("link", "add", "cable0", "netns", spaces["node0"], "type", "veth", "peer", "name", "cable1",
               "netns", spaces["node1"])  # fmt: skip
        except subprocess.CalledProcessError as refused:
            pytest.skip(f"ip netns is not permitted here: {refused.stderr.decode().strip()}")
        for number, node in enumerate(NODES):
            space, cable = spaces[node], f"cable{number}"
            ip("-n", space, "address", "add", f"{address[node]}/24", "dev", cable)
            ip("-n", space, "link", "set", cable, "up")
            ip("-n", space, "link", "set", "lo", "up")
            hosts = Path("/etc/netns") / space / "hosts"  # ip netns exec puts it at /etc/hosts
            hosts.parent.mkdir(parents=True, exist_ok=True)
            hosts.write_text("127.0.0.1 localhost\n" + "".join(f"{address[name]} {name}\n" for name in NODES))
        named = 'hostname "$0" && exec "$@"'
        yield {
            node: ["ip", "netns", "exec", spaces[node], "unshare", "--uts", "sh", "-c", named, node] for node in NODES
        }
    finally:
        for space in spaces.values():
            subprocess.run(["ip", "netns", "delete", space], check=False, capture_output=True)
            shutil.rmtree(Path("/etc/netns") / space, ignore_errors=True)


@pytest.fixture(scope="module")
def on_one_machine(on_ranks, tmp_path_factory):
    run_dir = tmp_path_factory.mktemp("one") / "run"
    on_ranks(2, dualview, *training_in(run_dir))
    return run_dir


def environment(**more: str) -> dict[str, str]:
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "OMP_NUM_THREADS": "1", "TORCH_CPP_LOG_LEVEL": "ERROR", **more}


# Without a kill two machines train in the second job of the test below.
@pytest.mark.parametrize(
    "program",
    [pytest.param(["-m", "dualview"], marks=pytest.mark.slow), [FAULTY, "kill", "1", "3"]],
    ids=["", "a killed rank"],
)
def test_two_machines_train_what_one_does(on_node, tmp_path, on_one_machine, program):
    """Also where a rank is killed on one of them and both launchers start again."""
    command = [
        "bash", "-c", 'source launch/restarts.sh && exec "$@"', "bash",
        "accelerate", "launch", "--config_file", "launch/gpu16_2nodes.yaml", "--rdzv_backend", "c10d",
        "--num_processes", "2", "--main_process_ip", "node0", "--max_restarts", "1",
        *program, *training_in(tmp_path / "run"),
    ]  # fmt: skip
    launchers = [
        subprocess.Popen(
            [*on_node[node], *command], env=environment(), cwd=ROOT, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )
        for node in NODES
    ]  # fmt: skip
    try:
        said = [launcher.communicate(timeout=150)[0] for launcher in launchers]
    finally:
        for launcher in launchers:
            launcher.kill()
    assert [launcher.returncode for launcher in launchers] == [0, 0], "\n".join(said)
    assert ("INFO     continuing" in "".join(said)) == (FAULTY in program)
    assert same_bits(weights(tmp_path / "run"), weights(on_one_machine))


@pytest.mark.parametrize("num_nodes", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_slurm_requeues_a_run_before_its_time_limit_and_the_run_goes_on(request, tmp_path, on_one_machine, num_nodes):
    """slurm.sbatch with an srun that starts the launchers on the nodes and an scontrol that notes what it was told."""
    nodes = NODES[:num_nodes]
    words = request.getfixturevalue("on_node") if num_nodes > 1 else {"node0": []}
    tools = tmp_path / "bin"
    tools.mkdir()
    srun = "".join(f"{' '.join(map(_quoted, words[node]))} ${{@:3}} &\n" for node in nodes)
    script(tools / "srun", f"{srun}status=0\nfor job in $(jobs -p); do wait $job || status=$?; done\nexit $status\n")
    script(
        tools / "scontrol",
        f"if [ $1 = show ]; then echo $3 | tr , '\\n'; else echo $@ >> {tmp_path / 'scontrol.txt'}; fi\n",
    )
    run = tmp_path / "run"
    job = environment(
        SLURM_SUBMIT_DIR=str(ROOT), SLURM_JOB_ID="4711", SLURM_NNODES=str(num_nodes),
        SLURM_JOB_NODELIST=",".join(nodes) if num_nodes > 1 else "localhost",
        SLURM_GPUS_PER_NODE=f"h200:{2 // num_nodes}",
    )  # fmt: skip
    job["PATH"] = f"{tools}:{job['PATH']}"

    def sbatch() -> subprocess.Popen:
        return subprocess.Popen(
            ["bash", ROOT / "launch" / "slurm.sbatch", *training_in(run)[1:]],  # it says `train` itself
            env=job, cwd=tmp_path, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip

    first = sbatch()
    wait_for_first_step(run, first)
    family = psutil.Process(first.pid).children(recursive=True)
    launchers = [one for one in family if "python" in one.exe() and "RANK" not in one.environ()]
    assert len(launchers) == num_nodes
    for launcher in launchers:  # as Slurm does 300 s before the limit: the steps, not the script
        launcher.send_signal(signal.SIGUSR1)
    said, _ = first.communicate(timeout=100)
    assert first.returncode != 0
    assert "stopped by a signal after step" in (run / "preempted.txt").read_text(), said
    assert (tmp_path / "scontrol.txt").read_text() == "requeue 4711\n"
    _, alive = psutil.wait_procs(family, timeout=20)
    assert not alive

    again = sbatch()
    said, _ = again.communicate(timeout=150)
    assert again.returncode == 0, said
    assert "INFO     continuing" in said
    assert (tmp_path / "scontrol.txt").read_text() == "requeue 4711\n"
    assert same_bits(weights(run), weights(on_one_machine))


def test_slurm_sbatch_wants_a_run_dir(tmp_path):
    done = subprocess.run(
        ["bash", ROOT / "launch" / "slurm.sbatch", "configs/own_data.yaml"], check=False, capture_output=True,
        text=True, env=environment(SLURM_SUBMIT_DIR=str(ROOT)),
    )  # fmt: skip
    assert done.returncode == 2
    assert "no run.dir=FOLDER among the arguments: configs/own_data.yaml" in done.stderr


def test_the_kubernetes_manifest_launches_as_the_other_files_do():
    job = yaml.safe_load((ROOT / "launch" / "kubernetes.yaml").read_text())
    worker = job["spec"]["pytorchReplicaSpecs"]["Worker"]
    (container,) = worker["template"]["spec"]["containers"]
    given = {item["name"]: item["value"] for item in container["env"]}
    exported = subprocess.run(
        ["bash", "-c", "source launch/restarts.sh; env"], cwd=ROOT, env={"PATH": os.environ["PATH"]},
        check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    expected = dict(line.split("=", 1) for line in exported.splitlines())
    assert given == {name: expected[name] for name in given}
    assert {"TORCH_DISABLE_SHARE_RDZV_TCP_STORE", "PET_SIGNALS_TO_HANDLE", "PET_SHUTDOWN_TIMEOUT"} <= set(given)
    config_file = next(word.partition("=")[2] for word in container["command"] if "config_file" in word)
    processes = yaml.safe_load((ROOT / config_file).read_text())
    assert worker["replicas"] == processes["num_machines"]
    assert worker["replicas"] * container["resources"]["limits"]["nvidia.com/gpu"] == processes["num_processes"]
    assert f"--main_process_ip={job['metadata']['name']}-worker-0" in container["command"]
    assert worker["template"]["spec"]["terminationGracePeriodSeconds"] > int(given["PET_SHUTDOWN_TIMEOUT"])


def _quoted(word: str) -> str:
    return "'" + word.replace("'", "'\\''") + "'"


def script(path: Path, text: str) -> None:
    path.write_text("#!/usr/bin/env bash\n" + text)
    path.chmod(0o755)


def wait_for_first_step(run_dir: Path, process: subprocess.Popen) -> None:
    deadline = time.monotonic() + 120
    while not (run_dir / "metrics.jsonl").exists() or not (run_dir / "metrics.jsonl").read_text():
        assert process.poll() is None, process.stdout.read()[-3000:]
        assert time.monotonic() < deadline
        time.sleep(0.02)
