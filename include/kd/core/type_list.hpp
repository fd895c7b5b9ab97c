/// A flat list of types: concatenation with +, and access by position without recursion; and the end of a choice by
/// type.
#pragma once

#include <cstddef>
#include <type_traits>
#include <utility>

#include "kd/core/abi.hpp"

namespace kd::inline KD_ABI {

/// False, whatever T is. The last branch of a chain of if constexpr is static_assert(no_branch_for<T>, "..."): a type
/// that the chain does not know is an error that names it, and never runs what the branch before was written for.
template <class T>
inline constexpr bool no_branch_for = false;

template <class... Types>
struct type_list {
  static constexpr std::size_t size = sizeof...(Types);
};

template <class... A, class... B>
constexpr type_list<A..., B...> operator+(type_list<A...>, type_list<B...>) {
  return {};
}

namespace detail {

template <std::size_t I, class T>
struct indexed_type {
  using type = T;
};
template <class Indices, class... Types>
struct indexed_types;
template <std::size_t... I, class... Types>
struct indexed_types<std::index_sequence<I...>, Types...> : indexed_type<I, Types>... {};
template <std::size_t I, class T>
indexed_type<I, T> pick(const indexed_type<I, T>&);

template <class List>
struct index_list;
template <class... Types>
struct index_list<type_list<Types...>> {
  using type = indexed_types<std::index_sequence_for<Types...>, Types...>;
};

}  // namespace detail

/// The type at position I of a type_list.
template <std::size_t I, class List>
using type_at = typename decltype(detail::pick<I>(std::declval<typename detail::index_list<List>::type>()))::type;

}  // namespace kd::inline KD_ABI
