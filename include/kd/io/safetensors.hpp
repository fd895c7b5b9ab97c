/// The safetensors format: 8 bytes of header length (little endian), a JSON header, the data of all tensors.
/// https://github.com/huggingface/safetensors#format. A file is validated as a whole before any tensor is handed out.
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "kd/core/abi.hpp"
#include "kd/core/error.hpp"
#include "kd/io/atomic_file.hpp"
#include "kd/io/foreign_format.hpp"
#include "kd/io/json.hpp"

static_assert(std::endian::native == std::endian::little, "kd/io/safetensors.hpp: the format is little endian");

namespace kd::inline KD_ABI::io {

/// One tensor of an open file; `data` lives as long as the file object. Of a dtype that kd does not know (F8_E4M3),
/// whose elements may have any size, it is listed, and cannot be read.
struct tensor_info {
  std::string name, dtype;
  std::vector<std::uint64_t> shape;  ///< empty for a scalar
  std::span<const std::byte> data;   ///< row-major

  std::uint64_t size() const {
    std::uint64_t product = 1;
    for (const std::uint64_t extent : shape) product *= extent;
    return product;
  }
};

/// Bytes of one element of a dtype ("F32"), 0 for an unknown one.
constexpr std::size_t size_of_dtype(std::string_view dtype) {
  if (dtype == "F64" || dtype == "I64" || dtype == "U64") return 8;
  if (dtype == "F32" || dtype == "I32" || dtype == "U32") return 4;
  if (dtype == "F16" || dtype == "BF16" || dtype == "I16" || dtype == "U16") return 2;
  if (dtype == "I8" || dtype == "U8" || dtype == "BOOL") return 1;
  return 0;
}

/// "[64,3,7,7]", "[]".
inline std::string text_of(std::span<const std::uint64_t> shape) {
  std::string out = "[";
  for (std::size_t i = 0; i < shape.size(); ++i) out += i == 0 ? text(shape[i]) : text(",", shape[i]);
  return out + "]";
}

/// A float from IEEE binary16 bits, exact.
constexpr float float_of_half(std::uint16_t bits) {
  const float sign = (bits & 0x8000u) != 0 ? -1.0f : 1.0f;
  const std::uint32_t exponent = (bits >> 10) & 31u, fraction = bits & 1023u;
  if (exponent == 0) return sign * static_cast<float>(fraction) * 0x1p-24f;
  const std::uint32_t wide = exponent == 31 ? 255u : exponent + 112u;
  return std::bit_cast<float>((static_cast<std::uint32_t>(bits & 0x8000u) << 16) | (wide << 23) | (fraction << 13));
}
/// A float from bfloat16 bits, exact.
constexpr float float_of_bfloat16(std::uint16_t bits) {
  return std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16);
}

/// A safetensors file, read into memory and validated. Move-only.
class safetensors_file {
 public:
  /// Reads and validates the file. Throws file_error that names file, tensor, value, rule and remedy; of a file in
  /// another known format (.pt, .npy, pickle) the remedy says how to convert it.
  static safetensors_file open(const std::string& path);

  const std::string& path() const { return path_; }
  /// All tensors in the order of their data.
  const std::vector<tensor_info>& list() const { return tensors_; }
  /// The "__metadata__" pairs, in file order.
  const std::vector<std::pair<std::string, std::string>>& metadata() const { return metadata_; }
  /// The metadata value of that key, or null pointer.
  const std::string* find_metadata(std::string_view key) const;

  /// The tensor of that name, or null pointer.
  const tensor_info* find(std::string_view name) const;
  /// The tensor of that name and shape; throws file_error where it is missing or has another shape.
  const tensor_info& at(std::string_view name, std::span<const std::uint64_t> shape) const;

  /// Copies a floating tensor (F32, F64 rounded to nearest, F16, BF16) of exactly this shape to `to`; throws file_error
  /// on a missing tensor, another shape, another dtype, or a finite F64 beyond float; argument_error where `to` has
  /// another size than the shape.
  void read(std::string_view name, std::span<const std::uint64_t> shape, std::span<float> to) const;
  /// Copies an integer tensor (I64, I32, I16, I8, U64, U32, U16, U8, BOOL) of exactly this shape; throws as above, and
  /// on a U64 beyond I64.
  void read(std::string_view name, std::span<const std::uint64_t> shape, std::span<std::int64_t> to) const;

