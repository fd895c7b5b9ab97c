// The extension module kd._kd: arrays of any framework by DLPack in, terms and gradient out. What people call, and its
// documentation, is kd/__init__.py.
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include "losses.hpp"

namespace nb = nanobind;

namespace {

using kd_python::detail::where;
using array = nb::ndarray<nb::ro>;
using writable_array = nb::ndarray<>;

std::string shape_of(const auto& a) {
  std::string shape = "[";
  for (std::size_t i = 0; i < a.ndim(); ++i) shape += kd::text(i == 0 ? "" : ",", a.shape(i));
  return shape + "]";
}
std::string type_of(const auto& a) {
  using code = nb::dlpack::dtype_code;
  const nb::dlpack::dtype type = a.dtype();
  const char* const name = type.code == static_cast<std::uint8_t>(code::Float)    ? "float"
                           : type.code == static_cast<std::uint8_t>(code::Bfloat) ? "bfloat"
                           : type.code == static_cast<std::uint8_t>(code::Int)    ? "int"
                           : type.code == static_cast<std::uint8_t>(code::UInt)   ? "uint"
                                                                                  : "another type of bits ";
  return kd::text(name, static_cast<int>(type.bits));
}

/// An argument as an array; throws kd::argument_error for what is none, or is not in the memory of the CPU.
template <class Array>
Array array_of(const char* name, nb::handle object) {
  Array a;
  if (!nb::try_cast(object, a)) {
    const bool can_be_read = nb::isinstance<array>(object);
    kd::reject_argument(where,
                        kd::text(name, can_be_read ? " must be an array that can be written to"
                                                   : " must be an array that speaks DLPack"),
                        nb::type_name(object.type()).c_str(),
                        can_be_read ? "pass a copy" : "pass one of numpy, PyTorch (detached), JAX or others");
  }
  if (a.device_type() != nb::device::cpu::value)
    kd::reject_argument(where, kd::text(name, " must be in the memory of the CPU"),
                        kd::text("DLPack device type ", a.device_type()), "copy it to the CPU");
  return a;
}

/// Its rows, whose elements lie side by side: [rows,width] or [sequences,rows,width]; without width [rows] or
/// [sequences,rows].
template <class T, class Array>
kd::formula::row_array<T> rows_of(const char* name, const Array& a, std::size_t leading) {
  for (std::size_t i = 0; i < a.ndim(); ++i)
    if (a.shape(i) > 1 && a.stride(i) <= 0)
      kd::reject_argument(where, kd::text(name, " must have strides above 0"), a.stride(i), "copy it");
  if (leading < a.ndim() && a.shape(leading) > 1 && a.stride(leading) != 1)
    kd::reject_argument(where, kd::text(name, " must have the classes of a row side by side"),
                        kd::text("a stride of ", a.stride(leading)), "copy it, or transpose it back");
  // The stride of a dimension of one element may be anything.
  const auto stride = [&](std::size_t i) {
    return a.shape(i) > 1 ? static_cast<std::size_t>(a.stride(i)) : std::size_t{0};
  };
  kd::formula::row_array<T> rows = {static_cast<T*>(const_cast<void*>(static_cast<const void*>(a.data()))),
                                    stride(leading - 1), 0};
  if (leading == 2) rows.group_stride = stride(0);
  return rows;
}

void require_shape(const char* name, const auto& a, const array& student, std::size_t dimensions) {
  bool same = a.ndim() == dimensions;
  for (std::size_t i = 0; same && i < dimensions; ++i) same = a.shape(i) == student.shape(i);
  if (!same)
    kd::reject_argument(where,
                        kd::text(name, " must have the shape of the student",
                                 dimensions < student.ndim() ? " without its classes" : ""),
                        kd::text(shape_of(a), " with a student of ", shape_of(student)), "slice or reshape it");
}
void require_type(const char* name, const auto& a, const array& student) {
  if (a.dtype() != student.dtype())
    kd::reject_argument(where, kd::text(name, " must be of the student's type"),
                        kd::text(type_of(a), " with a student of ", type_of(student)), "convert it");
}

/// What Python gave, checked as far as kd::forward_backward cannot.
struct arguments {
  kd_python::request request;
  array student;
  std::optional<array> teacher, labels, row_weights, upstream;
  std::optional<writable_array> gradient;
  std::vector<std::int64_t> labels_64;  // of labels of 32 bits
  std::int64_t ignore_index;
  kd::divisor divide_by;
  bool add_to_gradient;

  std::size_t leading() const { return student.ndim() - 1; }
  std::size_t rows() const { return student.shape(0) * (leading() == 2 ? student.shape(1) : 1); }

