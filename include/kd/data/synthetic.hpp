/// The data set that needs no files: drawn shapes and textures of ten classes, as hard as photographs for small
/// networks.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "kd/core/abi.hpp"
#include "kd/core/error.hpp"
#include "kd/core/random.hpp"
#include "kd/core/shape.hpp"
#include "kd/data/dataset.hpp"

namespace kd::inline KD_ABI::data {

/// What synthetic_shapes draws. The difficulty is set so that the three networks of the report end clearly apart.
struct synthetic_options {
  std::size_t train = 10'240;
  std::size_t test = 4'000;
  std::uint64_t seed = 1;
  int noise = 40;  // 0 ... 255: largest deviation of a channel by pixel noise
  int contrast =
      48;  // 0 ... 128: least difference in brightness between the object and what is behind it, if 32 draws give it
  int distractors = 3;  // 0 ... 16: at most so many small shapes that tell nothing about the class
  int occlusion = 40;   // 0 ... 100: percentage of images with a bar across the object
  int label_noise = 0;  // 0 ... 100: percentage of training labels drawn anew, whatever the picture shows
};

/// Ten classes of 32x32 RGB images, train and test drawn apart; image i shows class i % 10, and is labelled so but for
/// label_noise, which is as in labels that people gave and touches the training set alone. A pure function of the
/// options in integer arithmetic: equal on every compiler, flag and machine. Errors: argument_error when an option is
/// out of its range.
dataset synthetic_shapes(const synthetic_options& options = {});

namespace detail {

inline constexpr int synthetic_size = 32;
inline constexpr int synthetic_pixels = synthetic_size * synthetic_size;
inline constexpr std::array<std::string_view, 10> synthetic_names = {
    "disc", "ring", "square", "triangle", "cross", "star5", "star6", "stripes", "checkerboard", "dots"};

struct rgb {
  int r = 0, g = 0, b = 0;
  constexpr int brightness() const { return (2 * r + 5 * g + b) / 8; }
  /// part / whole of the way to `other`.
  constexpr rgb towards(rgb other, int part, int whole) const {
    const auto mix = [&](int x, int y) { return (x * (whole - part) + y * part) / whole; };
    return {mix(r, other.r), mix(g, other.g), mix(b, other.b)};
  }
};

// The random numbers of one image; the counter is (draw, image, split), see random_stream::synthetic_data.
class synthetic_draws {
 public:
  synthetic_draws(std::uint64_t seed, std::uint32_t image, std::uint32_t split)
      : seed_(seed), image_(image), split_(split) {}

  std::uint32_t word() {
    if (next_ == 4) {
      words_ = random_at(seed_, random_stream::synthetic_data, draw_++, image_, split_);
      next_ = 0;
    }
    return words_[next_++];
  }
  // Uniform in [low, high].
  int between(int low, int high) {
    return low + static_cast<int>(uniform_below(word(), static_cast<std::uint32_t>(high - low + 1)));
  }
  bool chance(int percent) { return between(0, 99) < percent; }
  rgb colour() {
    const int r = between(0, 255), g = between(0, 255), b = between(0, 255);
    return {r, g, b};
  }

 private:
  std::uint64_t seed_;
  std::uint32_t image_, split_, draw_ = 0;
  random_words words_{};
  std::size_t next_ = 4;
};

// Where an object lies, and the way from pixel positions (1/256 pixel) to its own coordinates: 4096 is its radius.
struct object_pose {
  int x, y;                                                // centre, 1/256 pixel
  int radius_u, radius_v;                                  // 1/256 pixel
  int cosine, sine;                                        // 1/16384
  int cosine_u = 0, sine_u = 0, cosine_v = 0, sine_v = 0;  // the same over the radii