 private:
  safetensors_file() = default;
  [[noreturn]] void reject(std::string_view problem, std::string_view remedy) const;
  [[noreturn]] void reject(const tensor_info& tensor, std::string_view problem, std::string_view remedy) const;
  [[noreturn]] void reject_as_a_whole(std::string_view problem, std::string_view remedy) const;
  void read_metadata(const json& pairs);
  struct placed {
    tensor_info tensor;
    std::uint64_t begin, end;  // in the data
  };
  placed read_entry(const std::string& name, const json& entry, std::uint64_t data_size) const;
  void check_cover(std::vector<placed>& all, std::uint64_t data_size) const;
  template <class Stored, class To, class Convert>
  void convert(const tensor_info& tensor, std::span<To> to, const Convert& convert) const;

  std::string path_;
  std::vector<tensor_info> tensors_;
  std::vector<std::pair<std::string, std::string>> metadata_;
  std::unique_ptr<std::byte[]> data_;  // apart from the header, so that its start is aligned
};

/// Collects copies of tensors and writes them as one safetensors file, whole or not at all. Data is laid out by element
/// size, largest first, then in the order added, so that each tensor is aligned to its element and the data to 8 bytes.
class safetensors_writer {
 public:
  /// Adds one tensor; throws argument_error on a name given twice, a reserved or non-UTF-8 name, an unknown dtype, or
  /// bytes that do not fill the shape.
  void add(std::string name, std::string dtype, std::vector<std::uint64_t> shape, std::span<const std::byte> bytes);
  void add(std::string name, std::vector<std::uint64_t> shape, std::span<const float> values) {
    add(std::move(name), "F32", std::move(shape), std::as_bytes(values));
  }
  void add(std::string name, std::vector<std::uint64_t> shape, std::span<const std::int64_t> values) {
    add(std::move(name), "I64", std::move(shape), std::as_bytes(values));
  }
  /// Sets a "__metadata__" pair.
  void metadata(std::string_view key, std::string_view value) { metadata_[key] = value; }

  /// Writes the file atomically; throws file_error, and an older file of that name then stays whole.
  void write(const std::string& path) const;
  /// The same into a file that was opened before: that it cannot be written is then known before the work. Commits it.
  void write(atomic_file& file) const;

 private:
  struct entry {
    std::string name, dtype;
    std::vector<std::uint64_t> shape;
    std::vector<std::byte> bytes;
  };
  std::vector<entry> entries_;
  json metadata_ = json::object();
};

namespace detail {

inline constexpr std::uint64_t largest_header = 100'000'000;  // the reference implementation's limit
inline constexpr std::string_view damaged = "the file is cut or damaged: copy or save it again";

/// Whether shape product * element size fits 64 bits; the product in bytes.
inline bool bytes_of(std::span<const std::uint64_t> shape, std::uint64_t element, std::uint64_t& bytes) {
  bytes = element;
  bool fits = true;
  for (const std::uint64_t extent : shape) fits = !__builtin_mul_overflow(bytes, extent, &bytes) && fits;
  return fits;
}

}  // namespace detail

inline void safetensors_file::reject(std::string_view problem, std::string_view remedy) const {
  throw file_error(text(path_, ": ", problem, "; ", remedy));
}
inline void safetensors_file::reject(const tensor_info& tensor, std::string_view problem,
                                     std::string_view remedy) const {
  throw file_error(text(path_, ": tensor \"", tensor.name, "\": ", problem, "; ", remedy));
}

/// The file does not even begin like one: if it is of another format, that is the problem.
inline void safetensors_file::reject_as_a_whole(std::string_view problem, std::string_view remedy) const {
  const file_descriptor file = open_for_reading(path_);
  std::string first(std::min(file_size(file, path_), recognised_bytes), '\0');
  read_exactly(file, path_, first.data(), first.size());
  const foreign_format found = recognise(path_, first);
  if (!found.name.empty()) reject(text("expected a safetensors file, found ", found.name), found.remedy);
  reject(problem, remedy);
}

