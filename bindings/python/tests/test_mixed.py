"""A group whose members do not compute the same bits, with real torch: calibrated, it works, and what is far off is still named."""

import json
import os
import subprocess
import sys
import unittest

from support import PATIENCE, Daemon, finish, python

try:
    import torch
except ImportError:
    raise unittest.SkipTest("torch is not installed") from None

WORKER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "mixed_worker.py")
SOLON = os.environ.get("SOLON", "solon")
DIMENSION = 9098
ROUNDS = 20
#: All are waited for in every word, and the first round waits until all are there.
PATIENT = ["--rounds-begin-with=all", "--rounds-deadline-ms=100000", "--rounds-linger-ms=100000"]


class Mixed(unittest.TestCase):
    def work(self, endpoint, ways, rounds, lie=0.0):
        """One process for each way to compute; the last one may lie. What they said."""
        # The tests run with one thread each; here that is what differs.
        variables = {"SOLON_ENDPOINT": endpoint, "OMP_NUM_THREADS": "2", "MKL_NUM_THREADS": "2"}
        processes = []
        for worker, way in enumerate(ways):
            lies = [f"--lie={lie}"] if lie and worker == len(ways) - 1 else []
            environment = variables | {"SOLON_WORKER": str(worker)}
            processes.append(python(WORKER, f"--rounds={rounds}", *way, *lies, environment=environment))
        said = []
        for process in processes:
            status, out, errors = finish(process)
            self.assertEqual(status, 0, errors)
            said.append(json.loads(out))
        return said

    def calibrated(self, ways):
        flags = [f"--job-dimension={DIMENSION}", "--job-groups=1", "--job-adversaries=1", "--job-compression=1", *PATIENT]
        flags += ["--listen-address=127.0.0.1:0", "--listen-transport=tcp", "--cores-pin=false", "--cores-idle=park"]
        command = [SOLON, "calibrate", f"--rounds={ROUNDS}", "--json", "--", *flags]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            try:
                first = process.stderr.readline()
                self.assertIn("calibrating at ", first)
                endpoint = first.split("calibrating at ")[1].split(": ")[0]
                self.work(endpoint, ways, 10 * ROUNDS)
                out, errors = process.communicate(timeout=PATIENCE)
            finally:
                process.kill()
        self.assertEqual(process.returncode, 0, errors)
        found = json.loads(out)
        self.assertEqual(found["lies"], 0)
        return found["groups"][0]["most"], found["suggested"]

    def shown(self, name, ways, least):
        """Calibrates the group, and has it work at what was found: with and without a lie of 100 times as much."""
        most, tolerance = self.calibrated(ways)
        self.assertGreater(most, least, "the group does not compute the same bits")
        flags = [f"--verify-tolerance={tolerance}", *PATIENT]
        with Daemon(DIMENSION, *flags) as daemon:
            honest = self.work(daemon.endpoint, ways, ROUNDS)
        self.assertTrue(any("computes differently" in line["message"] for line in daemon.log), "the daemon says that it is mixed")
        with Daemon(DIMENSION, *flags) as daemon:
            lied = self.work(daemon.endpoint, ways, ROUNDS, lie=100 * tolerance)
        for said in honest:
            self.assertEqual((said["rounds"], said["named"]), (ROUNDS, []))
            self.assertLessEqual(said["residual"], 1)
        for said in lied:
            self.assertEqual((said["rounds"], said["named"], said["named_rounds"]), (ROUNDS, [len(ways) - 1], ROUNDS))
        print(
            f"{name}: torch {torch.__version__}, most noise {most:.1e}, tolerance found {tolerance:.1e}; at it {ROUNDS} of {ROUNDS} "
            f"rounds, nobody named, residual at most {honest[0]['residual']:.2f} of it; off by {100 * tolerance:.1e}: named in "
            f"{lied[0]['named_rounds']} of {ROUNDS}"
        )

    def test_a_group_of_one_and_two_threads(self):
        self.shown("1 and 2 threads", [["--threads=1"], ["--threads=2"], ["--threads=1"]], 1e-9)

    def test_a_group_of_which_one_computes_in_bf16_and_in_parts_of_the_batch(self):
        ways = [["--threads=1"], ["--threads=1", "--bf16"], ["--threads=2"]]
        self.shown("one in bf16, 4 parts", ways, 1e-4)
        # Without, the one in bf16 looks like a liar, if not even the others are near enough.
        with Daemon(DIMENSION, *PATIENT) as daemon:
            said = self.work(daemon.endpoint, ways, 3)
        self.assertTrue(said[0]["named"] == [1] or said[0]["undecodable"] == 3, said[0])


if __name__ == "__main__":
    sys.exit(unittest.main())
