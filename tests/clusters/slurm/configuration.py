"""The configuration files of a test cluster, as text."""

import socket
from dataclasses import dataclass
from pathlib import Path

from clusters.slurm.layout import NODES, Ports

GPU_TYPE = "a100"
GPU_DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random")
"""slurmd wants a character device for each GPU (a bare count leaves the node INVAL); any will do."""

PARENT = "idf"
"""The Slurm account above those of all projects."""

CPUS_PER_NODE = 32
MEMORY_MIB_PER_NODE = 65536


@dataclass(frozen=True)
class Configuration:
    """What the files are made from."""

    name: str
    root: Path
    """The cluster's folder as its daemons see it."""
    user: str
    """SlurmUser and SlurmdUser."""
    login: str
    ports: Ports
    max_jobs: int
    jwt: bool
    """Whether Slurm's JWT plugin is there."""
    database_password: str

    @property
    def _authentication(self) -> str:
        """The same for slurmctld and slurmdbd; a JWT is minted by SlurmUser only, never by its owner."""
        key = f",jwt_key={self.root}/etc/jwt.key\nAuthAltTypes=auth/jwt" if self.jwt else ""
        return f"""\
AuthType=auth/munge
AuthInfo=socket={self.root}/run/munge.sock
AuthAltParameters=disable_token_creation{key}
"""

    def slurm_conf(self) -> str:
        """slurm.conf: strict about who sees what, quick to start jobs, with room for many of them."""
        host = socket.gethostname().split(".")[0]
        nodes = "".join(
            f"NodeName={node} NodeHostname={host} NodeAddr=127.0.0.1 Port={getattr(self.ports, node)}"
            f" CPUs={CPUS_PER_NODE} RealMemory={MEMORY_MIB_PER_NODE}"
            f" Gres=gpu:{GPU_TYPE}:{len(GPU_DEVICES)} State=UNKNOWN\n"
            for node in NODES
        )
        return f"""\
ClusterName={self.name}
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={self.ports.slurmctld}
SlurmUser={self.user}
SlurmdUser={self.user}
{self._authentication}
StateSaveLocation={self.root}/state/slurmctld
SlurmdSpoolDir={self.root}/state/%n
SlurmctldPidFile={self.root}/run/slurmctld.pid
SlurmdPidFile={self.root}/run/slurmd.%n.pid
MailProg=/bin/true

PrivateData=jobs,usage,users,accounts
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort={self.ports.slurmdbd}
AccountingStoragePass={self.root}/run/munge.sock
AccountingStorageTRES=gres/gpu,gres/gpu:{GPU_TYPE}
AccountingStorageEnforce=associations,limits,safe
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=30

GresTypes=gpu
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
DefMemPerCPU=256
{"UsePAM=1" if self.login != self.user else ""}
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
SlurmdParameters=config_overrides
ReturnToService=2
SlurmdTimeout=300
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny

MaxJobCount={self.max_jobs}
MinJobAge=300
KillWait=5
CompleteWait=0
JobRequeue=0
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_interval=1,sched_min_interval=50000,default_queue_depth=200,\
bf_interval=1,bf_max_job_test=200,bf_continue
PriorityType=priority/basic

{nodes}PartitionName=gpu Nodes={",".join(NODES)} Default=YES MaxTime=24:00:00 DefaultTime=00:10:00 State=UP
"""

    def gres_conf(self) -> str:
        """gres.conf: fake GPUs."""
        return "".join(
            f"NodeName={node} Name=gpu Type={GPU_TYPE} File={device}\n" for node in NODES for device in GPU_DEVICES
        )

    def slurmdbd_conf(self) -> str:
        """slurmdbd.conf."""
        return f"""\
DbdHost=localhost
DbdAddr=127.0.0.1
DbdPort={self.ports.slurmdbd}
SlurmUser={self.user}
{self._authentication}
PrivateData=jobs,usage,users,accounts
PidFile={self.root}/run/slurmdbd.pid
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort={self.ports.mariadbd}
StorageUser=slurm
StoragePass={self.database_password}
StorageLoc=slurm_acct_db
"""

    def database_sql(self) -> str:
        """What mariadbd runs at each start: only slurmdbd gets in over TCP."""
        return f"""\
CREATE DATABASE IF NOT EXISTS slurm_acct_db;
CREATE OR REPLACE USER 'slurm'@'127.0.0.1' IDENTIFIED BY '{self.database_password}';
GRANT ALL ON slurm_acct_db.* TO 'slurm'@'127.0.0.1';
"""

    def associations(self, projects: tuple[str, ...]) -> str:
        """What sacctmgr loads: the account `idf` of the login account, and one per project below it."""
        lines = [f"Cluster - '{self.name}'", "Parent - 'root'", _account(PARENT), f"Parent - '{PARENT}'"]
        lines += [_account(project) for project in projects]
        lines += [f"User - '{self.login}':DefaultAccount='{PARENT}'"]
        for project in projects:
            lines += [f"Parent - '{project}'", f"User - '{project}':DefaultAccount='{project}'"]
        return "\n".join(lines) + "\n"

    def sshd_config(self) -> str:
        """sshd: one account, one key, one command; no profile, no forwarding, no terminal."""
        accounts = self.login != self.user
        strict = "yes" if accounts else "no"
        keys = ".ssh/authorized_keys" if accounts else f"{self.root}/etc/ssh/authorized_keys"
        return f"""\
Port {self.ports.sshd}
ListenAddress 127.0.0.1
HostKey {self.root}/etc/ssh/host_key
PidFile none
AuthorizedKeysFile {keys}
StrictModes {strict}
AllowUsers {self.login}
PermitRootLogin forced-commands-only
AuthenticationMethods publickey
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM no
UseDNS no
PermitUserRC no
PermitTTY no
DisableForwarding yes
MaxStartups 500
MaxSessions 500
LogLevel VERBOSE
"""

    def authorized_keys(self, public_key: str) -> str:
        """The broker's key opens the gateway and nothing else."""
        return f'restrict,command="{self.root}/site/idf-gateway" {public_key}\n'


def _account(name: str) -> str:
    return f"Account - '{name}':Description='idf-compute':Organization='idf-compute'"
