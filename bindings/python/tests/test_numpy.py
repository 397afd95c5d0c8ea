"""With numpy."""

import os
import unittest

import solon
from support import Daemon, finish, in_threads, join, python

try:
    import numpy
except ImportError:
    raise unittest.SkipTest("numpy is not installed") from None

EXAMPLE = os.path.join(os.path.dirname(__file__), "../../../examples/numpy_worker.py")


class Arrays(unittest.TestCase):
    def setUp(self):
        daemon = self.enterContext(Daemon(6, adversaries=0))
        self.worker = self.enterContext(join(daemon, 0))

    def test_an_array_is_exchanged_in_place_whatever_its_shape(self):
        for shape in [(6,), (2, 3), (1, 6, 1)]:
            array = numpy.arange(6, dtype=numpy.float32).reshape(shape)
            address = array.ctypes.data
            self.worker.exchange(array)
            self.assertEqual((array.ctypes.data, array.ravel().tolist()), (address, [0, 1, 2, 3, 4, 5]))

    def test_arrays_that_will_not_do_are_refused_with_a_hint(self):
        read_only = numpy.zeros(6, numpy.float32)
        read_only.flags.writeable = False
        for array, kind, part in [
            (numpy.zeros(6), TypeError, "'d'"),
            (numpy.zeros(6, numpy.float16), TypeError, "'e'"),
            (numpy.zeros(6, ">f4"), TypeError, "'>f'"),
            (numpy.zeros(6, numpy.complex64), TypeError, "'Zf'"),
            (numpy.zeros(12, numpy.float32)[::2], ValueError, "not contiguous"),
            (numpy.zeros((3, 2), numpy.float32).T, ValueError, "not contiguous"),
            (numpy.zeros(7, numpy.float32), ValueError, "7 numbers"),
            (numpy.float32(1), TypeError, ""),
            (read_only, ValueError, "read-only"),
        ]:
            with self.subTest(str(array.dtype), shape=array.shape), self.assertRaises(kind) as raised:
                self.worker.exchange(array)
            self.assertIsInstance(raised.exception, solon.Error)
            self.assertIn(part, str(raised.exception))
            self.assertTrue(raised.exception.hint)

    def test_floats_that_are_not_aligned_are_refused(self):
        array = numpy.frombuffer(bytearray(25), numpy.uint8)[1:].view(numpy.float32)
        with self.assertRaises(solon.Error):
            self.worker.exchange(array)


class Example(unittest.TestCase):
    def test_the_example_learns_the_weights(self):
        with Daemon(8, "--job-scale=0.5", groups=2) as daemon:
            processes = [
                python(EXAMPLE, environment={"SOLON_ENDPOINT": daemon.endpoint, "SOLON_WORKER": str(index)}) for index in range(6)
            ]
            ended = in_threads([lambda process=process: finish(process) for process in processes])
        # Who came so late that the others had begun without it says so.
        began = [ended for ended in ended if "the others have begun" not in ended[2]]
        self.assertGreaterEqual(len(began), 4)
        for status, _, errors in began:
            self.assertEqual(status, 0, errors)
        for _, out, _ in began:
            weights = out.split("[")[1].split("]")[0].split()
            self.assertEqual([float(weight) for weight in weights], [0, 1, 2, 3, 4, 5, 6, 7])
