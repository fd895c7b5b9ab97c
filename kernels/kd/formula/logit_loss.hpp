/// The words in which a loss on rows of logits is written down once: for CPU vectors, CUDA threads, and float64 alike.
///
/// z and t are the student's and the teacher's logits of a row, q = softmax(z/T), p = softmax(t/T'), h = softmax(z).
/// Engines own the loops, maxima, exponentials, rescaling, reductions, masks, faults and memory, and know no loss. A
/// term of a loss is an aggregate of its options (option.hpp) that says what is summed, its value made of the sums,
/// and the gradient of one class; it has no loop. To add one:
///
///   1. a header in this folder (reverse_kl.hpp is the shortest), with its source;
///   2. its name in the list of losses.hpp, from where tests, benchmarks and programs take it;
///   3. its definition, in float64 and without a gradient, in tests/support/loss_definitions.hpp.
///
/// What a term may have (what it leaves out is none or false):
///   name, value_name       as on the command line; as its value is called in results, where that differs
///   side                   terms::softened, terms::hard or terms::logits: see `terms`
///   options(each)          option.hpp
///   value(row)             per row; for terms::softened without T^2. A hard term's row is a hard_row
///   gradient(row, class)   of one class, in the unit of its side: see one_class
///   at_label()             what the gradient has less at the label's class, in probabilities; hard terms
///   watched, watch(row, values)   names and values of further terms to report, which add nothing to the loss
///   needs_teacher          false for terms that look at the student alone
///   needs_label            whether there must be labels
///  What is summed, and read:
///   moments                = sums_of(moment{by, of}...): weighted sums of logits, in one sweep with the exponentials
///   logit_sums, add_logits(class, sums)   plain sums over the logits themselves, in the same sweep
///   probability_sums, add_probabilities(row, class, sums)   sums over q and p, in a second sweep
///   kept, keep(row, numbers)   how many numbers of the row, and which, are computed once for all classes' gradients
///   reads_log_gap, reads_teacher_log_gap, reads_logits   whether gradient or add_probabilities use class.log_gap,
///                          class.teacher_log_gap, class.student_logit and teacher_logit
///  How the row is prepared:
///   label_apart            sums, value and gradient are those of the other classes, and
///     gradient_of_label(row)   is the label's, in probabilities
///   takes_log_probabilities   the teacher's logits are log-probabilities: T' must be 1
///   standardises           logits are divided by their deviation before T: each row and side has a T of its own
///  Which rows have no finite loss:
///   infinite_where_student_is_0, infinite_where_teacher_is_0   a class that this side alone masks is a fault
///
/// Masked classes (minus infinity) have probability 0 and add nothing: the engine passes 0 for what would be 0 times
/// infinity. Equal rows take the same steps on both sides, so that `difference` and `log_gap` are exactly 0.
#pragma once

#include <cstddef>
#include <type_traits>
#include <utility>

#include "kd/formula/abi.hpp"