  object_pose(synthetic_draws& draws, int least_radius, int most_radius, int margin)
      : x(draws.between(margin, synthetic_size * 256 - margin)),
        y(draws.between(margin, synthetic_size * 256 - margin)),
        radius_u(draws.between(least_radius, most_radius)),
        radius_v(radius_u * draws.between(80, 100) / 100) {
    // cos = (1 - t^2) / (1 + t^2), sin = 2t / (1 + t^2) for |t| <= tan 22.5 degrees: angles up to 45 degrees either way
    // without std::sin, whose last bit differs between libraries.
    const std::int64_t one = 16384, t = draws.between(-6786, 6786), t2 = t * t / one;
    cosine = static_cast<int>((one - t2) * one / (one + t2));
    sine = static_cast<int>(2 * t * one / (one + t2));
    scale();
  }
  void scale() {
    cosine_u = cosine * 1024 / radius_u, sine_u = sine * 1024 / radius_u;
    cosine_v = cosine * 1024 / radius_v, sine_v = sine * 1024 / radius_v;
  }
  // Cut at four radii, outside of every outline, so that squares stay inside an int.
  int u_of(int dx, int dy) const { return std::clamp((dx * cosine_u + dy * sine_u) / 4096, -16384, 16384); }
  int v_of(int dx, int dy) const { return std::clamp((dy * cosine_v - dx * sine_v) / 4096, -16384, 16384); }
  // The pixels, along one axis, that the object can meet: no outline reaches beyond 1.25 radii.
  range box(int centre) const {
    const int reach = radius_u + radius_u / 4, low = (centre - reach) / 256 - 1, high = (centre + reach) / 256 + 2;
    return {static_cast<std::size_t>(std::clamp(low, 0, synthetic_size)),
            static_cast<std::size_t>(std::clamp(high, 0, synthetic_size))};
  }
};

// Unit vectors (1/4096) every 72 degrees: the sides of a pentagon.
inline constexpr std::array<std::array<int, 2>, 5> pentagon = {
    {{0, 4096}, {-3896, 1266}, {-2408, -3314}, {2408, -3314}, {3896, 1266}}};
// And every 60 degrees: the sides of a hexagon.
inline constexpr std::array<std::array<int, 2>, 6> hexagon = {
    {{0, 4096}, {-3547, 2048}, {-3547, -2048}, {0, -4096}, {3547, -2048}, {3547, 2048}}};

// A star with n points is where at most one of the n sides of the inner polygon is crossed.
template <std::size_t Sides>
constexpr bool in_star(const std::array<std::array<int, 2>, Sides>& sides, int apothem, int u, int v) {
  int crossed = 0;
  for (const auto& side : sides) crossed += (side[0] * u + side[1] * v) / 4096 > apothem;
  return crossed <= 1;
}

// Whether (u, v), in 1/4096 of the radius, is inside the outline of a class.
constexpr bool in_outline(int outline, int u, int v) {
  const int au = u < 0 ? -u : u, av = v < 0 ? -v : v;
  const int square = std::max(au, av), radius2 = (u * u + v * v) / 4096;
  switch (outline) {
    case 0:
      return radius2 < 4096;  // disc
    case 1:
      return radius2 < 4096 && radius2 > 1400;  // ring
    case 2:
      return square < 3400;  // square
    case 3:
      return v > -2048 && au * 7094 / 4096 + v < 4096;  // triangle
    case 4:
      return square < 4096 && std::min(au, av) < 1350;  // cross
    case 5:
      return in_star(pentagon, 1500, u, v);  // 5 points, blunt
    case 6:
      return in_star(hexagon, 2048, u, v);  // 6 points
    default:
      return au < 4096 && av < 1100;  // bar
  }
}

// One image in the making: planes of channels, 0 ... 255.
class synthetic_painter {
 public:
  synthetic_painter(const synthetic_options& options, std::uint32_t image, std::uint32_t split)
      : options_(options), draws_(options.seed, image, split) {}

