#!/usr/bin/env bash
# A throw-away Slurm on this machine, for development and CI: virtual nodes with fake GPUs, as root on Debian or Ubuntu,
# without systemd. It installs what is missing, and a second `up` only starts what is down.
#
#   scripts/slurm_dev.sh up       start (or bring up to a changed setting)
#   scripts/slurm_dev.sh down     stop what `up` started; Slurm's state and settings are removed
#
# Settings, from the environment. CPUs, memory and GPUs are per node and need not exist.
NODES=${NODES:-2} GPUS=${GPUS:-2} CPUS=${CPUS:-4} MEMORY_MB=${MEMORY_MB:-8000}
MAX_ARRAY_SIZE=${MAX_ARRAY_SIZE:-1001}   # array indices stay below it
ACCOUNTING=${ACCOUNTING:-0}              # 1: slurmdbd and mariadb, so that sacct answers
PORT=${PORT:-6817}                       # slurmctld's; slurmdbd gets PORT+2, the nodes PORT+11 and up
KILL_WAIT=${KILL_WAIT:-5}                # seconds between SIGTERM and SIGKILL
set -euo pipefail

ETC=/etc/slurm RUN=/run/slurm-dev LOG=/var/log/slurm-dev STATE=/var/lib/slurm-dev
HOST=$(hostname -s)
export SLURM_CONF=$ETC/slurm.conf

main() {
  [ "$(id -u)" = 0 ] || { echo "slurm_dev.sh: needs root" >&2; exit 2; }
  case "${1:-up}" in
    up) up ;;
    down) down ;;
    *) sed -n '2,6s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
  esac
}

# A cluster that somebody else set up is left alone.
refuse_foreign() {
  [ ! -e "$ETC/slurm.conf" ] || grep -qx ClusterName=dev "$ETC/slurm.conf" && return 0
  echo "slurm_dev.sh: $ETC/slurm.conf is another cluster's; right: a machine without Slurm" >&2
  exit 2
}

up() {
  refuse_foreign
  install_packages
  mkdir -p "$ETC" "$RUN" "$LOG" "$STATE/ctld"
  grep -qw "$HOST" /etc/hosts || echo "127.0.0.1 $HOST" >>/etc/hosts
  start_munge
  if [ "$ACCOUNTING" = 1 ]; then start_accounting; fi
  configure
  start_slurm
  sinfo -No "%N %T %c %m %G"
}

down() {
  refuse_foreign
  for pid in "$RUN"/slurmd-*.pid "$RUN"/slurmctld.pid "$RUN"/slurmdbd.pid; do stop "$pid"; done
  if [ -e "$RUN/mariadb.ours" ]; then mariadb-admin shutdown || true; fi
  rm -rf "$RUN" "$STATE" "$ETC/slurm.conf" "$ETC/gres.conf" "$ETC/slurmdbd.conf"
}

# ---- helpers

alive() { [ -s "$1" ] && kill -0 "$(cat "$1")" 2>/dev/null; }

stop() {
  alive "$1" || return 0
  kill "$(cat "$1")"
  wait_for 10 not_alive "$1"
}

not_alive() { ! alive "$1"; }

wait_for() {  # seconds, command …
  local tries=$(($1 * 5)); shift
  for _ in $(seq "$tries"); do "$@" >/dev/null 2>&1 && return 0; sleep 0.2; done
  echo "slurm_dev.sh: waited too long for: $*" >&2
  return 1
}

listening() { (exec 3<>"/dev/tcp/$HOST/$1"); }

# ---- packages, munge, accounting