namespace kd::formula::inline KD_FORMULA_ABI {

/// The weight of a sum: exp(dz/T) or exp(dt/T'), dz = z - max z, dt = t - max t.
enum class by { student, teacher };
/// What is summed: dz, dt, or the gap dt T/T' - dz.
enum class of { student, teacher, gap };
struct moment {
  by weight;
  of what;
  friend constexpr bool operator==(const moment&, const moment&) = default;
};
template <std::size_t Size>
struct moment_list {
  moment at[Size == 0 ? 1 : Size] = {};
  static constexpr std::size_t size = Size;
};
template <class... Moments>
constexpr moment_list<sizeof...(Moments)> sums_of(Moments... m) {
  return {{m...}};
}

/// From which logits a term is made, which decides the unit of its gradient:
///   softened  q and p; the engine multiplies by the class's unit, and by T or 1/T
///   hard      h, at T = 1; the engine multiplies by the class's hard_unit
///   logits    the logits themselves, at T = 1; the gradient is that by z
enum class terms { softened, hard, logits };

namespace detail {

// KD_TERM_HAS(name, type, otherwise): name_of<Term>() is Term::name, or `otherwise` where a term leaves it out.
#define KD_TERM_HAS(name, type, otherwise)  \
  template <class Term>                     \
  KD_FORMULA type name##_of() {             \
    if constexpr (requires { Term::name; }) \
      return Term::name;                    \
    else                                    \
      return otherwise;                     \
  }
KD_TERM_HAS(logit_sums, std::size_t, 0)
KD_TERM_HAS(probability_sums, std::size_t, 0)
KD_TERM_HAS(moments, auto, moment_list<0>{})
KD_TERM_HAS(kept, std::size_t, 0)
KD_TERM_HAS(reads_log_gap, bool, false)
KD_TERM_HAS(reads_teacher_log_gap, bool, false)
KD_TERM_HAS(reads_logits, bool, logit_sums_of<Term>() > 0)
KD_TERM_HAS(needs_teacher, bool, Term::side == terms::softened)
KD_TERM_HAS(needs_label, bool, false)
KD_TERM_HAS(label_apart, bool, false)
KD_TERM_HAS(standardises, bool, false)
KD_TERM_HAS(takes_log_probabilities, bool, false)
KD_TERM_HAS(infinite_where_student_is_0, bool, false)
KD_TERM_HAS(infinite_where_teacher_is_0, bool, false)
#undef KD_TERM_HAS
template <class Term>
KD_FORMULA std::size_t watched_of() {
  if constexpr (requires { Term::watched; })
    return std::extent_v<decltype(Term::watched)>;
  else
    return 0;
}

template <std::size_t I, class Term>
struct held {
  float weight;
  Term term;
};
template <class Indices, class... Terms>
struct holders;
template <std::size_t... I, class... Terms>
struct holders<std::index_sequence<I...>, Terms...> : held<I, Terms>... {};
template <std::size_t I, class Term>
Term type_of(const held<I, Term>&);

}  // namespace detail

/// A term and its weight, for logit_loss.
template <class Term>
struct weighted {
  float weight = 1;
  Term term = {};
};
template <class Term>
weighted(float, Term) -> weighted<Term>;

/// w_1 L_1 + w_2 L_2 + ...: what an engine computes in one launch. Trivially copyable: on a device it lies in memory as
/// it is, so that a recorded launch follows schedules. Weights scale, and never switch the formula.
template <class... Terms>
struct logit_loss {
  static constexpr std::size_t size = sizeof...(Terms);
  static_assert(size > 0, "kd::formula::logit_loss: a loss must have a term");

  float temperature = 1, teacher_temperature = 1;
  bool times_temperature_squared = true;  // the softened terms and their gradients
  detail::holders<std::index_sequence_for<Terms...>, Terms...> held;

  constexpr explicit logit_loss(float student_T, float teacher_T, bool squared, const weighted<Terms>&... parts)
      : temperature(student_T),
        teacher_temperature(teacher_T),
        times_temperature_squared(squared),
        held{{parts.weight, parts.term}...} {}

  template <std::size_t I>
  using term_at = decltype(detail::type_of<I>(std::declval<decltype(held)>()));
  template <std::size_t I>
  KD_FORMULA const term_at<I>& term() const {
    return static_cast<const detail::held<I, term_at<I>>&>(held).term;
  }
  template <std::size_t I>
  KD_FORMULA float weight() const {
    return static_cast<const detail::held<I, term_at<I>>&>(held).weight;
  }
  /// Calls function(integral_constant<I>) for every term.
  template <class Function>
  static KD_FORMULA void each(const Function& function) {
    each_of(function, std::make_index_sequence<size>{});
  }

  // The function may be one of the host.
#if defined(__CUDACC__)
#pragma nv_exec_check_disable
#endif
  template <class Function, std::size_t... I>
  static KD_FORMULA void each_of(const Function& function, std::index_sequence<I...>) {
    (function(std::integral_constant<std::size_t, I>{}), ...);
  }

