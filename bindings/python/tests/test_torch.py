"""solon.torch in this process: one worker on its own, or a few in threads, with a real daemon."""

import signal
import threading
import unittest
import warnings
from unittest import mock

import solon
from support import Daemon, in_threads, join

try:
    import torch
except ImportError:
    raise unittest.SkipTest("torch is not installed") from None

import random

import solon.torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel


def network(seed=1):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(5, 7), nn.ReLU(), nn.Linear(7, 9), nn.ReLU(), nn.Linear(9, 3))


def batch(seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(4, 5, generator=generator), torch.randint(3, (4,), generator=generator)


def loss_of(model, seed):
    inputs, labels = batch(seed)
    return nn.functional.cross_entropy(model(inputs), labels)


def weights_of(model):
    return [parameter.detach().clone() for parameter in model.parameters()]


def trained(steps, before=lambda optimizer: optimizer.zero_grad()):
    """What training without Solon gives."""
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    for step in range(steps):
        before(optimizer)
        loss_of(model, step).backward()
        optimizer.step()
    return weights_of(model)


class Alone(unittest.TestCase):
    """A job of one worker: its update is its gradient, so training must be what it is without Solon, to the bit."""

    def setUp(self):
        self.model = network()
        self.daemon = self.enterContext(Daemon(solon.torch.dimension(self.model), adversaries=0))
        self.worker = self.enterContext(join(self.daemon, 0))
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.1, momentum=0.9)
        self.enterContext(warnings.catch_warnings())
        warnings.simplefilter("error")

    def assert_trained(self, expected):
        for found, wanted in zip(weights_of(self.model), expected, strict=True):
            self.assertTrue(torch.equal(found, wanted), f"{found} is not {wanted}")

    def exchange(self, **given):
        return solon.torch.Exchange(self.model, self.worker, **given)

    def test_training_is_the_same_with_and_without_zero_grad(self):
        exchange = self.exchange()
        ways = [lambda: None, self.optimizer.zero_grad]
        ways += [lambda: self.optimizer.zero_grad(set_to_none=True), lambda: self.optimizer.zero_grad(set_to_none=False)]
        for step in range(8):
            ways[step % 4]()
            loss_of(self.model, step).backward()
            report = exchange.step()
            self.assertEqual(report.round, step)
            self.optimizer.step()
        self.assert_trained(trained(8))
        self.assertEqual(self.worker.copied, 0)

    def test_gradients_are_slices_of_one_buffer(self):
        exchange = self.exchange()
        for step in range(3):
            self.optimizer.zero_grad(set_to_none=True)
            loss_of(self.model, step).backward()
            exchange.step()
            # The last one first, as backward computes them.
            parameters = [*self.model.parameters()][::-1]
            places = [parameter.grad.data_ptr() for parameter in parameters]
            sizes = [4 * parameter.numel() for parameter in parameters]
            self.assertEqual([place - places[0] for place in places], [sum(sizes[:at]) for at in range(len(sizes))])

    def test_several_backwards_add_up(self):
        exchange = self.exchange()
        for step in range(3):
            loss_of(self.model, step).backward()
            loss_of(self.model, 100 + step).backward()
            exchange.step()
            self.optimizer.step()
        other = network()
        optimizer = torch.optim.SGD(other.parameters(), lr=0.1, momentum=0.9)
        for step in range(3):
            optimizer.zero_grad()
            loss_of(other, step).backward()
            loss_of(other, 100 + step).backward()
            optimizer.step()
        self.assert_trained(weights_of(other))

    def test_a_backward_that_zero_grad_throws_away_leaves_nothing(self):
        exchange = self.exchange()
        loss_of(self.model, 99).backward()
        self.optimizer.zero_grad(set_to_none=True)
        loss_of(self.model, 0).backward()
        exchange.step()
        self.optimizer.step()
        self.assert_trained(trained(1))

    def test_a_parameter_without_a_gradient_has_zeros(self):
        exchange = self.exchange()
        loss_of(self.model, 0).backward()
        exchange.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.model[0](batch(1)[0]).sum().backward()
        exchange.step()
        self.assertTrue(all(parameter.grad.abs().sum() == 0 for parameter in self.model[2].parameters()))
        self.assertTrue(all(parameter.grad.abs().sum() > 0 for parameter in self.model[0].parameters()))

    def test_a_step_without_a_backward_exchanges_zeros(self):
        exchange = self.exchange()
        loss_of(self.model, 0).backward()
        exchange.step()
        exchange.step()
        self.assertTrue(all(parameter.grad.abs().sum() == 0 for parameter in self.model.parameters()))

    def test_gradients_that_were_put_elsewhere_are_taken_along_and_it_is_said_once(self):
        exchange = self.exchange()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            for step in range(4):
                loss_of(self.model, step).backward()
                for parameter in self.model.parameters():
                    parameter.grad = parameter.grad.clone()
                exchange.step()
                self.optimizer.step()
                for parameter in self.model.parameters():
                    parameter.grad = parameter.grad.clone()
        self.assert_trained(trained(4))
        self.assertEqual(len(caught), 1)
        self.assertIn("something has set p.grad", str(caught[0].message))

    def overlapped(self):
        """With chunks small enough that several are complete before backward ends."""
        self.daemon = self.enterContext(Daemon(solon.torch.dimension(self.model), "--chunks-width=8", adversaries=0))
        self.worker = self.enterContext(join(self.daemon, 0))
        return self.enterContext(self.exchange(overlap=True))

    def test_an_exchange_that_overlaps_can_be_closed_in_the_middle_of_a_step(self):
        with self.overlapped():
            loss_of(self.model, 0).backward()
        loss_of(self.model, 1).backward()

    def test_gradients_can_be_sent_while_backward_computes_others(self):
        exchange = self.overlapped()
        for step in range(6):
            before, _ = self.worker.traffic
            if step % 2:
                self.optimizer.zero_grad(set_to_none=True)
            loss_of(self.model, step).backward()
            # Before step. Until its thread is done the worker belongs to it.
            exchange._overlap._feeder.finish()
            self.assertGreater(self.worker.traffic[0], before)
            self.assertEqual(exchange.step().round, step)
            self.optimizer.step()
        self.assert_trained(trained(6))

    def test_a_parameter_without_a_gradient_holds_back_what_comes_after_it_until_the_step(self):
        exchange = self.overlapped()
        loss_of(self.model, 0).backward()
        exchange.step()
        self.model[0](batch(1)[0]).sum().backward()
        exchange.step()
        self.assertTrue(all(parameter.grad.abs().sum() == 0 for parameter in self.model[2].parameters()))
        self.assertTrue(all(parameter.grad.abs().sum() > 0 for parameter in self.model[0].parameters()))

    def test_a_gradient_that_was_sent_must_not_change(self):
        exchange = self.overlapped()
        loss_of(self.model, 0).backward()
        with self.assertRaisesRegex(solon.WrongValue, "sent already"):
            loss_of(self.model, 1).backward()
        parameter = self.model[4].bias
        parameter.grad = parameter.grad.clone()
        with self.assertRaisesRegex(solon.WrongValue, "sent already"):
            exchange.step()

    def test_an_error_while_gradients_are_sent_is_raised_by_the_step_and_leaves_nothing(self):
        exchange = self.overlapped()
        self.daemon.kill()
        loss_of(self.model, 99).backward()
        with self.assertRaises(solon.AggregatorLost):
            exchange.step()
        with Daemon(exchange.dimension, adversaries=0, listen=self.daemon.endpoint):
            exchange.worker.rejoin()
            loss_of(self.model, 0).backward()
            exchange.step()
            self.optimizer.step()
        self.assert_trained(trained(1))

    def test_ctrl_c_ends_a_step_whose_gradients_wait_to_be_sent(self):
        few = ["--chunks-width=8", "--memory-credits=2", "--job-scale=0.5"]
        daemon = self.enterContext(Daemon(solon.torch.dimension(self.model), *few, groups=2, adversaries=0))
        worker, _other = self.enterContext(join(daemon, 0)), self.enterContext(join(daemon, 1))
        exchange = solon.torch.Exchange(self.model, worker, overlap=True)
        loss_of(self.model, 0).backward()
        # Its thread is out of credits, since nobody else sends; it has the worker.
        main = threading.main_thread().ident
        threading.Timer(0.3, signal.pthread_kill, [main, signal.SIGINT]).start()
        with self.assertRaises(KeyboardInterrupt):
            exchange.step()
        self.assertTrue(all(parameter.grad.abs().sum() == 0 for parameter in self.model.parameters()))
        self.assertEqual(worker.next_round, 1)
        exchange.close()

    def test_after_an_error_gradients_are_zero(self):
        exchange = self.exchange()
        loss_of(self.model, 0).backward()
        self.daemon.kill()
        with self.assertRaises(solon.AggregatorLost):
            exchange.step()
        self.assertTrue(all(parameter.grad.abs().sum() == 0 for parameter in self.model.parameters()))

    def test_closing_takes_the_hooks_away(self):
        with self.exchange():
            loss_of(self.model, 0).backward()
        self.optimizer.zero_grad(set_to_none=True)
        loss_of(self.model, 0).backward()
        self.optimizer.step()
        self.assert_trained(trained(1))
        with self.assertRaises(solon.Left):
            self.worker.next_round

    def test_frozen_parameters_are_left_alone(self):
        for parameter in self.model[0].parameters():
            parameter.requires_grad_(False)
        expected = sum(parameter.numel() for parameter in self.model[1:].parameters())
        self.assertEqual(solon.torch.dimension(self.model), expected)
        with self.assertRaisesRegex(solon.WrongValue, rf"module has {expected} numbers.*--job-dimension {expected}(?s:.)*"):
            try:
                self.exchange()
            except solon.WrongValue as error:
                raise solon.WrongValue(str(error).replace("\n", " ")) from None

    def test_a_worker_that_comes_after_the_first_round_must_say_that_it_has_the_weights(self):
        self.worker.exchange(torch.zeros(solon.torch.dimension(self.model)).numpy())
        with self.assertRaisesRegex(solon.JoinError, "in round 1 already"):
            self.exchange()
        loss_of(self.model, 0).backward()
        self.assertEqual(self.exchange(begun=True).step().round, 1)

    def test_modules_that_will_not_do_are_refused(self):
        for model, kind, part in [
            (nn.ReLU(), solon.WrongValue, "no parameter"),
            (network().double(), solon.WrongType, "4.bias is of torch.float64"),
            (network().half(), solon.WrongType, "torch.float16"),
        ]:
            with self.assertRaisesRegex(kind, part):
                solon.torch.Exchange(model, self.worker)
        with self.assertRaisesRegex(solon.WrongValue, "endpoint"):
            solon.torch.Exchange(self.model, self.worker, endpoint="127.0.0.1:1")

    def test_a_data_loader_with_worker_processes_does_not_disturb_the_worker(self):
        exchange = self.exchange()
        data = torch.utils.data.TensorDataset(torch.randn(32, 5), torch.randint(3, (32,)))
        sampler = solon.torch.GroupBatchSampler(data, 4, exchange)
        loader = torch.utils.data.DataLoader(data, batch_sampler=sampler, num_workers=2, multiprocessing_context="fork")
        batches = 0
        for inputs, labels in loader:
            nn.functional.cross_entropy(self.model(inputs), labels).backward()
            exchange.step()
            self.optimizer.step()
            batches += 1
        self.assertEqual(batches, 8)

    def test_a_worker_used_in_a_data_loaders_process_is_told(self):
        worker = self.worker

        class Uses(torch.utils.data.Dataset):
            def __len__(self):
                return 2

            def __getitem__(self, index):
                return worker.next_round

        loader = torch.utils.data.DataLoader(Uses(), num_workers=2, multiprocessing_context="fork")
        with self.assertRaisesRegex(solon.Forked, "a fork of it"):
            list(loader)
        self.assertEqual(self.worker.next_round, 0)

    def hooked(self, **given):
        solon.torch.one_member_group()
        self.addCleanup(dist.destroy_process_group)
        model = DistributedDataParallel(self.model, **given)
        return model, solon.torch.hook_ddp(model, self.worker)

    def test_a_hooked_ddp_trains_the_same_whatever_its_buckets_are(self):
        # Small buckets: there are several, and DDP makes new ones after the first step.
        model, hook = self.hooked(bucket_cap_mb=0.0001)
        for step in range(5):
            self.optimizer.zero_grad()
            loss_of(model, step).backward()
            self.assertEqual(hook.last.round, step)
            self.optimizer.step()
        self.assert_trained(trained(5))

    def test_an_error_in_a_hook_ends_the_backward(self):
        model, _ = self.hooked()
        self.daemon.kill()
        with self.assertRaisesRegex(Exception, "the aggregator was lost in round 0"):
            loss_of(model, 0).backward()