  void check() {
    if (student.ndim() != 2 && student.ndim() != 3)
      kd::reject_argument(where, "student must be [rows,classes] or [sequences,rows,classes]", shape_of(student),
                          "reshape it");
    if (teacher) {
      const std::size_t classes = teacher->ndim() == student.ndim() ? teacher->shape(leading()) : 0;
      if (classes == 0) require_shape("teacher", *teacher, student, student.ndim());
      for (std::size_t i = 0; i < leading(); ++i)
        if (teacher->shape(i) != student.shape(i)) require_shape("teacher", *teacher, student, student.ndim());
      require_type("teacher", *teacher, student);
    }
    if (labels) {
      require_shape("labels", *labels, student, leading());
      const bool is_int = labels->dtype().code == static_cast<std::uint8_t>(nb::dlpack::dtype_code::Int);
      if (!is_int || (labels->dtype().bits != 32 && labels->dtype().bits != 64) || labels->dtype().lanes != 1)
        kd::reject_argument(where, "labels must be int32 or int64", type_of(*labels), "convert them");
    }
    if (gradient) {
      require_shape("gradient", *gradient, student, student.ndim());
      require_type("gradient", *gradient, student);
    }
    const auto require_floats = [&](const char* name, const array& a, bool one_will_do) {
      if (a.dtype() != nb::dtype<float>())
        kd::reject_argument(where, kd::text(name, " must be float32"), type_of(a), "convert it");
      const bool one = one_will_do && a.size() == 1;
      if (!one) require_shape(name, a, student, leading());
      std::int64_t dense = 1;
      for (std::size_t i = a.ndim(); i-- > 0; dense *= static_cast<std::int64_t>(a.shape(i)))
        if (a.shape(i) > 1 && a.stride(i) != dense)
          kd::reject_argument(where, kd::text(name, " must lie without gaps"), kd::text("a stride of ", a.stride(i)),
                              "copy it");
    };
    if (row_weights) require_floats("row_weights", *row_weights, false);
    if (upstream) require_floats("upstream", *upstream, true);
  }