  void paint(int label, std::uint8_t* out) {
    background();
    for (int left = draws_.between(0, options_.distractors); left > 0; --left) {
      const object_pose where(draws_, 350, 900, 0);
      const int outline = draws_.between(0, 7);
      const rgb first = draws_.colour(), second = draws_.colour();  // not as arguments: their order is the compiler's
      fill(where, outline, 0, 256, first, second);
    }
    object(label);
    if (draws_.chance(options_.occlusion)) {
      object_pose bar(draws_, 6000, 6000, 10 * 256);
      bar.radius_v = draws_.between(500, 1300);
      bar.scale();
      const rgb colour = draws_.colour();
      fill(bar, 7, 0, 256, colour, colour);
    }
    finish(out);
  }

 private:
  // Two colours mixed by value noise on a 5x5 grid of 8 pixel cells.
  void background() {
    const rgb a = draws_.colour(), b = draws_.colour();
    std::array<int, 25> grid;
    for (int& value : grid) value = draws_.between(0, 255);
    for (int y = 0; y < synthetic_size; ++y) {
      for (int x = 0; x < synthetic_size; ++x) {
        const int at = y / 8 * 5 + x / 8, fx = x % 8, fy = y % 8;
        const auto g = [&](int i) { return grid[static_cast<std::size_t>(i)]; };
        const int top = g(at) * (8 - fx) + g(at + 1) * fx, bottom = g(at + 5) * (8 - fx) + g(at + 6) * fx;
        pixel(y * synthetic_size + x) = a.towards(b, (top * (8 - fy) + bottom * fy) / 64, 255);
      }
    }
  }

  void object(int label) {
    const object_pose where(draws_, 7 * 256, 13 * 256, 13 * 256);
    const int behind = mean_brightness(where);
    rgb first = draws_.colour(), second = draws_.colour();
    const auto distance = [&](rgb c) { return std::abs(c.brightness() - behind); };
    for (int tries = 0; tries < 32 && distance(first) < options_.contrast; ++tries) first = draws_.colour();
    if (label < 7) {
      fill(where, label, 0, 256, first, first.towards(second, 1, 3));
    } else {
      const auto apart = [&] { return std::abs(first.brightness() - second.brightness()); };
      for (int tries = 0; tries < 32 && apart() < options_.contrast; ++tries) second = draws_.colour();
      const int outline = 2 * draws_.between(0, 1), period = draws_.between(3 * 256, 6 * 256);
      fill(where, outline, label, period, first, second);
    }
  }

  // The colour inside an object at (dx, dy) from its centre, along its own axes, all in 1/256 pixel.
  static rgb texture(int kind, int period, int along, int across, rgb first, rgb second) {
    const int far = 64 * period, i = (along + far) * 2 / period, j = (across + far) * 2 / period;
    if (kind == 7) return i % 2 == 0 ? first : second;        // stripes
    if (kind == 8) return (i + j) % 2 == 0 ? first : second;  // checkerboard
    if (kind == 9) {                                          // dots
      const int du = (along + far) % period - period / 2, dv = (across + far) % period - period / 2;
      return du * du + dv * dv < period * period / 9 ? second : first;
    }
    return first.towards(second, std::clamp(along / 12 + 128, 0, 256), 256);  // shaded
  }

  void fill(const object_pose& where, int outline, int kind, int period, rgb first, rgb second) {
    const range rows = where.box(where.y), columns = where.box(where.x);
    for (int y = static_cast<int>(rows.begin); y < static_cast<int>(rows.end); ++y) {
      for (int x = static_cast<int>(columns.begin); x < static_cast<int>(columns.end); ++x) {
        int covered = 0;
        for (int sub = 0; sub < 4; ++sub) {  // 2x2 samples a pixel soften the edges
          const int dx = x * 256 + 64 + 128 * (sub % 2) - where.x, dy = y * 256 + 64 + 128 * (sub / 2) - where.y;
          covered += in_outline(outline, where.u_of(dx, dy), where.v_of(dx, dy));
        }
        if (covered == 0) continue;
        const int dx = x * 256 + 128 - where.x, dy = y * 256 + 128 - where.y;
        const int along = (dx * where.cosine + dy * where.sine) / 16384;
        const int across = (dy * where.cosine - dx * where.sine) / 16384;
        rgb& at = pixel(y * synthetic_size + x);
        at = at.towards(texture(kind, period, along, across, first, second), covered, 4);
      }
    }
  }