  static constexpr bool caps = false;  // see soft_cap.hpp
  static constexpr bool softens = ((Terms::side == terms::softened) || ...);
  static constexpr bool hardens = ((Terms::side == terms::hard) || ...);
  static constexpr bool needs_teacher = (detail::needs_teacher_of<Terms>() || ...);
  static constexpr bool needs_label = (detail::needs_label_of<Terms>() || ...);
  static constexpr bool reads_log_gap = (detail::reads_log_gap_of<Terms>() || ...);
  static constexpr bool reads_logits = (detail::reads_logits_of<Terms>() || ...);
  static constexpr bool reads_teacher_log_gap = (detail::reads_teacher_log_gap_of<Terms>() || ...);
  static constexpr bool label_apart = (detail::label_apart_of<Terms>() || ...);
  static constexpr bool standardises = (detail::standardises_of<Terms>() || ...);
  static constexpr bool infinite_where_student_is_0 = (detail::infinite_where_student_is_0_of<Terms>() || ...);
  static constexpr bool infinite_where_teacher_is_0 = (detail::infinite_where_teacher_is_0_of<Terms>() || ...);
  static constexpr std::size_t logit_sums = (detail::logit_sums_of<Terms>() + ...);
  static constexpr std::size_t probability_sums = (detail::probability_sums_of<Terms>() + ...);
  static_assert(
      !label_apart || ((Terms::side != terms::softened || detail::label_apart_of<Terms>()) && ...),
      "kd::formula::logit_loss: a term that sets the label apart cannot share a launch with one that does not");
  static_assert(
      !standardises || ((Terms::side != terms::softened || detail::standardises_of<Terms>()) && ...),
      "kd::formula::logit_loss: a term that standardises cannot share a launch with a softened one that does not");
  /// Values that are reported: of every term, and what it watches.
  static constexpr std::size_t values = ((1 + detail::watched_of<Terms>()) + ...);

  /// The moments of all terms, each once.
  struct moment_union {
    moment at[(detail::moments_of<Terms>().size + ... + 1)] = {};
    std::size_t size = 0;
    KD_FORMULA std::size_t place(const moment& m) const {
      std::size_t i = 0;
      while (i < size && !(at[i] == m)) ++i;
      return i;
    }
  };
  static constexpr moment_union moments = [] {
    moment_union all;
    const auto add = [&](const auto& list) {
      for (std::size_t i = 0; i != list.size; ++i)
        if (all.place(list.at[i]) == all.size) all.at[all.size++] = list.at[i];
    };
    (add(detail::moments_of<Terms>()), ...);
    return all;
  }();
  /// Where the sums of term I begin among those of all terms.
  template <std::size_t I>
  static constexpr std::size_t first_logit_sum = [] {
    std::size_t sums = 0;
    int i = 0;
    ((sums += i++ < static_cast<int>(I) ? detail::logit_sums_of<Terms>() : 0), ...);
    return sums;
  }();
  template <std::size_t I>
  static constexpr std::size_t first_probability_sum = [] {
    std::size_t sums = 0;
    int i = 0;
    ((sums += i++ < static_cast<int>(I) ? detail::probability_sums_of<Terms>() : 0), ...);
    return sums;
  }();
  template <std::size_t I>
  static constexpr std::size_t first_value = [] {
    std::size_t sums = 0;
    int i = 0;
    ((sums += i++ < static_cast<int>(I) ? 1 + detail::watched_of<Terms>() : 0), ...);
    return sums;
  }();

  /// By what the softened terms' values are multiplied, and their gradients by z beside the probabilities.
  KD_FORMULA float value_scale() const { return times_temperature_squared ? temperature * temperature : 1.0f; }
  KD_FORMULA float gradient_scale() const { return times_temperature_squared ? temperature : 1.0f / temperature; }
};
template <class... Terms>
logit_loss(float, float, bool, const weighted<Terms>&...) -> logit_loss<Terms...>;

