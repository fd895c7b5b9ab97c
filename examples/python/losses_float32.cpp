// The losses of float32 logits.
#include "losses.hpp"

template kd_python::outcome kd_python::forward_backward(const request&, batch<float>);
