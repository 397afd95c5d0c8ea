"""Without numpy and torch: the standard library has buffers too."""

import ctypes
import gc
import os
import pickle
import signal
import socket
import sys
import threading
import unittest
from array import array

import solon
from support import PATIENCE, Daemon, all_of, finish, in_threads, join, python


def floats(*numbers):
    return array("f", numbers)


class Rounds(unittest.TestCase):
    def test_every_worker_gets_the_same_update_and_the_liar_is_named(self):
        with Daemon(4, "--rounds-linger-ms=10000", groups=2, compression=2) as daemon:

            def work(worker):
                group = worker.plan.group
                buffer = floats(1, 2, 3, 4) if group == 0 else floats(10, 20, 30, 40)
                return worker.exchange(buffer), buffer, (group, worker.plan.row)

            workers = self.enterContext(all_of(daemon, 8))
            workers[5].lie("reverse")
            results = in_threads([lambda worker=worker: work(worker) for worker in workers])
            for index, (report, update, place) in enumerate(results):
                self.assertEqual([round(number) for number in update], [11, 22, 33, 44])
                self.assertEqual(update, results[0][1])
                self.assertEqual((report.round, report.liars, report.absent), (0, (5,), ()))
                self.assertLessEqual(report.residual_ratio, 1)
                self.assertGreater(report.received_ratio, 1)
                self.assertEqual(report.digest, results[0][0].digest)
                self.assertEqual(place, (index // 4, index % 4))
            self.assertIn("liars=[5]", repr(results[0][0]))

    def test_rounds_can_overlap_by_submit_and_wait(self):
        with Daemon(3, groups=3, adversaries=0) as daemon, all_of(daemon, 3) as workers:

            def work(worker):
                rounds = [worker.submit(floats(1, 2, 3)), worker.submit(floats(4, 5, 6))]
                with self.assertRaisesRegex(solon.WindowFull, "2 rounds are in flight"):
                    worker.submit(floats(7, 8, 9))
                updates = [floats(0, 0, 0), floats(0, 0, 0)]
                reports = [worker.wait(update) for update in updates]
                return rounds, [report.round for report in reports], updates

            for rounds, reported, updates in in_threads([lambda worker=worker: work(worker) for worker in workers]):
                self.assertEqual(rounds, [0, 1])
                self.assertEqual(reported, [0, 1])
                self.assertEqual(updates, [floats(3, 6, 9), floats(12, 15, 18)])

    def test_any_writable_run_of_floats_will_do(self):
        with Daemon(2, adversaries=0) as daemon, join(daemon, 0) as worker:
            for buffer in [
                floats(1, 2),
                memoryview(floats(1, 2)),
                memoryview(bytearray(floats(1, 2))).cast("f"),
                memoryview(floats(9, 1, 2, 9))[1:3],
                (ctypes.c_float * 2)(1, 2),
            ]:
                worker.exchange(buffer)
                self.assertEqual(list(buffer), [1, 2])
            self.assertEqual(worker.next_round, 5)

    def test_the_plan_says_what_the_daemon_was_told(self):
        with Daemon(100, "--job-scale=0.5", "--chunks-width=8", groups=2, compression=2) as daemon, join(daemon, 6) as worker:
            plan = worker.plan
            self.assertEqual((plan.dimension, plan.groups, plan.redundancy, plan.workers), (100, 2, 4, 8))
            self.assertEqual((plan.adversaries, plan.stragglers, plan.compression, plan.scale), (1, 0, 2, 0.5))
            self.assertEqual((plan.worker, plan.group, plan.row, plan.window), (6, 1, 2, 2))
            self.assertEqual((plan.chunk_width, plan.chunks), (8, 7))
            self.assertIn("dimension=100", repr(plan))
            self.assertEqual(worker.way[0], "tcp")

    def test_nothing_else_is_imported(self):
        status, out, errors = finish(python("-c", "import sys, solon; print('torch' in sys.modules, 'numpy' in sys.modules)"))
        self.assertEqual((status, out.strip()), (0, "False False"), errors)

    def test_it_says_its_version(self):
        self.assertRegex(solon.__version__, r"^\d+\.\d+\.\d+$")


class WrongInput(unittest.TestCase):
    def setUp(self):
        self.daemon = self.enterContext(Daemon(4, adversaries=0))
        self.worker = self.enterContext(join(self.daemon, 0))

    def refused(self, kinds, buffer, *parts):
        for call in (self.worker.exchange, self.worker.wait, self.worker.submit):
            if call == self.worker.submit and "read-only" in parts:
                continue
            with self.assertRaises(solon.Error) as raised:
                call(buffer)
            for kind in kinds:
                self.assertIsInstance(raised.exception, kind)
            for part in parts:
                self.assertIn(part, str(raised.exception))
            self.assertTrue(raised.exception.hint)
            self.assertEqual(raised.exception.fault, "caller")
        self.worker.exchange(floats(1, 2, 3, 4))

    def test_doubles(self):
        self.refused([solon.WrongType, TypeError], array("d", [1, 2, 3, 4]), "array", "'d'", "32-bit floats")

    def test_bytes_that_could_be_floats(self):
        self.refused([solon.WrongType], bytearray(16), "bytearray", "'B'")

    def test_integers_of_the_same_size(self):
        self.refused([solon.WrongType], array("i", [1, 2, 3, 4]), "'i'")

    def test_no_buffer(self):
        self.refused([solon.WrongType, TypeError], [1.0, 2.0, 3.0, 4.0], "list", "buffer")
        self.refused([solon.WrongType], None, "NoneType")

    def test_every_second_number(self):
        self.refused([solon.WrongValue, ValueError], memoryview(floats(*range(8)))[::2], "memoryview", "not contiguous")

    def test_read_only(self):
        self.refused([solon.WrongValue, ValueError], memoryview(floats(1, 2, 3, 4)).toreadonly(), "read-only")

    def test_a_read_only_gradient_can_be_submitted(self):
        self.worker.submit(memoryview(floats(1, 2, 3, 4)).toreadonly())
        self.worker.wait(floats(0, 0, 0, 0))

    def test_wrong_length(self):
        self.refused([solon.WrongValue, ValueError], floats(1, 2, 3), "3 numbers", "has 4", "dimension")
        self.refused([solon.WrongValue], floats(), "0 numbers")

    def test_a_lie_of_an_unknown_kind(self):
        with self.assertRaisesRegex(solon.WrongValue, "revers.*choose one of reverse"):
            self.worker.lie("revers")

    def test_a_worker_that_has_left(self):
        self.worker.leave()
        self.worker.leave()
        with self.assertRaisesRegex(solon.Left, "has left"):
            self.worker.exchange(floats(1, 2, 3, 4))


class Joining(unittest.TestCase):
    def test_nobody_listens(self):
        with self.assertRaises(solon.NoDaemon) as raised:
            solon.join("127.0.0.1:1", worker=0)
        self.assertIsInstance(raised.exception, ConnectionError)
        self.assertIn("127.0.0.1:1", raised.exception.cause)
        self.assertIn("start solond", raised.exception.hint)
        self.assertTrue(raised.exception.transient)

    def test_a_rank_or_job_that_there_is_not(self):
        with Daemon(4) as daemon:
            with self.assertRaisesRegex(solon.Refused, "no worker 7 in a job of 3 workers") as raised:
                join(daemon, 7)
            self.assertEqual((raised.exception.fault, raised.exception.transient), ("caller", False))
            with self.assertRaisesRegex(solon.Refused, "another job"):
                join(daemon, 0, job="theirs")
            with self.assertRaisesRegex(solon.WrongValue, "not a number from 0"):
                join(daemon, -1)

    def test_arguments_out_of_range(self):
        for given in [
            {"transport": "carrier pigeon"},
            {"round_timeout": -1.0},
            {"join_timeout": float("nan")},
            {"advertise": "x"},
        ]:
            with self.assertRaisesRegex(solon.WrongValue, next(iter(given))):
                solon.join("127.0.0.1:1", worker=0, **given)

    def test_a_worker_that_computes_differently_is_told_in_what(self):
        with Daemon(4, "--verify-mixed=refuse", adversaries=0, compression=3) as daemon:
            # Two of three say the same: more than half.
            same = solon.fingerprint()
            with join(daemon, 0, fingerprint=same), join(daemon, 2, fingerprint=same):
                other = solon.fingerprint() | {"threads": "many"}
                with self.assertRaisesRegex(solon.Refused, "worker 0 and others of its group: threads differ") as raised:
                    join(daemon, 1, fingerprint=other)
                self.assertIn('here it is threads "many"', raised.exception.cause)
                self.assertIn("solon calibrate", raised.exception.hint)
                self.assertEqual((raised.exception.fault, raised.exception.transient), ("caller", False))
                join(daemon, 1, fingerprint=solon.fingerprint()).leave()
        with self.assertRaisesRegex(solon.WrongValue, "fingerprint has \"thread\""):
            solon.join("127.0.0.1:1", worker=0, fingerprint={"thread": "1"})
        with self.assertRaises(TypeError):
            solon.join("127.0.0.1:1", worker=0, fingerprint={"threads": 1})

    def test_nobody_says_who_it_is(self):
        with self.assertRaises(solon.NotConfigured) as raised:
            solon.join("127.0.0.1:1")
        for part in ["SOLON_WORKER (not set)", "torchrun", "SLURM_PROCID", "OMPI_COMM_WORLD_RANK"]:
            self.assertIn(part, raised.exception.cause)
        with self.assertRaisesRegex(solon.NotConfigured, "SOLON_ENDPOINT"):
            solon.join(worker=0)

    def test_the_environment_says_who_it_is(self):
        with Daemon(4) as daemon:
            variables = {"SOLON_ENDPOINT": daemon.endpoint, "RANK": "2", "LOCAL_RANK": "0"}
            status, out, errors = finish(python("-c", "import solon; print(solon.join().plan.worker)", environment=variables))
            self.assertEqual((status, out.strip()), (0, "2"), errors)


class Trouble(unittest.TestCase):
    def test_a_daemon_that_dies_in_mid_round_is_said_and_the_worker_can_come_back(self):
        with Daemon(4) as daemon, join(daemon, 0) as worker:
            worker.submit(floats(1, 2, 3, 4))
            daemon.kill()
            with self.assertRaises(solon.AggregatorLost) as raised:
                worker.wait(floats(0, 0, 0, 0))
            self.assertIsInstance(raised.exception, ConnectionError)
            self.assertEqual(raised.exception.round, 0)
            self.assertIn("rejoin", raised.exception.hint)
            with self.assertRaises(solon.NoDaemon):
                worker.rejoin()
            with Daemon(4, listen=daemon.endpoint):
                self.assertEqual(worker.rejoin(), (0, 0))
                self.assertEqual(worker.next_round, 0)

    def test_more_liars_than_the_code_corrects_are_undecodable(self):
        # All shards are there before it is decided.
        with Daemon(4, "--rounds-linger-ms=10000") as daemon, all_of(daemon, 3) as workers:

            def work(worker):
                if worker.plan.worker > 0:
                    worker.lie("gaussian", seed=worker.plan.worker)
                with self.assertRaises(solon.Undecodable) as raised:
                    worker.exchange(floats(1, 2, 3, 4))
                return raised.exception

            for error in in_threads([lambda worker=worker: work(worker) for worker in workers]):
                self.assertEqual((error.round, error.group, error.chunk, error.fault), (0, 0, 0, "workers"))
                self.assertIn("agree", error.reason)
                self.assertEqual(error.report.round, 0)
                again = pickle.loads(pickle.dumps(error))
                self.assertEqual((again.reason, again.hint, str(again)), (error.reason, error.hint, str(error)))

    def test_a_round_that_does_not_end_times_out_and_can_be_waited_for_again(self):
        with Daemon(4, adversaries=0, groups=2) as daemon, join(daemon, 0, round_timeout=0.2) as worker, join(daemon, 1) as other:
            worker.submit(floats(1, 2, 3, 4))
            with self.assertRaises(solon.Timeout) as raised:
                worker.wait(floats(0, 0, 0, 0))
            self.assertIsInstance(raised.exception, TimeoutError)
            other.exchange(floats(1, 2, 3, 4))
            update = floats(0, 0, 0, 0)
            while True:
                try:
                    worker.wait(update)
                    break
                except solon.Timeout:
                    pass
            self.assertEqual(update, floats(2, 4, 6, 8))

    def test_ctrl_c_ends_a_join(self):
        # Who connects is never answered.
        with socket.create_server(("127.0.0.1", 0)) as silent:
            threading.Timer(0.3, signal.raise_signal, [signal.SIGINT]).start()
            with self.assertRaises(KeyboardInterrupt):
                solon.join("127.0.0.1:%d" % silent.getsockname()[1], worker=0, join_timeout=PATIENCE)

    def test_ctrl_c_ends_a_wait(self):
        with Daemon(4, adversaries=0, groups=2) as daemon, join(daemon, 0) as worker, join(daemon, 1) as other:
            threading.Timer(0.3, signal.raise_signal, [signal.SIGINT]).start()
            buffer = floats(1, 2, 3, 4)
            with self.assertRaises(KeyboardInterrupt):
                worker.exchange(buffer)
            other.submit(floats(1, 2, 3, 4))
            other.leave()

    def test_other_threads_run_while_one_waits_and_get_a_clear_error_from_the_same_worker(self):
        with Daemon(4, adversaries=0, groups=2) as daemon, join(daemon, 0) as worker, join(daemon, 1) as other:
            waiter = threading.Thread(target=worker.exchange, args=[floats(1, 2, 3, 4)])
            waiter.start()
            while True:
                try:
                    worker.next_round
                except solon.Busy as error:
                    self.assertIn("one thread at a time", error.hint)
                    break
            with self.assertRaises(solon.Busy):
                worker.leave()
            other.exchange(floats(1, 2, 3, 4))
            waiter.join(PATIENCE)
            self.assertFalse(waiter.is_alive())
            self.assertEqual(worker.next_round, 1)

    def test_a_forked_child_is_told_and_disturbs_nobody(self):
        with Daemon(4, adversaries=0) as daemon, join(daemon, 0) as worker:
            worker.exchange(floats(1, 2, 3, 4))
            reader, writer = os.pipe()
            child = os.fork()
            if child == 0:
                said = b"nothing"
                try:
                    for call in (lambda: worker.exchange(floats(1, 2, 3, 4)), worker.leave, lambda: worker.next_round):
                        try:
                            call()
                            said = b"no error"
                            break
                        except solon.Forked as error:
                            said = f"{type(error).__name__} {error.parent == os.getppid()} {error.child == os.getpid()}".encode()
                    with worker:
                        pass
                    del worker
                    gc.collect()
                finally:
                    os.write(writer, said)
                    os._exit(0)
            os.close(writer)
            with os.fdopen(reader) as pipe:
                self.assertEqual(pipe.read(), "Forked True True")
            self.assertEqual(os.waitpid(child, 0)[1], 0)
            worker.exchange(floats(1, 2, 3, 4))

    def test_a_buffer_cannot_be_resized_while_a_call_works_on_it(self):
        with Daemon(4, adversaries=0, groups=2) as daemon, join(daemon, 0) as worker, join(daemon, 1) as other:
            buffer = floats(1, 2, 3, 4)
            waiter = threading.Thread(target=worker.exchange, args=[buffer])
            waiter.start()
            while True:
                try:
                    worker.next_round
                except solon.Busy:
                    break
            with self.assertRaises(BufferError):
                buffer.append(5)
            other.exchange(floats(1, 2, 3, 4))
            waiter.join(PATIENCE)
            buffer.append(5)
            self.assertEqual(buffer, floats(2, 4, 6, 8, 5))


class Errors(unittest.TestCase):
    def test_all_have_one_base_and_can_be_made_from_a_text(self):
        for name in solon.__all__:
            kind = getattr(solon, name)
            if isinstance(kind, type) and issubclass(kind, BaseException):
                self.assertTrue(issubclass(kind, solon.Error))
                self.assertEqual(str(kind("what")), "what")
                again = pickle.loads(pickle.dumps(kind("what", "do this")))
                self.assertEqual((type(again), again.cause, again.hint), (kind, "what", "do this"))


class Sampling(unittest.TestCase):
    class Plan:
        def __init__(self, group, groups):
            self.group, self.groups = group, groups

    def sampler(self, group=0, groups=2, samples=103, batch_size=5, **given):
        return solon.GroupBatchSampler(samples, batch_size, self.Plan(group, groups), **given)

    def test_members_of_a_group_get_the_same_indices_and_groups_share_no_sample(self):
        self.assertEqual(list(self.sampler(0, seed=3)), list(self.sampler(0, seed=3)))
        one, two = list(self.sampler(0, seed=3)), list(self.sampler(1, seed=3))
        self.assertEqual((len(one), len(self.sampler())), (10, 10))
        self.assertTrue(all(len(batch) == 5 for batch in one + two))
        used = [index for batch in one + two for index in batch]
        self.assertEqual((len(used), len(set(used)), max(used) < 103), (100, 100, True))
        self.assertNotEqual(one, list(self.sampler(0, seed=4)))

    def test_the_order_is_the_one_that_the_rust_core_deals(self):
        # src/sampler.rs holds the Rust core to the same numbers.
        sampler = self.sampler(1, samples=20, batch_size=2, seed=7)
        first = list(sampler)[0]
        sampler.set_epoch(1)
        self.assertEqual((first, list(sampler)[0]), ([0, 6], [6, 5]))

    def test_an_epoch_is_another_order(self):
        sampler = self.sampler()
        first = list(sampler)
        self.assertEqual(first, list(sampler))
        sampler.set_epoch(1)
        self.assertNotEqual(first, list(sampler))

    def test_a_state_goes_on_in_mid_epoch(self):
        sampler = self.sampler()
        sampler.set_epoch(2)
        whole = list(sampler)
        batches = iter(sampler)
        begun = [next(batches) for _ in range(4)]
        other = self.sampler()
        other.load_state_dict(sampler.state_dict())
        self.assertEqual(begun + list(other), whole)
        self.assertEqual(list(other), whole)
        other.load_state_dict(sampler.state_dict(step=2))
        self.assertEqual(list(other), whole[2:])
        with self.assertRaisesRegex(solon.WrongValue, "seed is 0, and here it is 1"):
            self.sampler(seed=1).load_state_dict(sampler.state_dict())

    def test_what_cannot_be_dealt_is_refused(self):
        with self.assertRaisesRegex(solon.WrongValue, "batch of 120 samples cannot be drawn from 103"):
            self.sampler(batch_size=60)
        with self.assertRaisesRegex(solon.WrongValue, "batch_size is 0"):
            self.sampler(batch_size=0)


if __name__ == "__main__":
    sys.exit(unittest.main())
