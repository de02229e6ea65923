// common/py_tensor.h: host classes only. A torch.Tensor handed to a pybind11 method, checked, as a
// pointer.
//
// A call through torch's dispatcher costs 4-6 microseconds; the six attributes read here cost a few
// hundred nanoseconds together, so that a per-token host call stays below one. No numpy in between.
#pragma once
#include <pybind11/pybind11.h>

#include <string>

namespace lmx {
// What a method wants of a tensor argument, and how it is named in errors.
struct TensorArgument {
  const char* method;      // "Matcher.fill"
  const char* name;        // "bitmask"
  pybind11::handle dtype;  // torch's dtype object
  int64_t rows, columns;   // a negative size matches any
};

namespace detail {
// Names are interned once: a new string per look-up would take as long as the look-up.
inline pybind11::object attribute(pybind11::handle tensor, PyObject* name) {
  return pybind11::reinterpret_steal<pybind11::object>(PyObject_GetAttr(tensor.ptr(), name));
}
inline pybind11::object call(pybind11::handle tensor, PyObject* method) {
  return pybind11::reinterpret_steal<pybind11::object>(
      PyObject_CallMethodNoArgs(tensor.ptr(), method));
}
struct Names {
  PyObject* shape = PyUnicode_InternFromString("shape");
  PyObject* dtype = PyUnicode_InternFromString("dtype");
  PyObject* data_ptr = PyUnicode_InternFromString("data_ptr");
  PyObject* is_cpu = PyUnicode_InternFromString("is_cpu");
  PyObject* is_contiguous = PyUnicode_InternFromString("is_contiguous");
};
inline const Names& names() {
  static const Names all;
  return all;
}

// Cold: says what is wrong.
[[noreturn]] inline void refuse(pybind11::handle tensor, const TensorArgument& wanted,
                                const std::string& expected, const char* shown) {
  PyErr_Clear();
  std::string message =
      std::string("lmx.") + wanted.method + ": expected " + wanted.name + " " + expected + ", got ";
  message += shown ? std::string(pybind11::str(tensor.attr(shown)))
                   : std::string(Py_TYPE(tensor.ptr())->tp_name);
  if (!shown) throw pybind11::type_error(message);
  throw pybind11::value_error(message);
}

inline std::string spell_size(int64_t size) { return size < 0 ? "*" : std::to_string(size); }
}  // namespace detail

// The data of a contiguous CPU tensor of two dimensions, and how many rows it has. Throws TypeError
// where it is no tensor, and ValueError where it is another one.
template <typename T>
T* tensor_data(pybind11::handle tensor, const TensorArgument& wanted, int64_t* rows = nullptr) {
  using detail::attribute;
  const detail::Names& name = detail::names();
  const auto shape = attribute(tensor, name.shape);
  const auto dtype = shape ? attribute(tensor, name.dtype) : pybind11::object();
  const auto is_cpu = dtype ? attribute(tensor, name.is_cpu) : pybind11::object();
  if (!is_cpu) detail::refuse(tensor, wanted, "a torch.Tensor", nullptr);
  const auto matches = [&](int d, int64_t size) {
    return size < 0 || PyLong_AsLongLong(PyTuple_GET_ITEM(shape.ptr(), d)) == size;
  };
  if (!PyTuple_Check(shape.ptr()) || PyTuple_GET_SIZE(shape.ptr()) != 2 ||
      !matches(0, wanted.rows) || !matches(1, wanted.columns))
    detail::refuse(tensor, wanted,
                   "of shape [" + detail::spell_size(wanted.rows) + ", " +
                       detail::spell_size(wanted.columns) + "]",
                   "shape");
  if (!dtype.is(wanted.dtype))
    detail::refuse(tensor, wanted, "of dtype " + std::string(pybind11::str(wanted.dtype)), "dtype");
  if (is_cpu.ptr() != Py_True) detail::refuse(tensor, wanted, "on the CPU", "device");
  const auto contiguous = detail::call(tensor, name.is_contiguous);
  if (contiguous.ptr() != Py_True) detail::refuse(tensor, wanted, "contiguous", "stride");
  if (rows) *rows = PyLong_AsLongLong(PyTuple_GET_ITEM(shape.ptr(), 0));
  return static_cast<T*>(PyLong_AsVoidPtr(detail::call(tensor, name.data_ptr).ptr()));
}

// The same of one dimension, whose size goes to `size`.
template <typename T>
T* vector_data(pybind11::handle tensor, const char* method, const char* argument,
               pybind11::handle dtype, int64_t* size) {
  using detail::attribute;
  const detail::Names& name = detail::names();
  const TensorArgument wanted{
      .method = method, .name = argument, .dtype = dtype, .rows = -1, .columns = -1};
  const auto shape = attribute(tensor, name.shape);
  const auto is_cpu = shape ? attribute(tensor, name.is_cpu) : pybind11::object();
  if (!is_cpu) detail::refuse(tensor, wanted, "a torch.Tensor", nullptr);
  if (!PyTuple_Check(shape.ptr()) || PyTuple_GET_SIZE(shape.ptr()) != 1)
    detail::refuse(tensor, wanted, "of shape [*]", "shape");
  if (!attribute(tensor, name.dtype).is(dtype))
    detail::refuse(tensor, wanted, "of dtype " + std::string(pybind11::str(dtype)), "dtype");
  if (is_cpu.ptr() != Py_True) detail::refuse(tensor, wanted, "on the CPU", "device");
  if (detail::call(tensor, name.is_contiguous).ptr() != Py_True)
    detail::refuse(tensor, wanted, "contiguous", "stride");
  *size = PyLong_AsLongLong(PyTuple_GET_ITEM(shape.ptr(), 0));
  return static_cast<T*>(PyLong_AsVoidPtr(detail::call(tensor, name.data_ptr).ptr()));
}
}  // namespace lmx
