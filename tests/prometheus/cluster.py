"""The processes that are watched: `solond`, workers of the demonstration of which some lie, and a Prometheus that scrapes the daemon.

All of them are on loopback ports of their own, and ended when `Cluster.close` is called, by what is left of their handles.
"""

import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import threading
import time
import urllib.parse
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[2]

#: The demonstration's model: 64 inputs, 64 hidden units, 10 classes.
DIMENSION = 64 * 64 + 64 + 64 * 10 + 10
BATCH = 112
GROUPS, ADVERSARIES, STRAGGLERS, COMPRESSION = 2, 2, 1, 2
REDUNDANCY = COMPRESSION + 2 * ADVERSARIES + STRAGGLERS
WORKERS = GROUPS * REDUNDANCY


class Failed(Exception):
    """What must hold did not."""


def wait_for(what, ready, seconds=30):
    """Asks `ready` until it gives something, which it returns."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = ready()
        if found:
            return found
        time.sleep(0.05)
    raise Failed(f"waited {seconds} s for {what}")


def get(url):
    with urllib.request.urlopen(url, timeout=10) as answer:
        return answer.read().decode()


class Cluster:
    """A daemon and its workers."""

    def __init__(self, programs, work):
        self.programs, self.work = pathlib.Path(programs), work
        self.children, self.workers, self.log = [], {}, []
        self.address = self.admin = None

    def _start(self, name, command, **more):
        # At low priority: who else works on this machine is not to wait for a test.
        environment = {"PATH": os.environ.get("PATH", "/usr/bin:/bin"), "TMPDIR": str(self.work)}
        child = subprocess.Popen(["nice", "-n", "5", *map(str, command)], env=environment, **more)
        self.children.append((name, child))
        return child

    def start_daemon(self):
        flags = {
            "listen-address": "127.0.0.1:0",
            "listen-transport": "tcp",
            "admin-address": "127.0.0.1:0",
            "job-name": "demo",
            "job-dimension": DIMENSION,
            "job-scale": 1 / BATCH,
            "job-groups": GROUPS,
            "job-adversaries": ADVERSARIES,
            "job-stragglers": STRAGGLERS,
            "job-compression": COMPRESSION,
            "chunks-width": 256,
            # Words wait for connected workers, so that every lie is seen in its round; not until the deadline, or a worker that is stopped would cost rounds.
            "rounds-deadline-ms": 2000,
            "rounds-linger-ms": 200,
            # Workers pass updates on, so that the panels of the relay have data.
            "push-way": "relay",
            "cores-pin": "false",
            "log-format": "json",
        }
        arguments = [part for key, value in flags.items() for part in (f"--{key}", str(value))]
        daemon = self._start("solond", [self.programs / "solond", *arguments], stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)

        def read():
            for line in daemon.stderr:
                entry = json.loads(line)
                self.log.append(line)
                if entry.get("message") == "ready":
                    self.address, self.admin = entry["address"], entry["admin"]

        threading.Thread(target=read, daemon=True).start()
        wait_for("solond to be ready", lambda: self.address and self.admin)

    def start_worker(self, worker, attack=None):
        group = worker // REDUNDANCY
        flags = {
            "address": self.address,
            "worker": worker,
            "steps": 0,
            "part": group,
            "parts": GROUPS,
            "seed": 1,
            "hidden": 64,
            "batch": BATCH,
            "rate": 0.1,
            "momentum": 0.9,
            "judge": 0,
            "weights": self.work / f"weights-{worker}",
        }
        if attack:
            flags["attack"] = attack
        arguments = [part for key, value in flags.items() for part in (f"--{key}", str(value))]
        command = [self.programs / "solon", "demo-worker", *arguments]
        child = self._start(f"worker {worker}", command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        self.workers[worker] = child
        return child

    def begin(self, *workers):
        """Waits until these have joined, then has them work."""
        for worker in workers:
            child = self.workers[worker]
            if '"joined"' not in child.stdout.readline():
                raise Failed(f"worker {worker} did not join")
        for worker in workers:
            child = self.workers[worker]
            # What it says of each step is not looked at, but must be read.
            threading.Thread(target=lambda out=child.stdout: [None for _ in out], daemon=True).start()
            child.stdin.write("\n")
            child.stdin.flush()

    def signal(self, worker, number):
        self.workers[worker].send_signal(number)

    def knock(self):
        """Something that does not speak Solon comes to the workers' port."""
        host, port = self.address.split(":")
        with socket.create_connection((host, int(port)), timeout=5) as stranger:
            stranger.sendall(b"GET / HTTP/1.1\r\nHost: solon\r\n\r\n" + bytes(256))
            stranger.settimeout(5)
            try:
                stranger.recv(1)
            except OSError:
                pass

    def metrics(self):
        return get(f"http://{self.admin}/metrics")

    def alive(self):
        return [name for name, child in self.children if child.poll() is None]

    def close(self):
        for _, child in reversed(self.children):
            if child.poll() is None:
                child.send_signal(signal.SIGKILL)
        for _, child in self.children:
            child.wait(timeout=10)


class Prometheus:
    """A Prometheus of its own that scrapes a daemon every second, with the rules of deploy/prometheus."""

    def __init__(self, cluster, tools, work):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.url = "http://127.0.0.1:%d" % free.getsockname()[1]
        text = (ROOT / "deploy/prometheus/prometheus.yml").read_text()
        # The example as it stands, but faster, and for this daemon.
        text = re.sub(r"(scrape_interval|evaluation_interval): \d+s", r"\1: 1s", text)
        text = text.replace("127.0.0.1:7448", cluster.admin).replace("- solon.rules.yml", f"- {ROOT}/deploy/prometheus/solon.rules.yml")
        config = work / "prometheus.yml"
        config.write_text(text)
        log = open(work / "prometheus.log", "w")
        command = [
            pathlib.Path(tools) / "prometheus",
            f"--config.file={config}",
            f"--storage.tsdb.path={work / 'data'}",
            f"--web.listen-address={self.url.removeprefix('http://')}",
        ]
        cluster._start("prometheus", command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        wait_for("Prometheus to be ready", self._ready)

    def _ready(self):
        try:
            return "Ready" in get(f"{self.url}/-/ready")
        except OSError:
            return False

    def ask(self, path, **parameters):
        """The data of an answer of the API."""
        url = f"{self.url}/api/v1/{path}?{urllib.parse.urlencode(parameters, doseq=True)}"
        try:
            return json.loads(get(url))["data"]
        except urllib.error.HTTPError as error:
            raise Failed(f"{path} {parameters}: {error.read().decode()}") from None