inline safetensors_file safetensors_file::open(const std::string& path) {
  safetensors_file result;
  result.path_ = path;
  const file_descriptor file = open_for_reading(path);
  const std::uint64_t size = file_size(file, path);
  if (size < 8)
    result.reject_as_a_whole(text("a safetensors file has at least 8 bytes, found ", size),
                             size == 0 ? "the file is empty: save it again" : detail::damaged);
  std::uint64_t header_size = 0;
  read_exactly(file, path, &header_size, 8);
  if (header_size == 0 || header_size > detail::largest_header || header_size > size - 8)
    result.reject_as_a_whole(text("the header length must be 1 to ", std::min(detail::largest_header, size - 8),
                                  " bytes, found ", header_size),
                             "the file is cut, damaged or not safetensors: save it again");
  std::string header(header_size, '\0');
  read_exactly(file, path, header.data(), header_size);
  if (header[0] != '{')
    result.reject_as_a_whole("the header must begin with '{'", "the file is damaged or not safetensors: save it again");
  const json root = json::parse(header, text(path, ": header"));

  const std::uint64_t data_size = size - 8 - header_size;
  std::vector<placed> all;
  for (std::size_t i = 0; i < root.size(); ++i) {
    if (root.names()[i] == "__metadata__") {
      result.read_metadata(root.items()[i]);
    } else {
      all.push_back(result.read_entry(root.names()[i], root.items()[i], data_size));
    }
  }
  result.check_cover(all, data_size);
  // Left uninitialised: the next line fills it.
  result.data_.reset(new std::byte[data_size]);
  read_exactly(file, path, result.data_.get(), data_size);
  for (placed& p : all) {
    p.tensor.data = {result.data_.get() + p.begin, p.end - p.begin};
    result.tensors_.push_back(std::move(p.tensor));
  }
  return result;
}

inline void safetensors_file::read_metadata(const json& pairs) {
  if (pairs.is_null()) return;  // as the reference implementation: the same as none
  if (!pairs.is_object())
    reject(text("\"__metadata__\" must be an object of strings, found ", name_of(pairs.type())), detail::damaged);
  for (std::size_t i = 0; i < pairs.size(); ++i) {
    if (!pairs.items()[i].is_string())
      reject(text("\"__metadata__\" must hold strings, found ", name_of(pairs.items()[i].type()), " for \"",
                  pairs.names()[i], "\""),
             detail::damaged);
    metadata_.emplace_back(pairs.names()[i], pairs.items()[i].as_string());
  }
}

inline safetensors_file::placed safetensors_file::read_entry(const std::string& name, const json& entry,
                                                             std::uint64_t data_size) const {
  placed result{{name, {}, {}, {}}, 0, 0};
  tensor_info& tensor = result.tensor;
  const json* const dtype = entry.find("dtype");
  const json* const shape = entry.find("shape");
  const json* const offsets = entry.find("data_offsets");
  const auto unsigned_array = [](const json* value) {
    return value != nullptr && value->is_array() &&
           std::all_of(value->items().begin(), value->items().end(), [](const json& v) { return v.is_unsigned(); });
  };
  if (dtype == nullptr || !dtype->is_string() || !unsigned_array(shape) || !unsigned_array(offsets) ||
      offsets->size() != 2)
    reject(tensor,
           text("expected {\"dtype\": string, \"shape\": [integers], \"data_offsets\": [begin, end]}, found ",
                entry.dump().substr(0, 200)),
           detail::damaged);
  tensor.dtype = dtype->as_string();
  for (const json& extent : shape->items()) tensor.shape.push_back(extent.as_unsigned());
  result.begin = offsets->items()[0].as_unsigned();
  result.end = offsets->items()[1].as_unsigned();

  if (result.begin > result.end || result.end > data_size)
    reject(tensor,
           text("data_offsets must satisfy begin <= end <= ", data_size, " bytes of data, found [", result.begin, ",",
                result.end, "]"),
           detail::damaged);
  const std::uint64_t element = size_of_dtype(tensor.dtype);  // 0: one that matters to nobody until it is read
  std::uint64_t bytes = 0;
  if (!detail::bytes_of(tensor.shape, std::max<std::uint64_t>(element, 1), bytes))
    reject(tensor, text("the bytes of shape ", text_of(tensor.shape), " must fit 64 bits"), detail::damaged);
  if (element != 0 && bytes != result.end - result.begin)
    reject(tensor,
           text("shape ", text_of(tensor.shape), " of ", tensor.dtype, " takes ", bytes, " bytes, found data_offsets [",
                result.begin, ",", result.end, "] of ", result.end - result.begin),
           detail::damaged);
  return result;
}

