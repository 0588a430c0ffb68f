// A C interface to MLX's C++ library, one function for each operation that Rust calls. A function
// that fails keeps the exception's text for g4_error and returns null, or -1. No exception crosses
// into Rust.

#include <cstdint>
#include <cstring>
#include <functional>
#include <optional>
#include <stdexcept>
#include <string>
#include <unordered_map>
#include <variant>
#include <vector>

#include "mlx/array.h"
#include "mlx/backend/metal/metal.h"
#include "mlx/compile.h"
#include "mlx/device.h"
#include "mlx/fast.h"
#include "mlx/memory.h"
#include "mlx/ops.h"
#include "mlx/random.h"
#include "mlx/transforms.h"
#include "mlx/version.h"

namespace mx = mlx::core;
using mx::array;

namespace {

thread_local std::string last_error;

template <typename Function>
auto guarded(Function function, decltype(function()) on_error) -> decltype(function()) {
  try {
    return function();
  } catch (const std::exception& error) {
    last_error = error.what();
  } catch (...) {
    last_error = "an exception of unknown type";
  }
  return on_error;
}

template <typename Function>
array* made(Function function) {
  return guarded([&] { return new array(function()); }, static_cast<array*>(nullptr));
}

template <typename Function>
int done(Function function) {
  return guarded([&] { return function(), 0; }, -1);
}

mx::Shape shape_of(const int* dims, size_t count) {
  return mx::Shape(dims, dims + count);
}

std::optional<array> optional(const array* a) {
  return a ? std::optional<array>(*a) : std::nullopt;
}

// The numbers of `Dtype` in array.rs.
mx::Dtype dtype_of(int number) {
  switch (number) {
    case 0: return mx::float32;
    case 1: return mx::float16;
    case 2: return mx::bfloat16;
    case 3: return mx::uint32;
    case 4: return mx::bool_;
    default: throw std::invalid_argument("no such dtype");
  }
}

// gelu(gate) * up with the tanh form of GELU. Constants have the type of `gate`, because otherwise
// bf16 would become f32.
std::vector<array> gelu_mul(const std::vector<array>& inputs) {
  const array& x = inputs[0];
  auto constant = [&](float value) { return array(value, x.dtype()); };
  auto cube = mx::multiply(mx::multiply(x, x), x);
  auto sum = mx::add(x, mx::multiply(constant(0.044715f), cube));
  auto inner = mx::multiply(constant(0.7978845608f), sum);
  auto half = mx::multiply(constant(0.5f), x);
  return {mx::multiply(mx::multiply(half, mx::add(constant(1.0f), mx::tanh(inner))), inputs[1])};
}

using Facts = std::unordered_map<std::string, std::variant<std::string, size_t>>;

// Before 0.30.4 only Metal had facts, and they threw an exception on other systems.
Facts facts_of(const mx::Device& device) {
#if MLX_VERSION_NUMERIC >= 30004
  return mx::device_info(device);
#else
  return device == mx::Device::gpu ? mx::metal::device_info() : Facts{};
#endif
}

std::string text_of(const std::variant<std::string, size_t>& value) {
  return std::holds_alternative<std::string>(value) ? std::get<std::string>(value)
                                                    : std::to_string(std::get<size_t>(value));
}

}  // namespace

#define EXPORT extern "C" __attribute__((visibility("default")))

EXPORT const char* g4_error() { return last_error.c_str(); }

#define TEXT_OF(x) #x
#define TEXT(x) TEXT_OF(x)

// The version of the headers, and that of the loaded library.
EXPORT const char* g4_built_version() {
  return TEXT(MLX_VERSION_MAJOR) "." TEXT(MLX_VERSION_MINOR) "." TEXT(MLX_VERSION_PATCH);
}
EXPORT const char* g4_version() { return mx::version(); }

// Copies the default device's fact `key` as text, or "" if there is none. Returns 1 for a GPU.
EXPORT int g4_device(const char* key, char* out, size_t capacity) {
  return guarded(
      [&] {
        const auto& device = mx::default_device();
        const Facts info = facts_of(device);
        auto found = info.find(key);
        std::string text = found == info.end() ? "" : text_of(found->second);
        std::strncpy(out, text.c_str(), capacity - 1);
        out[capacity - 1] = 0;
        return device == mx::Device::gpu ? 1 : 0;
      },
      -1);
}

