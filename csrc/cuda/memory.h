// Every access to global memory goes through here, so that the emulation can count the bytes.
#pragma once
#include <cstdint>

#include "cuda/element.h"

namespace cdkd::cuda {

// Sixteen bytes, the widest access of a thread.
template <class T>
struct alignas(16) Vector {
  static constexpr int kSize = 16 / sizeof(T);
  T at[kSize];
};

template <class T>
CDKD_DEVICE T load(const T* address) {
  count_read(sizeof(T));
  return *address;
}

template <class T>
CDKD_DEVICE Vector<T> load(const Vector<T>* address) {
  static_assert(sizeof(Vector<T>) == sizeof(uint4), "one access");
  count_read(sizeof(uint4));
  union {
    uint4 bits;
    Vector<T> vector;
  } both;
  both.bits = *reinterpret_cast<const uint4*>(address);
  return both.vector;
}

// Where all lanes of a warp read the same address: one transaction.
template <class T>
CDKD_DEVICE T load_uniform(const T* address) {
  count_uniform_read(sizeof(T));
  return *address;
}

template <class T>
CDKD_DEVICE void store(T* address, T value) {
  count_write(sizeof(T));
  *address = value;
}

template <class T>
CDKD_DEVICE void store(Vector<T>* address, Vector<T> value) {
  count_write(sizeof(uint4));
  union {
    uint4 bits;
    Vector<T> vector;
  } both;
  both.vector = value;
  *reinterpret_cast<uint4*>(address) = both.bits;
}

}  // namespace cdkd::cuda