inline void safetensors_file::check_cover(std::vector<placed>& all, std::uint64_t data_size) const {
  std::sort(all.begin(), all.end(),
            [](const placed& a, const placed& b) { return a.begin != b.begin ? a.begin < b.begin : a.end < b.end; });
  std::uint64_t covered = 0;
  for (const placed& p : all) {
    if (p.begin != covered)
      reject(p.tensor,
             text(p.begin < covered ? "overlaps the tensor before it" : "leaves a hole before it",
                  ": data must begin at byte ", covered, ", found ", p.begin),
             detail::damaged);
    covered = p.end;
  }
  if (covered != data_size)
    reject(text("the tensors must fill the data: they end at byte ", covered, ", found ", data_size, " bytes of data"),
           "bytes were appended or the header is damaged: copy or save it again");
}

inline const std::string* safetensors_file::find_metadata(std::string_view key) const {
  for (const auto& [name, value] : metadata_)
    if (name == key) return &value;
  return nullptr;
}
inline const tensor_info* safetensors_file::find(std::string_view name) const {
  for (const tensor_info& tensor : tensors_)
    if (tensor.name == name) return &tensor;
  return nullptr;
}
inline const tensor_info& safetensors_file::at(std::string_view name, std::span<const std::uint64_t> shape) const {
  const tensor_info* const found = find(name);
  if (found == nullptr)
    reject(text("tensor \"", name, "\" of shape ", text_of(shape), " is missing among the ", tensors_.size(),
                " tensors", tensors_.empty() ? "" : ", the first of which is \"",
                tensors_.empty() ? "" : tensors_[0].name, tensors_.empty() ? "" : "\""),
           "name a checkpoint of this network");
  if (!std::equal(shape.begin(), shape.end(), found->shape.begin(), found->shape.end()))
    reject(*found, text("expected shape ", text_of(shape), ", found ", text_of(found->shape)),
           "name a checkpoint of this network");
  return *found;
}

template <class Stored, class To, class Convert>
void safetensors_file::convert(const tensor_info& tensor, std::span<To> to, const Convert& convert) const {
  for (std::size_t i = 0; i < to.size(); ++i) {
    Stored value;
    std::memcpy(&value, tensor.data.data() + i * sizeof value, sizeof value);
    to[i] = convert(value);
  }
}

namespace detail {
inline void check_room(const tensor_info& tensor, std::size_t room) {
  if (room != tensor.size())
    reject_argument("kd::io::safetensors_file::read",
                    text("the destination of \"", tensor.name, "\" must hold ", tensor.size(), " elements"), room,
                    "pass a span of the shape's size");
}
}  // namespace detail

inline void safetensors_file::read(std::string_view name, std::span<const std::uint64_t> shape,
                                   std::span<float> to) const {
  const tensor_info& tensor = at(name, shape);
  detail::check_room(tensor, to.size());
  if (tensor.dtype == "F32") {
    if (!to.empty()) std::memcpy(to.data(), tensor.data.data(), to.size_bytes());
  } else if (tensor.dtype == "F64") {
    convert<double>(tensor, to, [&](double value) {
      if (std::isfinite(value) && std::abs(value) > std::numeric_limits<float>::max())
        reject(tensor, text("every value must fit a 32-bit float, found ", value), "scale the values or save F32");
      return static_cast<float>(value);
    });
  } else if (tensor.dtype == "F16") {
    convert<std::uint16_t>(tensor, to, float_of_half);
  } else if (tensor.dtype == "BF16") {
    convert<std::uint16_t>(tensor, to, float_of_bfloat16);
  } else {
    reject(tensor, text("expected dtype F32, F64, F16 or BF16, found ", tensor.dtype), "save it as floating point");
  }
}