EXPORT uint64_t g4_memory_limit() {
  return guarded([] { return uint64_t(mx::get_memory_limit()); }, uint64_t(0));
}
EXPORT uint64_t g4_active_memory() {
  return guarded([] { return uint64_t(mx::get_active_memory()); }, uint64_t(0));
}
EXPORT uint64_t g4_peak_memory() {
  return guarded([] { return uint64_t(mx::get_peak_memory()); }, uint64_t(0));
}
EXPORT int g4_reset_peak_memory() {
  return done([] { mx::reset_peak_memory(); });
}
EXPORT int g4_set_cache_limit(uint64_t bytes) {
  return done([&] { mx::set_cache_limit(bytes); });
}
EXPORT int g4_set_wired_limit(uint64_t bytes) {
  return done([&] { mx::set_wired_limit(bytes); });
}

// An array of zeros, whose memory exists at once and can be written.
EXPORT array* g4_zeros(const int* dims, size_t count, int dtype) {
  return made([&] {
    auto shape = shape_of(dims, count);
    auto type = dtype_of(dtype);
    size_t bytes = mx::size_of(type);
    for (int dim : shape) {
      if (dim < 0 || __builtin_mul_overflow(bytes, size_t(dim), &bytes)) {
        throw std::invalid_argument("an array beyond all memory");
      }
    }
    array result(mx::allocator::malloc(bytes), std::move(shape), type);
    auto* data = result.data<uint8_t>();
    if (!data && bytes > 0) {
      throw std::runtime_error("no memory for an array of " + std::to_string(bytes) + " bytes");
    }
    std::memset(data, 0, bytes);
    return result;
  });
}

// Writes into an array of g4_zeros that no operation has used yet.
EXPORT int g4_write(array* a, size_t offset, const void* bytes, size_t count) {
  return done([&] {
    if (offset > a->nbytes() || count > a->nbytes() - offset) {
      throw std::out_of_range("a write beyond the array");
    }
    std::memcpy(a->data<uint8_t>() + offset, bytes, count);
  });
}

EXPORT void g4_free(array* a) { delete a; }

// Another reference to the same array.
EXPORT array* g4_clone(const array* a) {
  return made([&] { return *a; });
}

// Waits for the array and copies it in row-major order.
EXPORT int g4_read(const array* source, void* out, size_t bytes) {
  return done([&] {
    array a = *source;
    a.eval();
    if (!a.flags().row_contiguous) {
      a = mx::contiguous(a);
      a.eval();
    }
    if (a.nbytes() != bytes) {
      throw std::invalid_argument("the array has " + std::to_string(a.nbytes()) + " bytes, not " +
                                  std::to_string(bytes));
    }
    std::memcpy(out, a.data<uint8_t>(), bytes);
  });
}

// Waits until the array is computed.
EXPORT int g4_wait(const array* source) {
  return done([&] {
    array a = *source;
    a.eval();
  });
}

EXPORT int g4_dtype(const array* a) {
  for (int number = 0; number < 5; number++) {
    if (a->dtype() == dtype_of(number)) {
      return number;
    }
  }
  return -1;
}
EXPORT size_t g4_ndim(const array* a) { return a->ndim(); }
EXPORT int g4_dim(const array* a, size_t axis) {
  return axis < a->ndim() ? a->shape(int(axis)) : -1;
}

EXPORT int g4_async_eval(const array* const* arrays, size_t count) {
  return done([&] {
    std::vector<array> outputs;
    for (size_t i = 0; i < count; i++) {
      outputs.push_back(*arrays[i]);
    }
    mx::async_eval(std::move(outputs));
  });
}

EXPORT array* g4_matmul(const array* x, const array* w) {
  return made([&] { return mx::matmul(*x, mx::transpose(*w)); });
}

EXPORT array* g4_quantized_matmul(
    const array* x, const array* w, const array* scales, const array* biases, int group, int bits) {
  return made([&] {
    return mx::quantized_matmul(*x, *w, *scales, optional(biases), true, group, bits);
  });
}

EXPORT array* g4_dequantize(
    const array* w, const array* scales, const array* biases, int group, int bits) {
  return made([&] { return mx::dequantize(*w, *scales, optional(biases), group, bits); });
}

// Rows x [rows, share, 1, cols] times the transposes of the matrices that chosen [rows, top_k]
// selects. w is [experts · features, cols], and holds floats without scales. The results are
// [rows, top_k, 1, features].
EXPORT array* g4_gather_matmul(
    const array* x, const array* w, const array* scales, const array* biases, const array* chosen,
    int experts, int group, int bits) {
  return made([&] {
    auto each = [&](const array& a) { return mx::reshape(a, {experts, -1, a.shape(-1)}); };
    if (!scales) {
      return mx::gather_mm(*x, mx::swapaxes(each(*w), -1, -2), std::nullopt, *chosen);
    }
    return mx::gather_qmm(*x, each(*w), each(*scales), each(*biases), std::nullopt, *chosen, true,
                          group, bits);
  });
}

