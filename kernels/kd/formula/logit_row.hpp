/// What every engine does alike with the sums of a row: adding a class, moving to larger maxima, values, gradients.
#pragma once

#include "kd/formula/logit_loss.hpp"

namespace kd::formula::inline KD_FORMULA_ABI {

/// Adds one class's part of every moment. `gap`, which may be infinite, is not looked at where the weight is 0; nor are
/// `dz` and `dt` with their own weights, unless Finite says that they are finite there.
template <class Loss, bool Finite = true, class Real, class Mask>
KD_FORMULA void add_moments(few<Real, Loss::moments.size>& to, const Real& student_e, const Real& teacher_e,
                            const Real& dz, const Real& dt, const Real& gap, const Mask& student_is_0,
                            const Mask& teacher_is_0) {
  [&]<std::size_t... I>(std::index_sequence<I...>) {
    [[maybe_unused]] const auto add = [&]<std::size_t J>(std::integral_constant<std::size_t, J>) {
      constexpr moment m = Loss::moments.at[J];
      const Real& e = m.weight == by::student ? student_e : teacher_e;
      if constexpr (m.what == of::gap) {
        to.at[J] += e * ((m.weight == by::student ? student_is_0 : teacher_is_0) ? fill<Real>(0) : gap);
      } else if constexpr ((m.what == of::student) == (m.weight == by::student)) {
        if constexpr (Finite)
          to.at[J] += e * (m.what == of::student ? dz : dt);
        else
          to.at[J] +=
              e * (m.what == of::student ? (student_is_0 ? fill<Real>(0) : dz) : (teacher_is_0 ? fill<Real>(0) : dt));
      } else {
        // The other side's logit may be minus infinity where this one's weight is 0, and is not clamped for it.
        to.at[J] += e * ((m.weight == by::student ? student_is_0 : teacher_is_0) ? fill<Real>(0)
                                                                                 : (m.what == of::student ? dz : dt));
      }
    };
    (add(std::integral_constant<std::size_t, I>{}), ...);
  }
  (std::make_index_sequence<Loss::moments.size>{});
}

/// Adds one class to the logit sums of every term. The class has its logits alone, minus infinity where it is masked.
template <class Loss, class Class, class Real>
KD_FORMULA void add_logits(const Loss& loss, const Class& c, few<Real, Loss::logit_sums>& to) {
  Loss::each([&](auto index) {
    constexpr std::size_t i = decltype(index)::value;
    if constexpr (detail::logit_sums_of<typename Loss::template term_at<i>>() > 0)
      loss.template term<i>().add_logits(c, &to.at[Loss::template first_logit_sum<i>]);
  });
}

/// Makes the moments relative to other maxima: a sum of weight * what becomes scale * (sum + shift * sum of weights).
/// Call it before the sums of exponentials are scaled. `dz`, `dt` are the old maxima less the new; `ratio` is T/T'.
template <class Loss, class Real>
KD_FORMULA void move_moments(sums<Loss, Real>& s, Real student_scale, Real teacher_scale, Real dz, Real dt,
                             Real ratio) {
  [&]<std::size_t... I>(std::index_sequence<I...>) {
    [[maybe_unused]] const auto move = [&]<std::size_t J>(std::integral_constant<std::size_t, J>) {
      constexpr moment m = Loss::moments.at[J];
      const Real scale = m.weight == by::student ? student_scale : teacher_scale;
      const Real weights = m.weight == by::student ? s.student : s.teacher;
      const Real shift = m.what == of::gap ? dt * ratio - dz : m.what == of::student ? dz : dt;
      // The sums or the shift may be infinite where nothing remains or nothing was there, and 0 * infinity counts as 0.
      s.moments.at[J] = scale == 0    ? fill<Real>(0)
                        : weights > 0 ? scale * (s.moments.at[J] + weights * shift)
                                      : s.moments.at[J];
    };
    (move(std::integral_constant<std::size_t, I>{}), ...);
  }
  (std::make_index_sequence<Loss::moments.size>{});
}

/// The rows of all terms.
template <class Loss, class Real, class Math, class Indices = std::make_index_sequence<Loss::size>>
struct rows;
template <std::size_t I, class Row>
struct held_row {
  Row row;
};
template <class Loss, class Real, class Math, std::size_t... I>
struct rows<Loss, Real, Math, std::index_sequence<I...>> : held_row<I, row<Loss, I, Real, Math>>... {
  template <std::size_t J>
  KD_FORMULA row<Loss, J, Real, Math>& at() {
    return static_cast<held_row<J, row<Loss, J, Real, Math>>&>(*this).row;
  }
  template <std::size_t J>
  KD_FORMULA const row<Loss, J, Real, Math>& at() const {
    return static_cast<const held_row<J, row<Loss, J, Real, Math>>&>(*this).row;
  }
};

namespace detail {
/// What gradients use of a row and is not to be computed once a class.
template <class Term, class Row>
KD_FORMULA void keep(const Term& term, Row& r) {
  if constexpr (kept_of<Term>() > 0) term.keep(r, r.kept.at);
}
}  // namespace detail

/// Everything about a row but its second sweep, and with that the values of the terms that have none.
/// @param label_student, label_teacher see row; not read unless the loss sets the label apart
/// @param spread of the student's logits; not read unless the loss standardises
template <class Math, class Loss, class Real>
KD_FORMULA rows<Loss, Real, Math> rows_of(const Loss& loss, const sums<Loss, Real>& s, Real inverse_T,
                                          Real inverse_teacher_T, Real teacher_max, Real log_sum_exp, Real classes,
                                          Real label_student = {}, Real label_teacher = {},
                                          const logit_spread<Real>& spread = logit_spread<Real>{}) {
  rows<Loss, Real, Math> all;
  const Real log_ratio = Loss::softens ? Math::log(s.teacher / s.student) : fill<Real>(0);
  const Real log_teacher = Loss::softens ? Math::log(s.teacher) : fill<Real>(0);
  Loss::each([&](auto index) {
    constexpr std::size_t i = decltype(index)::value;
    using term = typename Loss::template term_at<i>;
    auto& r = all.template at<i>();
    r.student = s.student;
    r.teacher = s.teacher;
    r.moments = s.moments;
    for (std::size_t k = 0; k != detail::logit_sums_of<term>(); ++k)
      r.logit_sums.at[k] = s.logits.at[Loss::template first_logit_sum<i> + k];
    r.inverse_T = inverse_T;
    r.inverse_teacher_T = inverse_teacher_T;
    r.log_ratio = log_ratio;
    r.log_teacher = log_teacher;
    r.log_mass = teacher_max * inverse_teacher_T + log_teacher;
    r.log_sum_exp = log_sum_exp;
    r.classes = classes;
    r.label_student = label_student;
    r.label_teacher = label_teacher;
    r.spread = spread;
    if constexpr (term::side != terms::hard && detail::probability_sums_of<term>() == 0) {
      r.value = loss.template term<i>().value(r);
      detail::keep(loss.template term<i>(), r);
    }
  });
  return all;
}

/// Adds a class to the probability sums of every term: the second sweep.
template <class Loss, class Rows, class Class, class Real>
KD_FORMULA void add_probabilities(const Loss& loss, const Rows& r, const Class& c,
                                  few<Real, Loss::probability_sums>& to) {
  Loss::each([&](auto index) {
    constexpr std::size_t i = decltype(index)::value;
    using term = typename Loss::template term_at<i>;
    if constexpr (detail::probability_sums_of<term>() > 0)
      loss.template term<i>().add_probabilities(r.template at<i>(), c, &to.at[Loss::template first_probability_sum<i>]);
  });
}
/// Ends the second sweep: the values of the terms that have one.
template <class Loss, class Rows, class Real>
KD_FORMULA void take_probabilities(const Loss& loss, const few<Real, Loss::probability_sums>& s, Rows& r) {
  Loss::each([&](auto index) {
    constexpr std::size_t i = decltype(index)::value;
    using term = typename Loss::template term_at<i>;
    if constexpr (detail::probability_sums_of<term>() > 0) {
      auto& mine = r.template at<i>();
      for (std::size_t k = 0; k != detail::probability_sums_of<term>(); ++k)
        mine.probability_sums.at[k] = s.at[Loss::template first_probability_sum<i> + k];
      mine.value = loss.template term<i>().value(mine);
      detail::keep(loss.template term<i>(), mine);
    }
  });
}

/// The gradient by z of one class, without what the label has less. factors[i]: the weight of term i, what the batch
/// divides by, and the unit of its side.
template <class Loss, class Rows, class Class, class Factor>
KD_FORMULA auto gradient_of(const Loss& loss, const Rows& r, const Class& c, const Factor (&factors)[Loss::size]) {
  auto d = fill<decltype(c.student * factors[0])>(0);
  bool first = true;
  // Hard terms first: the order is part of the result.
  const auto add = [&](auto index) {
    constexpr std::size_t i = decltype(index)::value;
    const auto part = loss.template term<i>().gradient(r.template at<i>(), c) * factors[i];
    d = first ? part : d + part;
    first = false;
  };
  Loss::each([&](auto index) {
    if constexpr (Loss::template term_at<decltype(index)::value>::side == terms::hard) add(index);
  });
  Loss::each([&](auto index) {
    if constexpr (Loss::template term_at<decltype(index)::value>::side != terms::hard) add(index);
  });
  return d;
}

/// The gradient by z of a label that is set apart, without what the label has less. `c` is the label's class: its hard
/// exponential and its logits; `factors` as for gradient_of; softened[i] is that of term i in probabilities.
template <class Loss, class Rows, class Class, class Factor>
KD_FORMULA auto gradient_of_label(const Loss& loss, const Rows& r, const Class& c, const Factor (&factors)[Loss::size],
                                  const Factor (&softened)[Loss::size]) {
  auto d = fill<decltype(c.student * factors[0])>(0);
  Loss::each([&](auto index) {
    constexpr std::size_t i = decltype(index)::value;
    const auto& term = loss.template term<i>();
    if constexpr (Loss::template term_at<i>::side == terms::softened)
      d = d + term.gradient_of_label(r.template at<i>()) * softened[i];
    else
      d = d + term.gradient(r.template at<i>(), c) * factors[i];
  });
  return d;
}

/// What the gradient has less at the label's class, before the division by the rows.
template <class Loss>
KD_FORMULA float weight_at_label(const Loss& loss) {
  float sum = 0;
  Loss::each([&](auto index) {
    constexpr std::size_t i = decltype(index)::value;
    if constexpr (requires { loss.template term<i>().at_label(); })
      sum += loss.template weight<i>() * loss.template term<i>().at_label();
  });
  return sum;
}

}  // namespace kd::formula::inline KD_FORMULA_ABI
