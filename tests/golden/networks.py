"""The three networks in PyTorch: the students as the tutorial's modules, ResNet18 with torchvision's state_dict names."""
import torch
from torch import nn


class Student(nn.Module):
    """Two convolutions of `channels`, each with relu and a 2x2 max pool, then a classifier with dropout; input [N,3,32,32]."""

    def __init__(self, channels, hidden, dropout, num_classes=10):
        super().__init__()
        first, second = channels
        self.features = nn.Sequential(
            nn.Conv2d(3, first, kernel_size=3, padding=1), nn.ReLU(), nn.MaxPool2d(2, 2),       # [N,first,16,16]
            nn.Conv2d(first, second, kernel_size=3, padding=1), nn.ReLU(), nn.MaxPool2d(2, 2))  # [N,second,8,8]
        self.classifier = nn.Sequential(
            nn.Linear(second * 64, hidden), nn.ReLU(), nn.Dropout(dropout), nn.Linear(hidden, num_classes))

    def forward(self, x):
        return self.classifier(torch.flatten(self.features(x), 1))


class BasicBlock(nn.Module):
    """He et al., Deep residual learning (arXiv:1512.03385), figure 2; the shortcut projects where the shape changes."""

    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.downsample = None
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))
        self.relu2 = nn.ReLU()

    def forward(self, x):
        shortcut = x if self.downsample is None else self.downsample(x)
        x = self.relu1(self.bn1(self.conv1(x)))
        return self.relu2(self.bn2(self.conv2(x)) + shortcut)


class ResNet18(nn.Module):
    """`stem` "imagenet": 7x7 stride 2 and a 3x3 stride 2 max pool; "cifar": 3x3 stride 1 and no pool."""

    def __init__(self, num_classes=10, stem="imagenet"):
        super().__init__()
        imagenet = {"imagenet": True, "cifar": False}[stem]
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False) if imagenet else nn.Conv2d(3, 64, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU()
        self.maxpool = nn.MaxPool2d(3, 2, 1) if imagenet else nn.Identity()
        self.layer1 = nn.Sequential(BasicBlock(64, 64, 1), BasicBlock(64, 64, 1))
        self.layer2 = nn.Sequential(BasicBlock(64, 128, 2), BasicBlock(128, 128, 1))
        self.layer3 = nn.Sequential(BasicBlock(128, 256, 2), BasicBlock(256, 256, 1))
        self.layer4 = nn.Sequential(BasicBlock(256, 512, 2), BasicBlock(512, 512, 1))
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(512, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x):
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(torch.flatten(self.avgpool(x), 1))


def SimpleNN():
    return Student((8, 8), 64, dropout=0.2)


def LightNN():
    return Student((16, 16), 256, dropout=0.1)


def parameter_count(model):
    return sum(p.numel() for p in model.parameters())


assert parameter_count(SimpleNN()) == 34_290
assert parameter_count(LightNN()) == 267_738
assert parameter_count(ResNet18()) == 11_181_642
assert parameter_count(ResNet18(stem="cifar")) == 11_173_962