install_packages() {
  local wanted=(slurmctld slurmd slurm-client munge) missing=() package
  if [ "$ACCOUNTING" = 1 ]; then wanted+=(slurmdbd mariadb-server); fi
  for package in "${wanted[@]}"; do dpkg -s "$package" >/dev/null 2>&1 || missing+=("$package"); done
  [ ${#missing[@]} -gt 0 ] || return 0
  local policy=/usr/sbin/policy-rc.d ours=0
  if [ ! -e $policy ]; then  # dpkg is not to start services with settings of its own
    printf '#!/bin/sh\nexit 101\n' >$policy; chmod +x $policy; ours=1
  fi
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
  if [ $ours = 1 ]; then rm -f $policy; fi
}

start_munge() {
  munge -n >/dev/null 2>&1 && return 0
  [ -s /etc/munge/munge.key ] || head -c 1024 /dev/urandom >/etc/munge/munge.key
  chown munge: /etc/munge/munge.key
  chmod 400 /etc/munge/munge.key
  install -d -o munge -g munge -m 755 /run/munge
  install -d -o munge -g munge -m 700 /var/log/munge /var/lib/munge
  setpriv --reuid munge --regid munge --clear-groups /usr/sbin/munged
  wait_for 10 munge -n
}

start_accounting() {
  if ! mariadb-admin ping >/dev/null 2>&1; then
    install -d -o mysql -g mysql /run/mysqld
    mariadbd-safe --user=mysql --skip-networking --skip-log-bin --innodb-buffer-pool-size=64M >"$LOG/mariadb.log" 2>&1 &
    wait_for 60 mariadb-admin ping
    touch "$RUN/mariadb.ours"
  fi
  mariadb -e "create database if not exists slurm_acct_db; create user if not exists slurm@localhost identified by 'slurm';
              grant all on slurm_acct_db.* to slurm@localhost;"
  cat >"$ETC/slurmdbd.conf" <<CONF
DbdHost=$HOST
DbdPort=$((PORT + 2))
SlurmUser=root
AuthType=auth/munge
StorageType=accounting_storage/mysql
StorageHost=localhost
StorageUser=slurm
StoragePass=slurm
StorageLoc=slurm_acct_db
PidFile=$RUN/slurmdbd.pid
LogFile=$LOG/slurmdbd.log
CONF
  chmod 600 "$ETC/slurmdbd.conf"
  alive "$RUN/slurmdbd.pid" || slurmdbd
  wait_for 60 listening $((PORT + 2))
}

# ---- configuration

node_list() { if [ "$NODES" = 1 ]; then echo node1; else echo "node[1-$NODES]"; fi; }

configure() {
  gres_conf >"$ETC/gres.conf"
  slurm_conf >"$ETC/slurm.conf"
}

gres_conf() {
  [ "$GPUS" -gt 0 ] || return 0
  # Character devices: with plain files jobs are scheduled, but CUDA_VISIBLE_DEVICES stays unset.
  mkdir -p "$STATE/dev"
  for i in $(seq 0 $((GPUS - 1))); do [ -c "$STATE/dev/gpu$i" ] || mknod "$STATE/dev/gpu$i" c 1 3; done
  local range="[0-$((GPUS - 1))]"
  if [ "$GPUS" = 1 ]; then range=0; fi
  echo "AutoDetect=off"
  echo "NodeName=$(node_list) Name=gpu Type=fake File=$STATE/dev/gpu$range"
}

slurm_conf() {
  local gres="" i
  if [ "$GPUS" -gt 0 ]; then gres="Gres=gpu:fake:$GPUS"; fi
  cat <<CONF
ClusterName=dev
SlurmctldHost=$HOST
SlurmctldPort=$PORT
SlurmUser=root
AuthType=auth/munge
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerType=sched/backfill
SchedulerParameters=sched_min_interval=100000,batch_sched_delay=0,bf_interval=5
SlurmdParameters=config_overrides
ReturnToService=2
MaxArraySize=$MAX_ARRAY_SIZE
MinJobAge=300
KillWait=$KILL_WAIT
GresTypes=gpu
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=2
JobAcctGatherParams=OverMemoryKill
StateSaveLocation=$STATE/ctld
SlurmdSpoolDir=$STATE/spool-%n
SlurmctldPidFile=$RUN/slurmctld.pid
SlurmdPidFile=$RUN/slurmd-%n.pid
SlurmctldLogFile=$LOG/slurmctld.log
SlurmdLogFile=$LOG/slurmd-%n.log
$(accounting_conf)
CONF
  for i in $(seq "$NODES"); do
    echo "NodeName=node$i NodeHostname=$HOST NodeAddr=127.0.0.1 Port=$((PORT + 10 + i))" \
         "CPUs=$CPUS RealMemory=$MEMORY_MB $gres State=UNKNOWN"
  done
  echo "PartitionName=gpu Nodes=$(node_list) Default=YES MaxTime=INFINITE DefMemPerCPU=100 State=UP"
}

accounting_conf() {
  if [ "$ACCOUNTING" = 1 ]; then
    echo "AccountingStorageType=accounting_storage/slurmdbd"
    echo "AccountingStorageHost=$HOST"
    echo "AccountingStoragePort=$((PORT + 2))"
    echo "AccountingStorageTRES=gres/gpu"
  else
    echo "AccountingStorageType=accounting_storage/none"
  fi
}

# ---- daemons

start_slurm() {
  restart_if_changed
  if [ "$ACCOUNTING" = 1 ]; then add_cluster; fi
  alive "$RUN/slurmctld.pid" || slurmctld
  wait_for 30 controller_answers
  for i in $(seq "$NODES"); do start_node "node$i"; done
  wait_for 30 nodes_are_up
}

restart_if_changed() {
  local new old pid
  new=$(cat "$ETC/slurm.conf" "$ETC/gres.conf" | sha256sum)
  old=$(cat "$RUN/conf.sum" 2>/dev/null || true)
  if [ "$new" != "$old" ]; then
    for pid in "$RUN"/slurmd-*.pid "$RUN"/slurmctld.pid; do stop "$pid"; done
    echo "$new" >"$RUN/conf.sum"
  fi
}

add_cluster() {
  wait_for 20 sacctmgr -n show cluster
  [ -n "$(sacctmgr -nP show cluster dev)" ] || sacctmgr -i add cluster dev >/dev/null
}

start_node() {
  mkdir -p "$STATE/spool-$1"
  alive "$RUN/slurmd-$1.pid" || slurmd -N "$1"
}

controller_answers() { scontrol ping | grep -q UP; }
nodes_are_up() { [ "$(sinfo -hN -t idle,mix,alloc -o %N | wc -l)" -ge "$NODES" ]; }

main "$@"