/// An array that may have no element.
template <class Real, std::size_t Size>
struct few {
  Real at[Size == 0 ? 1 : Size];
};

/// x in every lane.
template <class Real>
KD_FORMULA Real fill(float x) {
  return Real{} + x;
}

/// Sums over classes relative to the maxima of the row, a tile or a thread.
template <class Loss, class Real>
struct sums {
  Real student = {}, teacher = {}, hard = {};  // sum exp(dz/T), exp(dt/T'), exp(dz)
  few<Real, Loss::moments.size> moments = {};
  few<Real, Loss::logit_sums> logits = {};
};

/// One class, for terms. A field that no term of the loss reads may hold anything.
template <class Real>
struct one_class {
  Real student, teacher;  // q, p, both divided by `unit`, which is 1 in the second sweep
  Real difference;        // q - p likewise, exactly 0 for equal rows
  Real unit;
  Real hard, hard_unit;  // h divided by hard_unit
  Real log_gap;          // log q - log p; 0 where q underflows
  Real student_logit, teacher_logit;
  Real teacher_log_gap = {};  // log q - log p; 0 where p underflows
};

/// Whether a logit is minus infinity.
template <class Real>
KD_FORMULA auto is_masked(const Real& logit) {
  return logit < -3.402823466e+38f;
}

/// Of the logits of a row that are not masked, for losses that standardise: their mean, the square root of the sum of
/// squares over count - 1, 0 where that is 0, and how many they are. The mean is less `from`, a logit of the row or 0:
/// logits far from 0 would lose their differences from a mean that is a float.
template <class Real>
struct logit_spread {
  Real mean, deviation, count;
  Real from = {};
};
/// What standardising adds to a deviation before it divides by it.
inline constexpr float least_deviation = 1e-7f;

/// What is known of a row when all classes have been summed, as term I of Loss sees it. Math has log, log1p, exp, abs,
/// sqrt, tanh of a Real, whether it is one of a row or of a class; exp takes any argument.
template <class Loss, std::size_t I, class Real, class Math>
struct row {
  using math = Math;
  Real student, teacher;  // sum exp(dz/T), sum exp(dt/T')
  few<Real, Loss::moments.size> moments;
  few<Real, detail::logit_sums_of<typename Loss::template term_at<I>>()> logit_sums;
  few<Real, detail::probability_sums_of<typename Loss::template term_at<I>>()> probability_sums;
  Real inverse_T, inverse_teacher_T;
  Real log_ratio;    // log(teacher / student), exactly 0 for equal rows
  Real log_teacher;  // log(teacher)
  Real log_mass;     // log sum exp(t/T')
  Real classes;
  Real label_student, label_teacher;  // label_apart: (z_y - max z)/T and (t_y - max t)/T' of the other classes' maxima
  Real log_sum_exp;                   // log sum exp(z), of all classes; where a term is a hard one
  Real value;                         // once it is known
  logit_spread<Real> spread;          // standardises: of the student
  few<Real, detail::kept_of<typename Loss::template term_at<I>>()> kept;

  /// The mean of `what`, divided by its temperature, under the weight.
  template <by W, of F>
  KD_FORMULA Real mean() const {
    constexpr std::size_t place = Loss::moments.place({W, F});
    static_assert(place < Loss::moments.size, "kd::formula: this moment is not among the term's moments");
    return moments.at[place] * (F == of::teacher ? inverse_teacher_T : inverse_T) /
           (W == by::student ? student : teacher);
  }
};

/// A row as hard terms see it: in double precision in every engine, since the logits themselves may be large.
template <std::size_t LogitSums>
struct hard_row {
  double log_sum;  // log sum exp(z - max)
  double max, label_logit;
  double classes;
  few<double, LogitSums> logit_sums;
};

}  // namespace kd::formula::inline KD_FORMULA_ABI
