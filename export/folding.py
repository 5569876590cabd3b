"""Prepares a network for export: the same function, with everything constant computed beforehand.

Batch norms go into their convolutions, score maps into constants, and decoder inputs get a channel count that
blocked convolutions can use. The result is a copy; the network itself stays as it was.
"""

import copy

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from gocor.export.networks import GLUNet, Network, PWCNet
from gocor.export.networks.filter_optimizer import grid_distances
from gocor.export.networks.global_gocor import GlobalFilterOptimizer
from gocor.export.networks.glunet import COARSE_GRID
from gocor.export.networks.layers import GROWTH
from gocor.export.networks.local_gocor import LocalGOCor

# ONNX Runtime's CPU convolutions are 1.3 to 1.5 times faster where input channels fill whole blocks of 16
# (AVX-512): with 117 = 81+32+4 inputs every convolution of the finest decoder would miss that.
CHANNEL_BLOCK = 16


def fold(network: Network, fused: bool = False) -> Network:
    """A copy in evaluation mode that computes the same and exports smaller and faster.

    Args:
        network: to be folded.
        fused: make every local GOCor one operator.
    """
    folded = copy.deepcopy(network).eval()
    for module in folded.modules():
        if isinstance(module, LocalGOCor):
            module.fused = fused
    with torch.no_grad():
        _fold_batch_norms(folded)
        _freeze_constants(folded)
        if isinstance(folded, PWCNet):
            _widen_pwcnet(folded)
        else:
            _widen_glunet(folded)
        _factor_narrow_outputs(folded)
    _enter_blocks(folded)
    return folded.eval()  # the modules that were put in, too


def _fold_batch_norms(network: nn.Module) -> None:
    for module in network.modules():
        if isinstance(module, nn.Sequential) and len(module) > 1 and isinstance(module[1], nn.BatchNorm2d):
            assert isinstance(module[0], nn.Conv2d)
            module[0] = fuse_conv_bn_eval(module[0], module[1])
            module[1] = nn.Identity()


def _freeze_constants(network: nn.Module) -> None:
    for module in network.modules():
        if isinstance(module, LocalGOCor):
            optimizer = module.filter_optimizer
            optimizer.frozen = optimizer.score_maps(module.distances)
        elif isinstance(module, GlobalFilterOptimizer):
            module.frozen = module.score_maps(grid_distances(COARSE_GRID, COARSE_GRID))
            if module.reg_layer is not None:
                module.reg_layer.frozen = module.reg_layer.over_query((COARSE_GRID, COARSE_GRID))


def _widen_pwcnet(network: PWCNet) -> None:
    for level in range(6, 1, -1):
        consumers = [f"conv{level}_{k}.0" for k in range(len(GROWTH))] + [f"predict_flow{level}"]
        consumers.append(f"upfeat{level}" if level > 2 else "dc_conv1.0")
        _widen([network.get_submodule(name) for name in consumers])


def _widen_glunet(network: GLUNet) -> None:
    first = network.decoder4.get_submodule("conv0.0")
    _set_inputs(first, first.get_parameter("weight")[:, : COARSE_GRID**2])  # without the two zero channels
    for level, consumer in ((3, "dc_conv1.0"), (2, "upfeat2"), (1, "l_dc_conv1.0")):
        decoder = network.get_submodule(f"decoder{level}")
        consumers = [f"conv_{k}.0" for k in range(len(GROWTH))] + ["predict_flow"]
        _widen([decoder.get_submodule(name) for name in consumers] + [network.get_submodule(consumer)])


def _widen(consumers: list[nn.Module]) -> None:
    """Appends inputs of weight zero to all convolutions of a decoder's input, whose channels come last."""
    missing = -consumers[0].get_parameter("weight").shape[1] % CHANNEL_BLOCK
    for module in consumers:
        dim = _input_dimension(module)
        weight = module.get_parameter("weight")
        shape = list(weight.shape)
        shape[dim] = missing
        _set_inputs(module, torch.cat((weight, weight.new_zeros(shape)), dim))