class Together(unittest.TestCase):
    def test_batch_norm_statistics_are_averaged_on_request(self):
        def model():
            torch.manual_seed(1)
            return nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.Linear(4, 3))

        count = solon.torch.dimension(model(), buffers=True)
        self.assertEqual(count, solon.torch.dimension(model()) + 8)
        # The scale is another than that of a mean: it is for gradients, not for statistics.
        with Daemon(count, "--job-scale=3", groups=2, adversaries=0) as daemon:

            def work(index):
                made = model()
                with join(daemon, index) as worker:
                    exchange = solon.torch.Exchange(made, worker, buffers=True, mean=False)
                    loss_of(made, index).backward()
                    own = made[1].running_mean.clone()
                    exchange.step()
                    return own, made[1].running_mean, made[1].running_var, made[1].num_batches_tracked

            (own, mean, variance, count), (own2, mean2, variance2, _) = in_threads([lambda: work(0), lambda: work(1)])
        self.assertFalse(torch.equal(own, own2))
        self.assertTrue(torch.equal(mean, mean2) and torch.equal(variance, variance2))
        torch.testing.assert_close(mean, (own + own2) / 2)
        self.assertEqual(count, 1)

    def test_a_job_that_does_not_average_is_warned_about(self):
        with Daemon(solon.torch.dimension(network()), groups=2, adversaries=0) as daemon, join(daemon, 0) as worker:
            with self.assertWarnsRegex(UserWarning, "2 times the mean.*--job-scale to 0.5"):
                solon.torch.Exchange(network(), worker)

    def test_an_exchange_says_how_it_computes(self):
        model = network()
        words = solon.torch.fingerprint(model)
        self.assertEqual((words["framework"], words["threads"]), ("torch", str(torch.get_num_threads())))
        self.assertIn(torch.__version__, words["version"])
        self.assertRegex(words["device"], r"^cpu, \S+, \S+ ")
        self.assertTrue(words["dtype"].startswith("float32, matmul highest"))
        given = {"transport": "tcp", "mean": False}
        with Daemon(solon.torch.dimension(model), "--verify-mixed=refuse", adversaries=0, compression=3) as daemon:
            given["endpoint"] = daemon.endpoint
            # Two of three say the same: more than half.
            others = [join(daemon, worker, fingerprint=words | {"threads": "77"}) for worker in (0, 2)]
            with others[0], others[1], mock.patch.dict("os.environ", SOLON_WORKER="1"):
                with self.assertRaisesRegex(solon.Refused, "threads differ"):
                    solon.torch.Exchange(model, **given)
                with solon.torch.Exchange(model, fingerprint={}, **given) as exchange:
                    self.assertEqual(exchange.worker.plan.worker, 1)

    def test_seeds_are_those_of_group_and_step(self):
        class Plan:
            def __init__(self, group):
                self.group = group

        def drawn(*given, **more):
            solon.torch.seed_step(*given, **more)
            return torch.rand(3).tolist() + [random.random()]

        self.assertEqual(drawn(4, Plan(1)), drawn(4, Plan(1)))
        for other in [drawn(5, Plan(1)), drawn(4, Plan(0)), drawn(4, Plan(1), seed=1)]:
            self.assertNotEqual(drawn(4, Plan(1)), other)

    def test_a_ddp_of_several_members_is_refused(self):
        class Several:
            process_group = None

        solon.torch.one_member_group()
        self.addCleanup(dist.destroy_process_group)
        size, dist.get_world_size = dist.get_world_size, lambda _group: 4
        try:
            with self.assertRaisesRegex(solon.WrongValue, "has 4 members"):
                solon.torch.hook_ddp(Several())
        finally:
            dist.get_world_size = size