  int mean_brightness(const object_pose& where) {
    int sum = 0, count = 0;
    for (int i = 0; i < synthetic_pixels; ++i) {
      const int dx = i % synthetic_size * 256 - where.x, dy = i / synthetic_size * 256 - where.y;
      if (dx * dx / 256 + dy * dy / 256 > where.radius_u * where.radius_u / 256) continue;
      sum += pixel(i).brightness(), ++count;
    }
    return count == 0 ? 0 : sum / count;
  }

  // Noise of a triangular distribution, and bytes by channel.
  void finish(std::uint8_t* out) {
    const int noise = draws_.between(options_.noise / 3, options_.noise);
    for (std::size_t i = 0; i < synthetic_pixels; ++i) {
      const rgb& at = pixels_[i];
      const int channels[3] = {at.r, at.g, at.b};
      std::uint32_t word = 0;
      for (std::size_t c = 0; c < 3; ++c) {
        word = c == 1 ? word >> 16 : draws_.word();
        const int deviation = static_cast<int>(word & 255) + static_cast<int>(word >> 8 & 255) - 255;
        out[c * synthetic_pixels + i] =
            static_cast<std::uint8_t>(std::clamp(channels[c] + deviation * noise / 255, 0, 255));
      }
    }
  }

  rgb& pixel(int i) { return pixels_[static_cast<std::size_t>(i)]; }

  const synthetic_options& options_;
  synthetic_draws draws_;
  std::array<rgb, synthetic_pixels> pixels_{};
};

inline void draw_split(const synthetic_options& options, std::size_t samples, std::uint32_t split_number, split& out) {
  constexpr std::size_t bytes = 3 * synthetic_pixels;
  out.images.resize(samples * bytes);
  out.labels.resize(samples);
  for (std::size_t i = 0; i < samples; ++i) {
    const int label = static_cast<int>(i % synthetic_names.size());
    synthetic_painter(options, static_cast<std::uint32_t>(i), split_number).paint(label, out.images.data() + i * bytes);
    const random_words mistake = random_at(options.seed, random_stream::synthetic_data, 0xFFFFFFFFu,
                                           static_cast<std::uint32_t>(i), split_number);
    const bool mistaken = split_number == 0 && static_cast<int>(uniform_below(mistake[0], 100)) < options.label_noise;
    out.labels[i] = mistaken ? static_cast<std::int32_t>(uniform_below(mistake[1], 10)) : label;
  }
}

}  // namespace detail

inline dataset synthetic_shapes(const synthetic_options& options) {
  const auto limit = [](std::string_view option, auto value, auto low, auto high) {
    if (value >= low && value <= high) return;
    reject_argument("kd::data::synthetic_shapes", text(option, " must lie in [", low, ", ", high, "]"), value,
                    "leave it out for the default");
  };
  limit("train", options.train, std::size_t{1}, std::size_t{10'000'000});
  limit("test", options.test, std::size_t{1}, std::size_t{10'000'000});
  limit("noise", options.noise, 0, 255);
  limit("contrast", options.contrast, 0, 128);
  limit("distractors", options.distractors, 0, 16);
  limit("occlusion", options.occlusion, 0, 100);
  limit("label_noise", options.label_noise, 0, 100);
  dataset out;
  out.name = "synthetic shapes";
  out.image = image_shape(3, detail::synthetic_size, detail::synthetic_size);
  out.classes = detail::synthetic_names.size();
  out.class_names.assign(detail::synthetic_names.begin(), detail::synthetic_names.end());
  detail::draw_split(options, options.train, 0, out.train);
  detail::draw_split(options, options.test, 1, out.test);
  return out;
}

}  // namespace kd::inline KD_ABI::data