def _enter_blocks(network: nn.Module) -> None:
    """Puts a pooling of single pixels, which changes nothing, before each dense decoder.

    Convolutions and poolings bring their input into ONNX Runtime's blocked layout, and a concatenation stays
    in it only if all its inputs are: without this every convolution of a decoder converts everything before
    it again, 16 of 430 ms for PWC-Net-GOCor at 384×512 (ONNX Runtime 1.32).
    """
    for module in network.modules():
        if isinstance(getattr(module, "entry", None), nn.Identity):
            module.entry = nn.MaxPool2d(1)


def _factor_narrow_outputs(network: nn.Module) -> None:
    """Flow heads and the upsampling of features become a 1×1 convolution and a sum of shifted maps.

    They turn hundreds of channels into 2. ONNX Runtime computes convolutions for 16 outputs at least, so 3×3
    to 2 channels costs 9·16 products for each input channel, and 1×1 to the 9·2 summands 32: level 2's head
    takes 3 ms instead of 10 at 384×512. OpenVINO is slow at transposed convolutions of that many channels:
    4 of 118 ms in 8 bits.
    """
    for parent in list(network.modules()):
        for name, module in list(parent.named_children()):
            if name.startswith("predict_flow") and isinstance(module, nn.Conv2d):
                parent.add_module(name, _factored_head(module))
            elif name.startswith("upfeat") and isinstance(module, nn.ConvTranspose2d):
                parent.add_module(name, _factored_upsampler(module))


def _factored_head(head: nn.Conv2d) -> nn.Sequential:
    outputs, inputs, *kernel = head.weight.shape
    products = _products(head.weight.permute(0, 2, 3, 1).reshape(-1, inputs))
    sums = nn.Conv2d(products.out_channels, outputs, (kernel[0], kernel[1]), padding=1)
    sums.weight.copy_(_shifts(sums.weight))
    sums.bias = head.bias
    return nn.Sequential(products, sums).to(head.weight)


def _factored_upsampler(upsampler: nn.ConvTranspose2d) -> nn.Sequential:
    inputs, outputs, *_ = upsampler.weight.shape
    products = _products(upsampler.weight.permute(1, 2, 3, 0).reshape(-1, inputs))
    sums = nn.ConvTranspose2d(products.out_channels, outputs, 4, stride=2, padding=1)
    sums.weight.copy_(_shifts(sums.weight.transpose(0, 1)).transpose(0, 1))
    sums.bias = upsampler.bias
    return nn.Sequential(products, sums).to(upsampler.weight)


def _products(weight: Tensor) -> nn.Conv2d:
    """A 1×1 convolution by ``(summands, inputs)`` weights, to whole blocks of channels."""
    summands, inputs = weight.shape
    convolution = nn.Conv2d(inputs, summands + -summands % CHANNEL_BLOCK, 1, bias=False)
    convolution.weight.zero_()
    convolution.weight[:summands, :, 0, 0] = weight
    return convolution


def _shifts(like: Tensor) -> Tensor:
    """Weights ``(outputs, hidden, height, width)`` that take each summand from one place for one output."""
    outputs, hidden, *kernel = like.shape
    summands = outputs * kernel[0] * kernel[1]
    weight = like.new_zeros(outputs, hidden, *kernel)
    weight[:, :summands] = torch.eye(summands).reshape(outputs, *kernel, summands).permute(0, 3, 1, 2)
    return weight


def _set_inputs(module: nn.Module, weight: Tensor) -> None:
    assert isinstance(module, nn.Conv2d | nn.ConvTranspose2d)
    module.weight = nn.Parameter(weight)
    module.in_channels = weight.shape[_input_dimension(module)]


def _input_dimension(module: nn.Module) -> int:
    return 0 if isinstance(module, nn.ConvTranspose2d) else 1
