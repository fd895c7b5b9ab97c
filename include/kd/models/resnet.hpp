/// ResNet18, the teacher. He, Zhang, Ren, Sun: Deep residual learning, arXiv:1512.03385, table 1; names as
/// torchvision's.
#pragma once

#include "kd/nn/layers.hpp"

namespace kd::inline KD_ABI::models {

namespace resnet {

template <std::size_t Channels, std::size_t Kernel, std::size_t Stride>
using conv = nn::conv2d<
    Channels, Kernel,
    nn::conv_options{
        .stride = Stride, .padding = Kernel / 2, .bias = false, .initial = nn::conv_initial::kaiming_normal_fan_out}>;

template <std::size_t Channels, std::size_t Stride>
using main = nn::main_path<nn::as<"conv1", conv<Channels, 3, Stride>>, nn::as<"bn1", nn::batch_norm2d<>>, nn::relu,
                           nn::as<"conv2", conv<Channels, 3, 1>>, nn::as<"bn2", nn::batch_norm2d<>>>;

/// Two 3x3 convolutions around an identity shortcut.
template <std::size_t Channels>
using basic_block = nn::block<nn::as<"", nn::residual<main<Channels, 1>>>, nn::relu>;

/// The same, halving the image and projecting the shortcut by a 1x1 convolution.
template <std::size_t Channels>
using down_block =
    nn::block<nn::as<"", nn::residual<main<Channels, 2>, nn::shortcut<conv<Channels, 1, 2>, nn::batch_norm2d<>>>>,
              nn::relu>;

/// The four stages and the classifier, behind a stem that gives 64 channels.
template <class Image, std::size_t Classes, class... Stem>
using body = nn::sequential<Image, Stem...,                                          //
                            nn::named<"layer1", basic_block<64>, basic_block<64>>,   //
                            nn::named<"layer2", down_block<128>, basic_block<128>>,  //
                            nn::named<"layer3", down_block<256>, basic_block<256>>,  //
                            nn::named<"layer4", down_block<512>, basic_block<512>>,  //
                            nn::global_avg_pool2d, nn::flatten, nn::as<"fc", nn::linear<Classes>>>;

}  // namespace resnet

/// With the ImageNet stem (7x7/2 convolution, 3x3/2 max pooling), as torchvision builds it.
template <std::size_t Classes = 10, class Image = image<3, 32, 32>>
using ResNet18Of =
    resnet::body<Image, Classes, nn::as<"conv1", resnet::conv<64, 7, 2>>, nn::as<"bn1", nn::batch_norm2d<>>, nn::relu,
                 nn::max_pool2d<3, nn::pool_options{.stride = 2, .padding = 1}>>;

/// With the CIFAR stem (3x3 convolution, no pooling).
template <std::size_t Classes = 10>
using ResNet18CifarOf = resnet::body<image<3, 32, 32>, Classes, nn::as<"conv1", resnet::conv<64, 3, 1>>,
                                     nn::as<"bn1", nn::batch_norm2d<>>, nn::relu>;

using ResNet18 = ResNet18Of<>;
using ResNet18Cifar = ResNet18CifarOf<>;
static_assert(nn::plan_of<ResNet18>::parameter_count == 11'181'642);
static_assert(nn::plan_of<ResNet18Cifar>::parameter_count == 11'173'962);

}  // namespace kd::inline KD_ABI::models
