"""A Slurm cluster on the loopback interface: munged, slurmctld and two slurmd, in a folder of their own."""

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

NEEDED = ("munged", "slurmctld", "slurmd", "sbatch")
CONF = """
ClusterName=segslim
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
AuthType=auth/munge
AuthInfo=cred_expire=5,socket={folder}/munge.socket
CryptoType=crypto/munge
SlurmUser=root
StateSaveLocation={folder}/state
SlurmctldPidFile={folder}/slurmctld.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdSpoolDir={folder}/spool-%n
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
JobRequeue=1
KillWait=5
ReturnToService=2
SlurmdParameters=config_overrides
SchedulerParameters=batch_sched_delay=0,sched_interval=2,bf_interval=1
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
NodeName=one NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs=2 State=UNKNOWN
NodeName=two NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]} CPUs=2 State=UNKNOWN
PartitionName=low Nodes=ALL Default=YES PriorityTier=1 GraceTime=15 MaxTime=60 OverSubscribe=NO
PartitionName=high Nodes=ALL PriorityTier=10 MaxTime=60 OverSubscribe=NO
"""


def missing() -> str | None:
    """Why there can be no cluster here, or None."""
    absent = [name for name in NEEDED if shutil.which(name) is None]
    if absent:
        return f"{', '.join(absent)}: not here; on Debian: apt-get install slurm-wlm munge"
    return None if os.geteuid() == 0 else "slurmd needs root"


@contextmanager
def cluster(folder: Path) -> Iterator[dict[str, str]]:
    """Its variables, for the environment of whoever uses it."""
    servers = [socket.create_server(("127.0.0.1", 0)) for _ in range(3)]
    ports = [server.getsockname()[1] for server in servers]
    for server in servers:
        server.close()
    folder.chmod(0o755)
    for name in ("state", "spool-one", "spool-two"):
        (folder / name).mkdir()
    key = folder / "munge.key"
    key.write_bytes(os.urandom(1024))
    key.chmod(0o400)
    conf = folder / "slurm.conf"
    conf.write_text(CONF.format(host=socket.gethostname().split(".")[0], folder=folder, ports=ports))
    environment = {**os.environ, "SLURM_CONF": str(conf)}
    munge = ["munged", "--force", "--foreground", "--socket", folder / "munge.socket", "--key-file", key]
    munge += ["--pid-file", folder / "munged.pid", "--log-file", folder / "munged.log", "--seed-file", folder / "seed"]
    daemons = [munge, ["slurmctld", "-D", "-f", conf]]
    alone = folder / "alone"  # a folder of each host's own, as are most: two sees another than one, and this process
    alone.mkdir()
    other = ["unshare", "--mount", "sh", "-c", f'mount -t tmpfs none {alone} && exec "$@"', "sh"]
    daemons += [[*prefix, "slurmd", "-D", "-f", conf, "-N", name] for name, prefix in (("one", []), ("two", other))]
    started: list[subprocess.Popen[bytes]] = []
    try:
        for command in daemons:
            with (folder / "daemons.log").open("ab") as log:
                words = [str(word) for word in command]
                started.append(subprocess.Popen(words, env=environment, stdout=log, stderr=log))
            if command is munge:
                _until(lambda: (folder / "munge.socket").exists(), folder)
        _until(lambda: _idle(environment) == 2, folder)
        yield {"SLURM_CONF": str(conf), "ALONE": str(alone)}
    finally:
        with suppress(OSError, subprocess.TimeoutExpired):
            subprocess.run(["scancel", "--user=root"], env=environment, capture_output=True, timeout=20, check=False)
        for process in reversed(started):
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()


def _idle(environment: dict[str, str]) -> int:
    command = ["sinfo", "--noheader", "--Node", "--partition=low", "--states=idle", "--format=%N"]
    return len(subprocess.run(command, env=environment, capture_output=True, text=True, check=False).stdout.split())


def _until(seen: object, folder: Path) -> None:
    deadline = time.monotonic() + 60
    while not seen():  # type: ignore[operator]
        assert time.monotonic() < deadline, "\n".join(f.read_text() for f in folder.glob("*.log"))
        time.sleep(0.1)