  template <class Logit>
  kd_python::outcome run() {
    kd_python::batch<Logit> b;
    b.rows = rows();
    b.classes = student.shape(leading());
    if (leading() == 2) b.group_rows = student.shape(1);
    b.student = rows_of<const Logit>("student", student, leading());
    if (teacher) {
      b.teacher = rows_of<const Logit>("teacher", *teacher, leading());
      b.teacher_classes = teacher->shape(leading());
    }
    if (labels) {
      if (labels->dtype().bits == 64) {
        b.labels = rows_of<const std::int64_t>("labels", *labels, leading());
      } else {
        const auto from = rows_of<const std::int32_t>("labels", *labels, leading());
        for (std::size_t row = 0; row < b.rows; ++row) {
          const std::size_t in = leading() == 2 ? student.shape(1) : b.rows;
          labels_64.push_back(from.data[row / in * from.group_stride + row % in * from.row_stride]);
        }
        b.labels = {labels_64.data()};
      }
    }
    if (gradient) b.gradient = rows_of<Logit>("gradient", *gradient, leading());
    if (row_weights) b.row_weights = static_cast<const float*>(row_weights->data());
    if (upstream) {
      b.upstream = static_cast<const float*>(upstream->data());
      b.upstream_per_row = upstream->size() != 1 || b.rows == 1;
    }
    b.ignore_index = ignore_index;
    b.divide_by = divide_by;
    b.add_to_gradient = add_to_gradient;
    const nb::gil_scoped_release others_may_run;
    return kd_python::forward_backward(request, b);
  }
};

kd::divisor divisor_named(const std::string& name) {
  const std::pair<const char*, kd::divisor> known[] = {{"rows", kd::divisor::rows},
                                                       {"valid_rows", kd::divisor::valid_rows},
                                                       {"weights", kd::divisor::weights},
                                                       {"one", kd::divisor::one}};
  for (const auto& [text, value] : known)
    if (name == text) return value;
  kd::reject_argument(where, "divide_by must be rows, valid_rows, weights or one", name, "one gives the sum");
}

using named_numbers = std::vector<std::pair<std::string, double>>;

/// `values` as an array of Python's, which owns them.
template <class Framework, class T>
nb::object array_owning(std::vector<T> values, nb::dlpack::dtype type, std::size_t dimensions,
                        const std::size_t* shape) {
  auto* kept = new std::vector<T>(std::move(values));
  const nb::capsule owner(kept, [](void* p) noexcept { delete static_cast<std::vector<T>*>(p); });
  return nb::cast(nb::ndarray<Framework>(kept->data(), dimensions, shape, owner, nullptr, type));
}

/// A gradient of the student's shape and type: of numpy, which lacks bfloat16, or an object with nothing but DLPack.
template <class T>
nb::object new_gradient(const array& student, writable_array& as_array) {
  std::vector<std::size_t> shape;
  for (std::size_t i = 0; i < student.ndim(); ++i) shape.push_back(student.shape(i));
  std::vector<T> zeros(student.size());
  const bool in_numpy = student.dtype().code == static_cast<std::uint8_t>(nb::dlpack::dtype_code::Float);
  nb::object made = in_numpy
                        ? array_owning<nb::numpy>(std::move(zeros), student.dtype(), shape.size(), shape.data())
                        : array_owning<nb::array_api>(std::move(zeros), student.dtype(), shape.size(), shape.data());
  as_array = nb::cast<writable_array>(made);
  return made;
}

/// (total, [(term, value)], accuracy, teacher_agreement, rows that count, gradient or None, rows or None)
nb::tuple forward_backward(const named_numbers& terms, const named_numbers& options, nb::object student,
                           nb::object teacher, nb::object labels, nb::object gradient, nb::object row_weights,
                           nb::object upstream, std::int64_t ignore_index, const std::string& divide_by,
                           bool add_to_gradient, bool per_row, int threads) {
  if (threads < 0)
    kd::reject_argument(where, "threads must not be negative", threads, "0 uses what the machine allows");
  arguments a = {.request = {terms, options, per_row, threads},
                 .student = array_of<array>("student", student),
                 .ignore_index = ignore_index,
                 .divide_by = divisor_named(divide_by),
                 .add_to_gradient = add_to_gradient};
  if (!teacher.is_none()) a.teacher = array_of<array>("teacher", teacher);
  if (!labels.is_none()) a.labels = array_of<array>("labels", labels);
  if (!row_weights.is_none()) a.row_weights = array_of<array>("row_weights", row_weights);
  if (!upstream.is_none()) a.upstream = array_of<array>("upstream", upstream);
  const bool wants_gradient = !gradient.is(nb::bool_(false));
  const bool wants_new = gradient.is(nb::bool_(true));
  if (wants_gradient && !wants_new) a.gradient = array_of<writable_array>("gradient", gradient);
  if (!wants_gradient) gradient = nb::none();

  using code = nb::dlpack::dtype_code;
  const nb::dlpack::dtype type = a.student.dtype();
  const auto is = [&](code wanted, int bits) {
    return type.code == static_cast<std::uint8_t>(wanted) && type.bits == bits && type.lanes == 1;
  };
  kd_python::outcome result;
  const auto run = [&]<class Logit>(Logit) {
    a.check();
    if (wants_new) gradient = new_gradient<Logit>(a.student, a.gradient.emplace());
    result = a.run<Logit>();
  };
  if (is(code::Float, 32))
    run(float{});
  else if (is(code::Bfloat, 16))
    run(kd::bfloat16{});
  else if (is(code::Float, 16))
    run(kd::float16{});
  else
    kd::reject_argument(where, "student must be float32, bfloat16 or float16", type_of(a.student), "convert it");

  nb::list values;
  for (const kd::loss_term& term : result.terms.terms())
    values.append(nb::make_tuple(nb::str(term.name.data(), term.name.size()), term.value));
  nb::object rows = nb::none();
  if (per_row) {
    const std::size_t shape[] = {a.rows(), result.terms.size + 1};
    rows = array_owning<nb::numpy>(std::move(result.rows), nb::dtype<double>(), 2, shape);
  }
  return nb::make_tuple(result.terms.total, values, result.terms.accuracy, result.terms.teacher_agreement,
                        result.terms.rows, gradient, rows);
}

/// Every sum that is offered: ([term], [option]).
nb::list losses() {
  nb::list all;
  kd_python::detail::each_sum([&]<class... Terms>() {
    nb::list terms, options;
    (terms.append(nb::str(Terms::name)), ...);
    auto loss = kd::weighted_sum{kd::softening{}, kd::weighted_term<Terms>{}...};
    kd::each_option(loss, [&](const std::string& full, auto&, const auto& option) {
      if (!full.ends_with(".weight")) options.append(nb::str(option.name));
    });
    all.append(nb::make_tuple(terms, options));
  });
  return all;
}

}  // namespace

NB_MODULE(_kd, m) {
  nb::register_exception_translator([](const std::exception_ptr& thrown, void*) {
    try {
      std::rethrow_exception(thrown);
    } catch (const kd::argument_error& e) {
      PyErr_SetString(PyExc_ValueError, e.what());
    }
  });
  nb::exception<kd::non_finite_error>(m, "NonFiniteError", PyExc_ArithmeticError);
  m.def("forward_backward", &forward_backward, nb::arg("terms"), nb::arg("options"), nb::arg("student"),
        nb::arg("teacher").none(), nb::arg("labels").none(), nb::arg("gradient"), nb::arg("row_weights").none(),
        nb::arg("upstream").none(), nb::arg("ignore_index"), nb::arg("divide_by"), nb::arg("add_to_gradient"),
        nb::arg("per_row"), nb::arg("threads"));
  m.def("losses", &losses);
}