inline void safetensors_file::read(std::string_view name, std::span<const std::uint64_t> shape,
                                   std::span<std::int64_t> to) const {
  const tensor_info& tensor = at(name, shape);
  detail::check_room(tensor, to.size());
  const auto widen = [](auto value) { return static_cast<std::int64_t>(value); };
  const std::string_view dtype = tensor.dtype;
  if (dtype == "I64") return convert<std::int64_t>(tensor, to, widen);
  if (dtype == "I32") return convert<std::int32_t>(tensor, to, widen);
  if (dtype == "I16") return convert<std::int16_t>(tensor, to, widen);
  if (dtype == "I8") return convert<std::int8_t>(tensor, to, widen);
  if (dtype == "U64")
    return convert<std::uint64_t>(tensor, to, [&](std::uint64_t value) {
      if (value > std::uint64_t{std::numeric_limits<std::int64_t>::max()})
        reject(tensor, text("every value must fit a signed 64-bit integer, found ", value), "save smaller values");
      return static_cast<std::int64_t>(value);
    });
  if (dtype == "U32") return convert<std::uint32_t>(tensor, to, widen);
  if (dtype == "U16") return convert<std::uint16_t>(tensor, to, widen);
  if (dtype == "U8" || dtype == "BOOL") return convert<std::uint8_t>(tensor, to, widen);
  reject(tensor, text("expected an integer dtype, found ", dtype), "save it as I64");
}

inline void safetensors_writer::add(std::string name, std::string dtype, std::vector<std::uint64_t> shape,
                                    std::span<const std::byte> bytes) {
  constexpr std::string_view here = "kd::io::safetensors_writer::add";
  if (name == "__metadata__" || !detail::is_utf8(name))
    reject_argument(here, "a tensor's name must be UTF-8 and not \"__metadata__\"", name, "choose another name");
  if (std::any_of(entries_.begin(), entries_.end(), [&](const entry& e) { return e.name == name; }))
    reject_argument(here, "a tensor's name must be given once", name, "choose another name");
  const std::uint64_t element = size_of_dtype(dtype);
  if (element == 0) reject_argument(here, "dtype must be one of the format's, F32 for example", dtype, "correct it");
  std::uint64_t expected = 0;
  if (!detail::bytes_of(shape, element, expected) || expected != bytes.size())
    reject_argument(here,
                    text("tensor \"", name, "\" of shape ", text_of(shape), " and dtype ", dtype, " must have ",
                         expected, " bytes"),
                    bytes.size(), "pass the whole tensor");
  entries_.push_back({std::move(name), std::move(dtype), std::move(shape), {bytes.begin(), bytes.end()}});
}

inline void safetensors_writer::write(const std::string& path) const {
  atomic_file file(path);
  write(file);
}

inline void safetensors_writer::write(atomic_file& file) const {
  std::vector<const entry*> order;
  for (const entry& e : entries_) order.push_back(&e);
  std::sort(order.begin(), order.end(), [](const entry* a, const entry* b) {
    const std::size_t size_a = size_of_dtype(a->dtype), size_b = size_of_dtype(b->dtype);
    return size_a != size_b ? size_a > size_b : a < b;  // both point into one vector: the order added
  });
  json root = json::object();
  if (metadata_.size() > 0) root["__metadata__"] = metadata_;
  std::uint64_t offset = 0;
  for (const entry* e : order) {
    json shape = json::array(), offsets = json::array(), tensor = json::object();
    for (const std::uint64_t extent : e->shape) shape.push_back(extent);
    offsets.push_back(offset);
    offsets.push_back(offset += e->bytes.size());
    tensor["dtype"] = e->dtype;
    tensor["shape"] = std::move(shape);
    tensor["data_offsets"] = std::move(offsets);
    root[e->name] = std::move(tensor);
  }
  std::string header = root.dump();
  header.resize((header.size() + 7) / 8 * 8, ' ');
  if (header.size() > detail::largest_header)
    reject_argument("kd::io::safetensors_writer::write", "the header must be at most 100000000 bytes", header.size(),
                    "save fewer tensors per file");
  const std::uint64_t header_size = header.size();
  file.write(&header_size, 8);
  file.write(header);
  for (const entry* e : order) file.write(e->bytes.data(), e->bytes.size());
  file.commit();
}

}  // namespace kd::inline KD_ABI::io
