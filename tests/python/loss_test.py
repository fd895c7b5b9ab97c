"""The Python module kd (examples/python) with numpy alone, and with PyTorch where it is installed: ./run python"""

import threading
import unittest

import kd
import numpy as np

try:
    import torch
except ImportError:
    torch = None


def softmax(x):
    x = np.exp(x - x.max(axis=-1, keepdims=True))
    return x / x.sum(axis=-1, keepdims=True)


def distillation(z, t, y, T, kd_weight, ce_weight):
    """The paper's definition in float64, mean over the rows."""
    z, t = z.astype(np.float64), t.astype(np.float64)
    p, log_q = softmax(t / T), np.log(softmax(z / T))
    cross_entropy = -np.log(softmax(z))[np.arange(len(y)), y]
    return (kd_weight * T * T * (p * (np.log(p) - log_q)).sum(axis=1) + ce_weight * cross_entropy).mean()


def some_logits(rows=6, classes=37, seed=1):
    random = np.random.default_rng(seed)
    student, teacher = (random.normal(scale=3, size=(rows, classes)).astype(np.float32) for _ in range(2))
    return student, teacher, random.integers(0, classes, rows)


class Loss(unittest.TestCase):
    def test_value_and_gradient_are_the_definition(self):
        z, t, y = some_logits()
        for T in (1.0, 2.0, 4.0):
            result = kd.distillation(z, t, y, temperature=T, kd_weight=0.9, ce_weight=0.1)
            self.assertAlmostEqual(result.total, distillation(z, t, y, T, 0.9, 0.1), delta=1e-5)
            self.assertAlmostEqual(0.9 * result["kd"] + 0.1 * result["cross_entropy"], result.total, delta=1e-6)
            numeric = np.zeros(z.shape)
            for at in np.ndindex(z.shape):
                there = []
                for step in (1e-4, -1e-4):
                    moved = z.astype(np.float64)
                    moved[at] += step
                    there.append(distillation(moved, t, y, T, 0.9, 0.1))
                numeric[at] = (there[0] - there[1]) / 2e-4
            np.testing.assert_allclose(result.gradient, numeric, rtol=0, atol=1e-6)

    def test_every_loss_has_the_gradient_of_its_value(self):
        z, t, y = some_logits()
        random = np.random.default_rng(2)
        offered = kd.losses()
        self.assertGreater(len(offered), 30)
        for terms, options in offered:
            with self.subTest(terms=terms):
                weights = {term: 0.5 + i for i, term in enumerate(terms)}
                chosen = {"temperature": 1.5} if "temperature" in options else {}
                with_gradient = kd.forward_backward(weights, z, t, y, **chosen)
                self.assertTrue(np.isfinite(with_gradient.total))
                for _ in range(3):
                    step = random.normal(size=z.shape).astype(np.float32) * np.float32(0.01)
                    there = [kd.forward_backward(weights, z + s * step, t, y, gradient=False, **chosen).total for s in (1, -1)]
                    slope = float((with_gradient.gradient.astype(np.float64) * step).sum())
                    self.assertAlmostEqual((there[0] - there[1]) / 2, slope, delta=1e-5 + 2e-3 * abs(slope))

    def test_arrays_are_read_where_they_lie(self):
        z, t, y = some_logits()
        want = kd.distillation(z, t, y)
        padded = np.full((6, 64), 1e30, np.float32)
        padded[:, :37] = z
        gradient = np.full((6, 64), 7, np.float32)
        got = kd.distillation(padded[:, :37], t, y.astype(np.int32), gradient=gradient[:, :37])
        self.assertEqual(got.total, want.total)
        np.testing.assert_array_equal(gradient[:, :37], want.gradient)
        self.assertTrue((gradient[:, 37:] == 7).all())
        in_place = z.copy()
        self.assertIs(kd.distillation(in_place, t, y, gradient=in_place).gradient, in_place)
        np.testing.assert_array_equal(in_place, want.gradient)
        twice = want.gradient.copy()
        kd.distillation(z, t, y, gradient=twice, add_to_gradient=True)
        np.testing.assert_array_equal(twice, 2 * want.gradient)
        read_only = z.copy()
        read_only.flags.writeable = False
        self.assertEqual(kd.distillation(read_only, t, y).total, want.total)
        self.assertIsNone(kd.distillation(z, t, y, gradient=False).gradient)

    def test_sequences_with_shifted_labels(self):
        z, t, _ = some_logits(rows=3 * 5)
        z, t = z.reshape(3, 5, 37), t.reshape(3, 5, 37)
        tokens = np.random.default_rng(3).integers(0, 37, (3, 5)).astype(np.int32)
        got = kd.distillation(z[:, :-1], t[:, :-1], tokens[:, 1:])
        flat = kd.distillation(z[:, :-1].reshape(-1, 37), t[:, :-1].reshape(-1, 37), tokens[:, 1:].reshape(-1))
        self.assertEqual(got.total, flat.total)
        self.assertEqual(got.gradient.shape, (3, 4, 37))
        np.testing.assert_array_equal(got.gradient.reshape(-1, 37), flat.gradient)

    def test_ignored_rows_weights_upstream_and_rows(self):
        z, t, y = some_logits()
        y[2] = -100
        kept = [0, 1, 3, 4, 5]
        got = kd.distillation(z, t, y, divide_by="valid_rows", per_row=True)
        want = kd.distillation(z[kept], t[kept], y[kept], per_row=True)
        self.assertAlmostEqual(got.total, want.total, delta=1e-12)
        self.assertEqual(got.rows, 5)
        np.testing.assert_array_equal(got.gradient[kept], want.gradient)
        self.assertFalse(got.gradient[2].any())
        np.testing.assert_array_equal(got.per_row[kept], want.per_row)
        self.assertAlmostEqual(got.per_row[:, -1].sum() / 5, got.total, delta=1e-12)
        ones = np.ones(6, np.float32)
        np.testing.assert_array_equal(kd.distillation(z, t, y, upstream=2 * ones).gradient,
                                      2 * kd.distillation(z, t, y).gradient)
        np.testing.assert_array_equal(kd.distillation(z, t, y, upstream=2 * ones[:1]).gradient,
                                      kd.distillation(z, t, y, row_weights=2 * ones).gradient)

    def test_half_precision(self):
        z, t, y = some_logits()
        z, t = z.astype(np.float16), t.astype(np.float16)
        got = kd.distillation(z, t, y)
        want = kd.distillation(z.astype(np.float32), t.astype(np.float32), y)
        self.assertEqual(got.total, want.total)
        np.testing.assert_array_equal(got.gradient, want.gradient.astype(np.float16))

    def test_threads_of_python_share_the_module(self):
        z, t, y = some_logits(rows=64, classes=2000)
        want, got = kd.distillation(z, t, y, threads=1), [None] * 4

        def run(i):
            got[i] = kd.distillation(z, t, y, threads=1)

        threads = [threading.Thread(target=run, args=(i,)) for i in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for result in got:
            self.assertEqual(result.total, want.total)
            np.testing.assert_array_equal(result.gradient, want.gradient)

    def test_bad_input_is_an_exception_that_says_what_was_wrong(self):
        z, t, y = some_logits()
        locked = z.copy()
        locked.flags.writeable = False
        not_finite = z.copy()
        not_finite[3, 7] = np.nan
        for expected, error, call in [
            ("student must be float32", ValueError, lambda: kd.distillation(z.astype(np.float64), t, y)),
            ("teacher must be of the student's type", ValueError, lambda: kd.distillation(z, t.astype(np.float16), y)),
            ("received [3,37] with a student of [6,37]", ValueError, lambda: kd.distillation(z, t[:3], y)),
            ("student must be [rows,classes]", ValueError, lambda: kd.distillation(z[0], t[0], y)),
            ("student must have the classes of a row side by side", ValueError,
             lambda: kd.forward_backward({"z_loss": 1.0}, z.T, gradient=False)),
            ("teacher must have strides above 0", ValueError,
             lambda: kd.distillation(z, np.broadcast_to(t[:1], t.shape), y)),
            ("student must have strides above 0", ValueError, lambda: kd.distillation(z[::-1], t, y)),
            ("labels must be int32 or int64", ValueError, lambda: kd.distillation(z, t, y.astype(np.uint8))),
            ("labels must have the shape", ValueError, lambda: kd.distillation(z, t, y[:5])),
            ("label 0 must be in [0, 37)", ValueError, lambda: kd.distillation(z, t, y + 37)),
            ("gradient must be an array that can be written to", ValueError,
             lambda: kd.distillation(z, t, y, gradient=locked)),
            ("gradient must not share memory", ValueError, lambda: kd.distillation(z, t, y, gradient=t)),
            ("row_weights must be float32", ValueError, lambda: kd.distillation(z, t, y, row_weights=np.ones(6))),
            ("upstream must lie without gaps", ValueError,
             lambda: kd.distillation(z, t, y, upstream=np.ones(12, np.float32)[::2])),
            ("student must be an array that speaks DLPack, received list", ValueError,
             lambda: kd.distillation([[1.0]], t, y)),
            ("temperature must be a number in", ValueError, lambda: kd.distillation(z, t, y, temperature=0)),
            ("received temprature", ValueError, lambda: kd.distillation(z, t, y, temprature=2)),
            ("must be a divergence", ValueError, lambda: kd.distillation(z, t, y, divergence="kl")),
            ("divide_by must be", ValueError, lambda: kd.distillation(z, t, y, divide_by="mean")),
            ("threads must not be negative", ValueError, lambda: kd.distillation(z, t, y, threads=-1)),
            ("labels must not be null", ValueError, lambda: kd.forward_backward({"cross_entropy": 1.0}, z)),
            ("teacher logits must not be null", ValueError, lambda: kd.forward_backward({"reverse_kl": 1.0}, z)),
            ("NaN at row 3, class 7", kd.NonFiniteError, lambda: kd.distillation(not_finite, t, y)),
        ]:
            with self.subTest(expected), self.assertRaises(error) as raised:
                call()
            self.assertIn(expected, str(raised.exception))


@unittest.skipIf(torch is None, "PyTorch is not installed")
class Torch(unittest.TestCase):
    def test_autograd_and_16_bits(self):
        from kd.torch import distillation as torch_distillation

        torch.manual_seed(1)
        student = torch.randn(8, 50, requires_grad=True)
        teacher, labels = torch.randn(8, 50), torch.randint(0, 50, (8,))
        functional = torch.nn.functional

        def eager(z):
            soft = functional.kl_div(functional.log_softmax(z / 2, 1), functional.softmax(teacher.to(z.dtype) / 2, 1),
                                     reduction="batchmean")
            return 0.25 * 4 * soft + 0.75 * functional.cross_entropy(z, labels)

        loss = torch_distillation(student, teacher, labels)
        (3 * loss).backward()
        exact = student.detach().double().requires_grad_()
        (3 * eager(exact)).backward()
        torch.testing.assert_close(loss.detach().double(), eager(exact).detach(), rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(student.grad.double(), exact.grad, rtol=1e-5, atol=1e-7)
        self.assertTrue(torch.autograd.gradcheck(
            lambda z: torch_distillation(z, teacher, labels), (student,), eps=1e-2, atol=1e-3, rtol=1e-2,
            nondet_tol=0.0))
        half = student.detach().bfloat16()
        result = kd.distillation(half, teacher.bfloat16(), labels)
        self.assertEqual(torch.from_dlpack(result.gradient).dtype, torch.bfloat16)
        with self.assertRaisesRegex(ValueError, "student must be float32"):
            torch_distillation(student.double(), teacher.double(), labels)


if __name__ == "__main__":
    unittest.main()
