"""`zoo launch`: a command run by several worker processes at once, on this machine; templates for many machines."""

import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time

from zoo._config import did_you_mean

GRACE = 30.0  # seconds that the others have to stop when one has failed
GRACE_TOLD = 60.0  # and when all were told to: the chief writes a checkpoint


def launch(command, workers, environment=None):
    """Runs a command as several workers, each with its TF_CONFIG; their lines are printed behind `[worker N]`.

    SIGTERM, SIGHUP and Ctrl-C are passed on. When a worker fails, the others are told to stop: they would wait for it.

    Args:
        command: list of arguments, the program first.
        workers: number of processes.
        environment: variables besides those of this process.

    Returns:
        The exit code: 0, or that of the worker that failed first; of those that were told to stop the first one's.
    """
    addresses = _free_addresses(workers)
    processes = [_start(command, addresses, index, environment) for index in range(workers)]
    printers = [threading.Thread(target=_print, args=(p.stdout, i), daemon=True) for i, p in enumerate(processes)]
    for printer in printers:
        printer.start()

    told = []  # when somebody has stopped the training

    def tell(number, frame=None):
        if frame is not None:
            told.append(time.monotonic())
        for process in processes:
            if process.poll() is None:
                process.send_signal(number)

    passed_on = [n for n in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP) if signal.getsignal(n) != signal.SIG_IGN]
    before = {number: signal.signal(number, tell) for number in passed_on}
    try:
        code = _wait(processes, tell, told)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for process in processes:
            process.kill()
    for printer, process in zip(printers, processes, strict=True):
        process.wait()
        printer.join(timeout=5)
        process.stdout.close()
    return code


def _free_addresses(count):
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    addresses = [f"127.0.0.1:{opened.getsockname()[1]}" for opened in sockets]
    for opened in sockets:
        opened.close()
    return addresses


def _start(command, addresses, index, environment):
    cluster = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
    own = {**os.environ, "PYTHONUNBUFFERED": "1", **(environment or {}), "TF_CONFIG": json.dumps(cluster)}
    # A group of its own: Ctrl-C reaches this process alone, which passes it on once.
    return subprocess.Popen(
        command, env=own, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )


def _print(stream, index):
    for line in stream:
        print(f"[worker {index}] {line}", end="", flush=True)


def _wait(processes, tell, told):
    """The exit code of all, once the last has ended; `told` is when somebody has stopped them."""
    failed, since = None, None
    while any(process.poll() is None for process in processes):
        codes = [process.poll() for process in processes]
        if failed is None and not told and any(codes):
            index = next(i for i, code in enumerate(codes) if code)
            failed, since = codes[index], time.monotonic()
            ended = f"exit code {failed}" if failed > 0 else signal.Signals(-failed).name
            print(f"worker {index} ended with {ended}; the others are stopped", file=sys.stderr, flush=True)
            tell(signal.SIGTERM)
        now = time.monotonic()
        if (since is not None and now - since > GRACE) or (told and now - told[0] > GRACE_TOLD):
            tell(signal.SIGKILL)
        time.sleep(0.05)
    codes = [process.returncode for process in processes]  # the first is the chief's
    code = failed if failed is not None else next((code for code in codes if code), 0)
    return 128 - code if code < 0 else code


def add_launch(commands):
    """The command `launch`."""
    command = commands.add_parser("launch", help="several worker processes train one model")
    command.add_argument("--workers", type=int, help="processes on this machine")
    command.add_argument("--template", metavar="NAME", help=f"print what many machines need: {', '.join(TEMPLATES)}")
    command.add_argument("arguments", nargs="*", metavar="-- train MODEL …", help="what each of them runs")
    command.set_defaults(run=_launch)


def _launch(options):
    arguments = options.arguments
    if arguments[:1] != ["train"]:
        raise ValueError(
            "Expected what the workers are to do: zoo launch --workers 2 -- train MODEL --data … "
            f"Received: {' '.join(arguments) or 'nothing'}."
        )
    if options.template:
        if options.template not in TEMPLATES:
            raise ValueError(
                f"Unknown template `{options.template}`.{did_you_mean(options.template, TEMPLATES)} "
                f"There is: {', '.join(TEMPLATES)}."
            )
        print(template(options.template, arguments, options.workers or 2))
        return 0
    if not options.workers or options.workers < 1:
        raise ValueError(f"Expected --workers, a number of processes. Received: {options.workers}.")
    return launch([sys.executable, "-m", "zoo._cli", *arguments], options.workers)


def template(name, arguments, workers):
    """What runs a training on many machines, as text.

    Args:
        name: a name of `TEMPLATES`.
        arguments: of the command `zoo`.
        workers: number of machines.
    """
    cluster = [f"zoo-train-{index}.zoo-train:12345" for index in range(workers)]
    values = {
        "workers": workers, "command": shlex.join(["zoo", *arguments]), "addresses": json.dumps(cluster),
    }  # fmt: skip
    text = TEMPLATES[name]
    for key, value in values.items():
        text = text.replace(f"<{key}>", str(value))
    return text


TEMPLATES = {
    "kubernetes": """\
# An indexed Job: <workers> pods, each a worker. NOT RUN by those who wrote it; see what it does before you use it.
# The image needs `pip install mmkeras`; /runs and the data must be one volume that all pods see.
apiVersion: v1
kind: Service
metadata:
  name: zoo-train
spec:
  clusterIP: None
  selector:
    job-name: zoo-train
---
apiVersion: batch/v1
kind: Job
metadata:
  name: zoo-train
spec:
  completions: <workers>
  parallelism: <workers>
  completionMode: Indexed
  backoffLimit: 0
  template:
    spec:
      subdomain: zoo-train
      restartPolicy: Never
      containers:
        - name: worker
          image: YOUR-IMAGE
          command: ["/bin/sh", "-c"]
          args:
            - |
              task='{"type": "worker", "index": '"$JOB_COMPLETION_INDEX"'}'
              export TF_CONFIG='{"cluster": {"worker": <addresses>}, "task": '"$task"'}'
              exec <command>
          ports:
            - containerPort: 12345
          volumeMounts:
            - {name: runs, mountPath: /runs}
      volumes:
        - name: runs
          persistentVolumeClaim: {claimName: YOUR-CLAIM}
""",
    "slurm": """\
#!/bin/bash
# <workers> nodes, a worker on each. NOT RUN by those who wrote it; see what it does before you use it.
# The folder it is submitted from must be one that all nodes see.
#SBATCH --job-name=zoo-train
#SBATCH --nodes=<workers>
#SBATCH --ntasks-per-node=1
#SBATCH --signal=TERM@60
workers=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | sed 's/.*/"&:12345"/' | paste -sd, -)
export workers
cat > zoo-worker.sh <<'END'
task='{"type": "worker", "index": '$SLURM_PROCID'}'
export TF_CONFIG='{"cluster": {"worker": ['$workers']}, "task": '$task'}'
exec <command>
END
srun bash zoo-worker.sh
""",
}
