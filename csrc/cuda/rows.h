// Rows of any floating type, read and written by a group of threads in 16-byte pieces.
#pragma once
#include <cstdint>

#include "common/rows.h"
#include "cuda/memory.h"

namespace cdkd::cuda {

template <class T>
CDKD_DEVICE const T* elements_of(const Rows& rows) {
  return static_cast<const T*>(rows.data);
}
template <class T>
CDKD_DEVICE T* elements_of(const MutableRows& rows) {
  return static_cast<T*>(rows.data);
}

// The threads that work on a row together: a warp, or a block.
struct Group {
  int thread;
  int size;
};

// Call f(the row's elements). Kernels that compute in float never meet a float64.
template <class A, class AnyRows, class F>
CDKD_DEVICE void with_row(const AnyRows& rows, int64_t row, F f) {
  const int64_t offset = row * rows.length;
  switch (rows.format) {
    case Format::kFloat64:
      if constexpr (sizeof(A) == 8) f(elements_of<double>(rows) + offset);
      break;
    case Format::kFloat32:
      f(elements_of<float>(rows) + offset);
      break;
    case Format::kBFloat16:
      f(elements_of<BFloat16>(rows) + offset);
      break;
    case Format::kFloat16:
      f(elements_of<Float16>(rows) + offset);
      break;
  }
}

// How a row is cut: elements before the first 16-byte boundary, whole vectors, elements after the last.
struct Cut {
  int head;
  int vectors;
  int tail;  // where it begins
};

template <class T>
CDKD_DEVICE Cut cut_row(const T* row, int length) {
  const int misaligned = static_cast<int>(reinterpret_cast<uintptr_t>(row) % 16);
  const int to_boundary = (16 - misaligned) % 16 / static_cast<int>(sizeof(T));
  const int head = to_boundary < length ? to_boundary : length;
  const int vectors = (length - head) / Vector<T>::kSize;
  return {head, vectors, head + vectors * Vector<T>::kSize};
}

template <class A, class T, class Use>
CDKD_DEVICE void read_elements(const T* row, int length, Group group, Use use) {
  const Cut cut = cut_row(row, length);
  const int first = group.thread;
  if (first < cut.head) use(first, static_cast<A>(widen(load(row + first))));
  const Vector<T>* vectors = reinterpret_cast<const Vector<T>*>(row + cut.head);
  for (int v = first; v < cut.vectors; v += group.size) {
    const Vector<T> vector = load(vectors + v);
    CDKD_UNROLL
    for (int e = 0; e < Vector<T>::kSize; ++e)
      use(cut.head + v * Vector<T>::kSize + e, static_cast<A>(widen(vector.at[e])));
  }
  const int last = cut.tail + first;
  if (last < length) use(last, static_cast<A>(widen(load(row + last))));
}

// Call use(i, value) for the elements of a row that fall to this thread, i ascending.
template <class A, class Use>
CDKD_DEVICE void read_row(const Rows& rows, int64_t row, Group group, Use use) {
  with_row<A>(rows, row, [&](const auto* elements) { read_elements<A>(elements, rows.length, group, use); });
}

template <class A>
CDKD_DEVICE A read_element(const Rows& rows, int64_t row, int i) {
  A value = 0;
  with_row<A>(rows, row, [&](const auto* elements) { value = static_cast<A>(widen(load(elements + i))); });
  return value;
}

template <class T, class A>
CDKD_DEVICE void store_narrow(T* address, A value) {
  store(address, Narrow<T>::from(value));
}

template <class T, class Value>
CDKD_DEVICE void write_elements(T* row, int length, Group group, Value value) {
  const Cut cut = cut_row(row, length);
  const int first = group.thread;
  if (first < cut.head) store_narrow(row + first, value(first));
  Vector<T>* vectors = reinterpret_cast<Vector<T>*>(row + cut.head);
  for (int v = first; v < cut.vectors; v += group.size) {
    Vector<T> vector;
    CDKD_UNROLL
    for (int e = 0; e < Vector<T>::kSize; ++e)
      vector.at[e] = Narrow<T>::from(value(cut.head + v * Vector<T>::kSize + e));
    store(vectors + v, vector);
  }
  const int last = cut.tail + first;
  if (last < length) store_narrow(row + last, value(last));
}

// Set element i of a row to value(i), for those that fall to this thread.
template <class A, class Value>
CDKD_DEVICE void write_row(const MutableRows& rows, int64_t row, Group group, Value value) {
  with_row<A>(rows, row, [&](auto* elements) { write_elements(elements, rows.length, group, value); });
}

template <class A>
CDKD_DEVICE void write_element(const MutableRows& rows, int64_t row, int i, A value) {
  with_row<A>(rows, row, [&](auto* elements) { store_narrow(elements + i, value); });
}

// Of rows in a wider type than A too; for single elements.
template <class A>
CDKD_DEVICE A read_any(const Rows& rows, int64_t row, int i) {
  A value = 0;
  with_row<double>(rows, row,
                   [&](const auto* elements) { value = static_cast<A>(widen(load(elements + i))); });
  return value;
}

// The one scalar at `index` that all lanes of a warp read; of any type.
template <class A>
CDKD_DEVICE A read_scalar(const Rows& scalars, int64_t index) {
  A result = 0;
  with_row<double>(scalars, index,
                   [&](const auto* elements) { result = static_cast<A>(widen(load_uniform(elements))); });
  return result;
}

}  // namespace cdkd::cuda
