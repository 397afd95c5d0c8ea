"""The torch examples as users run them: six processes under torchrun, with and without liars."""

import difflib
import os
import sys
import tempfile
import unittest

from support import Daemon, finish, python

try:
    import torch
except ImportError:
    raise unittest.SkipTest("torch is not installed") from None

DIRECTORY = os.path.abspath(os.path.join(os.path.dirname(__file__), "../../../examples/pytorch"))
DATA = "/usr/share/datasets/fashion-mnist"
DIMENSION = 9098
STEPS = 30


class Fashion(unittest.TestCase):
    def setUp(self):
        if not os.path.isdir(DATA):
            self.skipTest(f"{DATA} is not there: install Debian's package dataset-fashion-mnist")
        self.directory = self.enterContext(tempfile.TemporaryDirectory())

    def run_script(self, script, *arguments, daemon=()):
        """The final weights, what the script said, and whom the daemon named."""
        weights = os.path.join(self.directory, "weights")
        # Every word waits for every worker, so that every lie is seen; a machine under load has time.
        patient = ["--rounds-deadline-ms=60000", "--rounds-linger-ms=60000"]
        with Daemon(DIMENSION, *patient, *(daemon or ["--job-scale=0.5"]), groups=2) as aggregator:
            launcher = ["-m", "torch.distributed.run", "--nproc_per_node=6", "--rdzv_backend=c10d", "--rdzv_endpoint=localhost:0"]
            # Debian's torch 1.13 cannot do without these on Python 3.11: it looks for a flag of value 0.
            launcher += ["--redirects=1", "--tee=1", f"--log_dir={self.directory}"]
            script = [script, f"--steps={STEPS}", f"--weights={weights}", *arguments]
            environment = {"SOLON_ENDPOINT": aggregator.endpoint}
            status, out, errors = finish(python(*launcher, *script, environment=environment, cwd=DIRECTORY))
        self.assertEqual(status, 0, errors)
        state = torch.load(weights)
        return torch.cat([tensor.flatten() for tensor in state.values()]), out

    def distance(self, found, wanted):
        return ((found - wanted).norm() / wanted.norm()).item()

    def test_liars_change_nothing_and_are_named_while_a_mean_is_ruined(self):
        lies = ["--lie=reverse", "--liars=1,4"]
        honest, said = self.run_script("flat.py")
        self.assertIn("liars: []", said)
        attacked, said = self.run_script("flat.py", *lies)
        self.assertIn("liars: [1, 4]", said)
        self.assertLess(self.distance(attacked, honest), 1e-5)
        hooked, said = self.run_script("ddp.py", *lies)
        self.assertIn("liars: [1, 4]", said)
        self.assertTrue(torch.equal(hooked, attacked), f"they differ by {self.distance(hooked, attacked)}")
        mean = ["--job-rule=mean", "--job-groups=6", "--job-adversaries=0", "--job-compression=1", f"--job-scale={1 / 6}"]
        ruined, said = self.run_script("flat.py", *lies, daemon=mean)
        self.assertFalse(self.distance(ruined, honest) < 1)

    def test_the_script_with_solon_is_the_plain_one_with_lines_added(self):
        def lines(script):
            with open(os.path.join(DIRECTORY, script)) as file:
                return file.read().splitlines()

        changed = [line for line in difflib.ndiff(lines("plain.py"), lines("flat.py")) if line.startswith("- ")]
        # The docstring, an import, the parser (for --lie) and the loader, whose batches are dealt to groups.
        self.assertLessEqual(len(changed), 4, changed)

    def test_the_plain_script_runs_on_its_own(self):
        status, out, errors = finish(python("plain.py", f"--steps={STEPS}", cwd=DIRECTORY))
        self.assertEqual(status, 0, errors)
        self.assertIn("test images are right", out)


if __name__ == "__main__":
    sys.exit(unittest.main())