// The numbers of the `count` largest elements along the last axis, as u32.
EXPORT array* g4_top_k(const array* a, int count) {
  return made([&] {
    int last = a->shape(-1);
    auto order = mx::argpartition(*a, last - count, -1);
    return mx::slice(order, {0, last - count}, {a->shape(0), last});
  });
}

// The softmax over the chosen logits [rows, top_k], times the scales of the chosen.
EXPORT array* g4_chosen_weights(const array* logits, const array* chosen, const array* scales) {
  return made([&] {
    auto top = mx::softmax(mx::take_along_axis(*logits, *chosen, -1), -1, true);
    return mx::multiply(top, mx::take(mx::astype(*scales, top.dtype()), *chosen, 0));
  });
}

// The sum of results [rows, top_k, cols] times weights [rows, top_k]: [rows, cols].
EXPORT array* g4_weighted_sum(const array* results, const array* weights) {
  return made([&] {
    auto factors = mx::astype(mx::expand_dims(*weights, -1), results->dtype());
    return mx::sum(mx::multiply(*results, factors), 1);
  });
}

EXPORT array* g4_take(const array* a, const array* rows) {
  return made([&] { return mx::take(*a, *rows, 0); });
}

EXPORT array* g4_rms_norm(const array* x, const array* weight, float eps) {
  return made([&] { return mx::fast::rms_norm(*x, optional(weight), eps); });
}

EXPORT array* g4_rope(const array* x, const array* periods, int dims, int offset) {
  return made([&] {
    return mx::fast::rope(*x, dims, false, std::nullopt, 1.0f, offset, *periods);
  });
}

EXPORT array* g4_sdpa(
    const array* q, const array* k, const array* v, float scale, int causal, const array* mask) {
  return made([&] {
    std::string mode = causal ? "causal" : mask ? "array" : "";
    return mx::fast::scaled_dot_product_attention(*q, *k, *v, scale, mode, optional(mask));
  });
}

EXPORT array* g4_slice(const array* a, const int* start, const int* stop, size_t count) {
  return made([&] { return mx::slice(*a, shape_of(start, count), shape_of(stop, count)); });
}

EXPORT array* g4_slice_update(
    const array* a, const array* update, const int* start, const int* stop, size_t count) {
  return made([&] {
    return mx::slice_update(*a, *update, shape_of(start, count), shape_of(stop, count));
  });
}

EXPORT array* g4_reshape(const array* a, const int* dims, size_t count) {
  return made([&] { return mx::reshape(*a, shape_of(dims, count)); });
}

// Heads before rows, or back: [1, a, b, n] to [1, b, a, n].
EXPORT array* g4_swap_heads(const array* a) {
  return made([&] { return mx::transpose(*a, {0, 2, 1, 3}); });
}

// Along the first axis.
EXPORT array* g4_concatenate(const array* const* arrays, size_t count) {
  return made([&] {
    std::vector<array> parts;
    for (size_t i = 0; i < count; i++) {
      parts.push_back(*arrays[i]);
    }
    return mx::concatenate(std::move(parts), 0);
  });
}

// Zeros after the last column of a matrix.
EXPORT array* g4_pad_columns(const array* a, int columns) {
  return made([&] { return mx::pad(*a, std::vector<std::pair<int, int>>{{0, 0}, {0, columns}}); });
}

EXPORT array* g4_add(const array* a, const array* b) {
  return made([&] { return mx::add(*a, *b); });
}

EXPORT array* g4_scale(const array* a, float factor) {
  return made([&] { return mx::multiply(*a, array(factor, a->dtype())); });
}

// `fused` makes one kernel of it, which MLX compiles at run time.
EXPORT array* g4_gelu_mul(const array* gate, const array* up, int fused) {
  return made([&] {
    if (!fused) {
      return gelu_mul({*gate, *up})[0];
    }
    // Compiled once for each thread, because MLX stores traces by thread.
    thread_local auto compiled = mx::compile(gelu_mul, true);
    return compiled({*gate, *up})[0];
  });
}

EXPORT array* g4_softcap(const array* a, float cap) {
  return made([&] {
    auto limit = array(cap, a->dtype());
    return mx::multiply(limit, mx::tanh(mx::divide(*a, limit)));
  });
}

EXPORT array* g4_astype(const array* a, int dtype) {
  return made([&] { return mx::astype(*a, dtype_of(dtype)); });
}

// Along the last axis, as u32.
EXPORT array* g4_argmax(const array* a) {
  return made([&] { return mx::argmax(*a, -1); });
}

// Random u32 words.
EXPORT array* g4_random_words(const int* dims, size_t count, uint64_t seed) {
  return made([&] { return mx::random::bits(shape_of(dims, count), 4, mx::random::key(seed)); });
}
